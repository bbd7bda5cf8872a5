"""What all status machines share: the check of a request, and the move along the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from openrdb.errors import TransientState

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

    def require(self, row: HasStatus, request: Request) -> None:
        """Raise `TransientState` unless the row's status allows the request."""
        if row.status not in self.allowed[request]:
            raise TransientState(self.resource, str(row.id), row.status)

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
