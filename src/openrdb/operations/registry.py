"""What an operation is, and which kinds there are.

A kind is a frozen dataclass: its fields are the parameters, its class attributes the rules, and
`sequence` the work. Each has a module of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

from pydantic import TypeAdapter

from openrdb.state import models
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

if TYPE_CHECKING:
    from openrdb.operations.run import Run


class OnFailure(Enum):
    """What a failure makes of the status that the operation set; other statuses stay as they are."""

    ERROR = "error"
    BACK = "back"
    """The status that the subject had before."""


@dataclass(frozen=True)
class Concern:
    """A subject that an operation moves."""

    subject_type: str
    subject_id: UUID
    meanwhile: str
    """The status while the operation is under way."""
    statuses: frozenset[str]
    """All statuses that the operation sets before its end."""
    request: StrEnum | None = None
    """What its status must allow; None: anything."""
    after_failure: str | None = None
    """Its status after a failure; None: as `on_failure` says."""


@dataclass(frozen=True)
class Operation:
    """A durable piece of work on a subject.

    A kind that is recorded keeps its name and can read the parameters of earlier builds: new fields
    have defaults.
    """

    kind: ClassVar[str]
    """Its name in the state."""
    subject_type: ClassVar[str]
    request: ClassVar[Any]
    """The request that its subject's status must allow; None: the subject is new."""
    meanwhile: ClassVar[str | None] = None
    """The subject's status while the operation is under way; None: it stays as it is."""
    later: ClassVar[frozenset[str]] = frozenset()
    """Further statuses that the sequence sets before its end."""
    deadline: ClassVar[float]
    """Seconds from the record to the latest expected end."""
    on_failure: ClassVar[OnFailure] = OnFailure.ERROR

    subject_id: UUID

    def concerns(self) -> list[Concern]:
        """Return the subjects whose status the operation sets."""
        if self.meanwhile is None:
            return []
        statuses = frozenset({self.meanwhile}) | self.later
        return [Concern(self.subject_type, self.subject_id, self.meanwhile, statuses, self.request)]

    def sequence(self, run: Run) -> None:
        """Do the work, in steps that can be repeated."""
        raise NotImplementedError

    def parameters(self) -> dict[str, Any]:
        """Return the fields as JSON, without the subject, which the row names."""
        dumped: dict[str, Any] = _adapter(type(self)).dump_python(
            self, mode="json", exclude={"subject_id"}
        )
        return dumped

    @classmethod
    def is_moving(cls) -> bool:
        """Return whether it sets a status; only such an operation can be retried."""
        return cls.meanwhile is not None


@dataclass(frozen=True)
class InstanceOperation(Operation):
    """An operation on an instance."""

    subject_type = "instance"
    request: ClassVar[InstanceRequest | None]
    meanwhile: ClassVar[InstanceStatus | None] = None


Kind = TypeVar("Kind", bound=type[Operation])
KINDS: dict[str, type[Operation]] = {}
"""All kinds by their names."""


def register(kind: Kind) -> Kind:
    """Make a kind known by its name."""
    KINDS[kind.kind] = kind
    return kind


_ADAPTERS: dict[str, TypeAdapter[Any]] = {}


def _adapter(kind: type[Operation]) -> TypeAdapter[Any]:
    if kind.kind not in _ADAPTERS:
        _ADAPTERS[kind.kind] = TypeAdapter(kind)
    return _ADAPTERS[kind.kind]


def load(row: models.Operation) -> Operation:
    """Return the operation that a row records.

    Raises:
        KeyError: the kind is unknown, as after a downgrade.
        ValidationError: the parameters are not those of the kind.
    """
    kind = KINDS[row.kind]
    known = {field.name for field in fields(kind)}
    given = {name: value for name, value in row.parameters.items() if name in known}
    loaded: Operation = _adapter(kind).validate_python(given | {"subject_id": row.subject_id})
    return loaded
