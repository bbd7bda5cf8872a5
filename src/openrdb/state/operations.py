"""The record of operations: the truth of what was accepted, whatever a workflow engine knows."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from openrdb.state import events
from openrdb.state.models import DatabaseBackup, InstanceLog, Operation, now
from openrdb.state.statuses.backup import BackupStatus
from openrdb.state.statuses.instance_log import InstanceLogStatus

KEPT = timedelta(days=7)
"""How long an ended operation stays readable."""
UNFINISHED = ("recorded", "running")
DEFERRED = "deferred"
"""Accepted, and made once the subject works again."""


def unstarted(session: Session, older_than: timedelta) -> list[Operation]:
    """Return recorded operations that nothing has begun, oldest first."""
    query = select(Operation).where(
        Operation.status == "recorded", Operation.created_at <= now() - older_than
    )
    return list(session.scalars(query.order_by(Operation.created_at)))


def unfinished(session: Session) -> list[Operation]:
    """Return operations that have not ended, oldest first."""
    query = select(Operation).where(Operation.status.in_(UNFINISHED))
    return list(session.scalars(query.order_by(Operation.created_at)))


def is_under_way(session: Session, subject_id: UUID, kind: str) -> bool:
    """Return whether an operation of a kind on a subject has not ended."""
    of_it = (Operation.subject_id == subject_id, Operation.kind == kind)
    query = select(Operation.id).where(*of_it, Operation.status.in_(UNFINISHED))
    return session.scalars(query.limit(1)).first() is not None


def needed_jobs(session: Session) -> set[UUID]:
    """Return the ids that the jobs of unfinished operations may have: their own, or that of a backup
    or a copy of logs which is being made."""
    own = session.scalars(select(Operation.id).where(Operation.status.in_(UNFINISHED)))
    backups = select(DatabaseBackup.id).where(DatabaseBackup.status == BackupStatus.CREATING)
    logs = select(InstanceLog.id).where(InstanceLog.status == InstanceLogStatus.CREATING)
    return {*own, *session.scalars(backups), *session.scalars(logs)}


def at_work() -> Select[UUID]:
    """Return the query for the subjects of unfinished operations."""
    return select(Operation.subject_id).where(Operation.status.in_(UNFINISHED))


def failed(session: Session) -> list[Operation]:
    """Return operations that failed and are still kept, oldest first."""
    query = select(Operation).where(Operation.status == "failed")
    return list(session.scalars(query.order_by(Operation.created_at)))


def defer(session: Session, operation_id: UUID) -> None:
    """Leave an operation for when its subject works again; end it if an equal one waits already."""
    operation = session.get_one(Operation, operation_id)
    what = (operation.kind, operation.parameters)
    if what in [(one.kind, one.parameters) for one in deferred(session, operation.subject_id)]:
        finish(session, operation_id)
    else:
        operation.status, operation.step = DEFERRED, None


def deferred(session: Session, subject_id: UUID | None = None) -> list[Operation]:
    """Return what waits for a subject, or for any, to work again, oldest first."""
    query = select(Operation).where(Operation.status == DEFERRED)
    if subject_id is not None:
        query = query.where(Operation.subject_id == subject_id)
    return list(session.scalars(query.order_by(Operation.created_at)))


def forget_deferred(session: Session, subject_ids: Collection[UUID]) -> None:
    """Forget what waits for subjects that will never work again."""
    waiting = (Operation.subject_id.in_(subject_ids), Operation.status == DEFERRED)
    session.execute(delete(Operation).where(*waiting))


def enter(session: Session, operation_id: UUID, build: str) -> Operation | None:
    """Mark an operation as running by this build; None if it has ended already or is gone."""
    operation = session.get(Operation, operation_id)
    if operation is None or operation.finished_at is not None:
        return None
    if operation.status == "recorded":
        mark_running(operation)
    operation.attempts += 1
    operation.build = build
    return operation


def mark_running(operation: Operation) -> None:
    """Write down that somebody performs it from now on."""
    operation.status = "running"
    operation.started_at = now()


def enter_step(session: Session, operation_id: UUID, step: str) -> None:
    """Write down which step begins."""
    operation = session.get(Operation, operation_id)
    if operation is not None and operation.finished_at is None:
        operation.step = step
        operation.step_started_at = now()


def mark_checked(session: Session, operation_id: UUID, first: str) -> None:
    """Write down that the precondition has held, once and for all, and that the first step begins."""
    session.get_one(Operation, operation_id).is_checked = True
    enter_step(session, operation_id, first)


def finish(
    session: Session,
    operation_id: UUID,
    error: str | None = None,
    *,
    error_type: str | None = None,
    can_be_retried: bool = False,
    is_refusal: bool = False,
    remark: str | None = None,
) -> bool:
    """End an operation, with its event; False if it had ended already.

    Why it failed is kept as one line, whatever a server's message looks like.
    Its parameters, among which are verifiers, are kept only where it can be retried.

    Args:
        is_refusal: whether the error answers the request, which changed nothing.
    """
    operation = session.get(Operation, operation_id)
    if operation is None or operation.finished_at is not None:
        return False
    ended_badly = "refused" if is_refusal else "failed"
    operation.status = ended_badly if error else "done"
    operation.error = " ".join(error.split()) if error else None
    if not error:
        operation.step = None
    if not can_be_retried:
        operation.parameters = {}
    operation.finished_at = now()
    events.of_operation(session, operation, operation.status, error_type, remark)
    return True


def late(session: Session) -> list[Operation]:
    """Return unfinished operations whose deadline has passed."""
    unfinished = Operation.status.in_(UNFINISHED)
    return list(session.scalars(select(Operation).where(unfinished, Operation.deadline_at < now())))


def mark_overdue(session: Session) -> list[Operation]:
    """Add an event for each operation that has become late since the last look; return these."""
    found = [operation for operation in late(session) if not operation.is_overdue]
    for operation in found:
        operation.is_overdue = True
        events.of_operation(session, operation, "overdue")
    return found


def old(session: Session) -> list[UUID]:
    """Return operations that ended so long ago that nobody asks for them any more."""
    return list(session.scalars(select(Operation.id).where(Operation.finished_at < now() - KEPT)))


def forget(session: Session, operation_ids: list[UUID]) -> None:
    session.execute(delete(Operation).where(Operation.id.in_(operation_ids)))


def forget_parameters(session: Session, subject_id: UUID) -> None:
    """Forget what a subject's ended operations kept for being retried."""
    ended = (Operation.subject_id == subject_id, Operation.finished_at.is_not(None))
    session.execute(update(Operation).where(*ended).values(parameters={}))
