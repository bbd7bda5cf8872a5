"""What all status machines share: the check of a request, and the move along the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from openrdb.errors import PreconditionFailed, TransientState

Status = TypeVar("Status", bound=StrEnum)
Request = TypeVar("Request", bound=StrEnum)


class HasStatus(Protocol):
    """A resource's row."""

    id: UUID
    status: str


@dataclass(frozen=True)
class Machine(Generic[Status, Request]):
    """The statuses of one resource."""

    resource: str
    """Its name in errors."""
    moves: Mapping[Status, frozenset[Status]]
    """The statuses that may follow each status."""
    allowed: Mapping[Request, frozenset[Status]]
    """The statuses in which each request is accepted."""
    transient: frozenset[Status]
    """The statuses that an operation will end by itself: only in these it helps to ask again."""
    ways_out: Mapping[Status, str]
    """What to do about statuses that last though nobody wants them."""

    def require(self, row: HasStatus, request: Request) -> None:
        """Check that a row's status allows a request.

        Raises:
            TransientState: it does not, and will soon be another. Clients ask again, at once and
                for as long as they get this answer.
            PreconditionFailed: it does not, and stays until somebody does something about it.
        """
        if row.status in self.allowed[request]:
            return
        if row.status in self.transient:
            raise TransientState(self.resource, str(row.id), row.status)
        raise self.not_usable(row)

    def not_usable(self, row: HasStatus) -> PreconditionFailed:
        """Return the refusal of what a status that lasts does not allow."""
        way_out = self.ways_out.get(row.status)  # type: ignore[call-overload]
        help_message = f"the {self.resource} is in status {row.status}"
        return PreconditionFailed(
            "resource_not_usable", f"{help_message}: {way_out}" if way_out else help_message
        )

    def move(self, row: HasStatus, status: Status) -> None:
        """Bring a row to a status; a no-op if it is there already, so that steps can be repeated.

        Raises:
            ValueError: the table has no such move, which is a defect of the caller.
        """
        if status == row.status:
            return
        if status not in self.moves[row.status]:  # type: ignore[index]
            raise ValueError(f"an {self.resource} cannot go from {row.status} to {status}")
        row.status = str(status)
