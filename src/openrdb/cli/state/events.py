"""Events as their operator sees them: in the data directory's database, served or not."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from openrdb.cli.state import instances
from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.state import events
from openrdb.state.models import Event


def newest(settings: Settings, count: int, subject: str | None) -> list[dict[str, Any]]:
    """Return the newest events, the oldest of them first.

    Args:
        subject: the id of what they are about, which may be gone, or the name of an instance; None:
            anything.

    Raises:
        HostError: there is no such instance, or there are several.
    """
    with opened_state(settings) as database, database.read() as session:
        known = _subject(session, subject) if subject is not None else None
        return [show(event) for event in events.newest(session, count, known)]


def show(event: Event) -> dict[str, Any]:
    """Return what is shown of an event."""
    return {
        "at": event.at.isoformat(),
        "action": event.action,
        "outcome": event.outcome,
        "subject_type": event.subject_type,
        "subject_id": event.subject_id,
        "operation_id": str(event.operation_id) if event.operation_id else None,
        "access_key": event.access_key,
        "source": event.source,
        "request_id": event.request_id,
        "parameters": event.parameters,
        "error_type": event.error_type,
        "reason": event.reason,
        "duration": event.duration,
    }


def _subject(session: Session, subject: str) -> UUID:
    try:
        return UUID(subject)
    except ValueError:
        return instances.find(session, subject).id
