"""The record of operations: the truth of what was accepted, whatever a workflow engine knows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from openrdb.state.models import Instance, Operation, now

KEPT = timedelta(days=7)
"""How long an ended operation stays readable."""


def record(
    session: Session, instance: Instance, kind: str, parameters: dict[str, Any] | None = None
) -> Operation:
    """Write down that this is to be done; commit it together with the state that it leads to."""
    operation = Operation(instance_id=instance.id, kind=kind, parameters=parameters or {})
    session.add(operation)
    return operation


def unstarted(session: Session, older_than: timedelta) -> list[Operation]:
    """Recorded operations that nothing has begun, oldest first."""
    query = select(Operation).where(
        Operation.status == "recorded", Operation.created_at <= now() - older_than
    )
    return list(session.scalars(query.order_by(Operation.created_at)))


def unfinished(session: Session) -> list[Operation]:
    """Operations that have not ended, oldest first."""
    query = select(Operation).where(Operation.status.in_(("recorded", "running")))
    return list(session.scalars(query.order_by(Operation.created_at)))


def begin(session: Session, operation_id: UUID) -> Operation | None:
    """Mark as running; None when it has ended already or is gone."""
    operation = session.get(Operation, operation_id)
    if operation is None or operation.finished_at is not None:
        return None
    if operation.status == "recorded":
        operation.status = "running"
        operation.started_at = now()
    return operation


def keep(session: Session, operation_id: UUID, found: dict[str, Any]) -> None:
    """Add to the parameters what is to be known after a crash."""
    operation = session.get_one(Operation, operation_id)
    operation.parameters = operation.parameters | found


def finish(session: Session, operation_id: UUID, error: str | None = None) -> bool:
    """End an operation; False when it had ended already."""
    operation = session.get(Operation, operation_id)
    if operation is None or operation.finished_at is not None:
        return False
    operation.status = "failed" if error else "done"
    operation.error = error
    operation.parameters = {}
    operation.finished_at = now()
    return True


def old(session: Session) -> list[UUID]:
    """Operations that ended so long ago that nobody asks for them any more."""
    return list(session.scalars(select(Operation.id).where(Operation.finished_at < now() - KEPT)))


def forget(session: Session, operation_ids: list[UUID]) -> None:
    session.execute(delete(Operation).where(Operation.id.in_(operation_ids)))
