"""How an operation begins: the one place where a status is required, moved, and the work recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.errors import NotFound, PreconditionFailed
from openrdb.operations.registry import KINDS, Operation, load
from openrdb.state import events, models, operations
from openrdb.state.database import Database
from openrdb.state.events import Caller
from openrdb.state.models import now
from openrdb.state.subjects import SUBJECTS, subject_of

S = TypeVar("S")


@dataclass(frozen=True)
class Begun(Generic[S]):
    """An accepted request."""

    subject: S
    """The row, as committed."""
    operation: Operation | None
    """None: the change needed no work."""


def begin(
    database: Database,
    start: Callable[[UUID], None],
    caller: Caller,
    *,
    find: Callable[[Session], S],
    request: StrEnum | None,
    prepare: Callable[[Session, S], Operation | None],
    is_awaited: bool = False,
) -> Begun[S]:
    """Accept a request: change the state, record the operation that it needs, and start that.

    All but the start is one transaction; whatever is raised in it changes nothing.

    Args:
        start: Called with the operation's id right after the commit.
        find: Returns the subject, if the caller may see it.
        request: What the subject's status must allow; None for a subject that is being made.
        prepare: Checks and changes rows, and returns the operation; None where none is needed.
        is_awaited: `start` performs the operation itself. A power cut before its first change may
            then take the record back: nobody has been answered.

    Raises:
        TransientState: the status of a subject does not allow the request.
    """
    with database.write(durable=not is_awaited) as session:
        row: Any = find(session)
        machine = subject_of(row).machine
        if request is not None:
            machine.require(row, request)
        operation = prepare(session, row)
        operation_id = None
        if operation is not None:
            session.flush()  # `prepare` may have added the subject
            _require(session, operation)
            record = _record(session, operation)
            operation_id = record.id
            if is_awaited:
                operations.mark_running(record)
        events.accepted(session, caller, machine.resource, row.id, operation_id)
    if operation_id is not None:
        start(operation_id)
    return Begun(row, operation)


def _require(session: Session, operation: Operation, *, again: bool = False) -> None:
    """Raise TransientState or PreconditionFailed unless all subjects' statuses allow an operation;
    `again`: one that failed, and left in `error` those that it did not put back."""
    for concern in operation.concerns():
        subject = SUBJECTS[concern.subject_type]
        request = concern.request
        if again and concern.after_failure is None:
            request = subject.retry
        if request is None:
            continue
        row = subject.find(session, concern.subject_id)
        if row is None:
            raise NotFound(concern.subject_type, str(concern.subject_id))
        subject.machine.require(row, request)


def _record(session: Session, operation: Operation) -> models.Operation:
    """Write an operation down, and move its subjects to the status that they have meanwhile."""
    subject = SUBJECTS[operation.subject_type].find(session, operation.subject_id)
    recorded_at = now()
    row = models.Operation(
        id=uuid4(),
        subject_type=operation.subject_type,
        subject_id=operation.subject_id,
        kind=operation.kind,
        parameters=operation.parameters(),
        status_before=subject.status,
        created_at=recorded_at,
        deadline_at=recorded_at + timedelta(seconds=operation.deadline),
    )
    session.add(row)
    for concern in operation.concerns():
        concerned = SUBJECTS[concern.subject_type]
        found = concerned.find(session, concern.subject_id)
        concerned.machine.move(found, concern.meanwhile)
    return row


def retry(session: Session, operation_id: UUID) -> models.Operation:
    """Record the work of a failed operation again; it is started by the service's next sweep.

    Raises:
        NotFound: there is no such operation, or its subject has been deleted.
        PreconditionFailed: it did not fail, or is not the last one that moved its subject.
        TransientState: the subject's status does not allow it.
    """
    failed = session.get(models.Operation, operation_id)
    if failed is None:
        raise NotFound("operation", str(operation_id))
    if failed.status != "failed":
        raise _not_usable(f"the operation is {failed.status}, and only a failed one can be retried")
    kind = KINDS.get(failed.kind)
    if kind is None or not kind.is_moving():
        raise _not_usable("the operation left its subject as it was; repeat the request")
    if _newest_moving(session, failed) != failed.id:
        raise _not_usable("a later operation has changed the same subject")
    try:
        operation = load(failed)
    except ValidationError:
        raise _not_usable("the operation's parameters are not kept any more") from None
    _require(session, operation, again=True)
    failed.parameters = {}
    return record_for_operator(session, operation, "retried")


def record_for_operator(session: Session, operation: Operation, outcome: str) -> models.Operation:
    """Record an operation that the operator asks for by a command, with an event that says so; it is
    started by the service's next sweep."""
    row = _record(session, operation)
    events.of_operation(session, row, outcome)
    return row


def record_scheduled(session: Session, operation: Operation) -> models.Operation:
    """Record an operation that is due, with an event that says so; start it after the commit.

    Raises:
        TransientState, PreconditionFailed: the status of a subject does not allow it.
    """
    _require(session, operation)
    return record_for_operator(session, operation, "scheduled")


def _newest_moving(session: Session, of: models.Operation) -> UUID | None:
    moving = [name for name, kind in KINDS.items() if kind.is_moving()]
    query = select(models.Operation.id).where(
        models.Operation.subject_type == of.subject_type,
        models.Operation.subject_id == of.subject_id,
        models.Operation.kind.in_(moving),
    )
    return session.scalars(query.order_by(models.Operation.created_at.desc()).limit(1)).first()


def _not_usable(help_message: str) -> PreconditionFailed:
    return PreconditionFailed("resource_not_usable", help_message)
