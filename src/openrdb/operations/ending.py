"""How an operation ends that failed: the one place where its subjects leave the status it set."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.orm import Session

from openrdb.operations.registry import OnFailure, Operation
from openrdb.state import models, operations
from openrdb.state.subjects import SUBJECTS


def end_failed(
    session: Session,
    operation_id: UUID,
    operation: Operation,
    why: str,
    error_type: str,
    *,
    is_refusal: bool = False,
) -> bool:
    """End an operation as failed. Only statuses that it has set itself change.

    Args:
        is_refusal: whether the error answers a request that waits for it.

    Returns:
        Whether it had not ended before.
    """
    row = session.get(models.Operation, operation_id)
    before = row.status_before if row else None
    if not operations.finish(
        session,
        operation_id,
        why,
        error_type=error_type,
        can_be_retried=operation.is_moving(),
        is_refusal=is_refusal and not operation.is_moving(),
    ):
        return False
    for concern in operation.concerns():
        subject = SUBJECTS[concern.subject_type]
        found = subject.find(session, concern.subject_id)
        if found is not None and found.status in concern.statuses:
            back = operation.on_failure is OnFailure.BACK and before
            status = concern.after_failure or (before if back else subject.failed)
            subject.machine.move(found, status)
    return True
