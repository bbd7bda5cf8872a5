"""Operations as their operator sees them: in the data directory's database, served or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.cli.state import events as events_shown
from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.errors import HostError, NotFound, PreconditionFailed, TransientState
from openrdb.operations.begin import retry as begin_again
from openrdb.state import events, models, operations
from openrdb.state.models import now
from openrdb.state.subjects import SUBJECTS

_RECENTLY = timedelta(days=1)


@dataclass(frozen=True)
class ListedOperation:
    """An operation as the operator sees it: without its parameters."""

    id: str
    kind: str
    subject_type: str
    subject_id: str
    subject_name: str | None
    """None: it has been deleted."""
    status: str
    step: str | None
    step_started_at: str | None
    created_at: str
    age: float
    """Seconds since it was recorded, or from then to its end."""
    deadline_at: str | None
    is_late: bool
    """Whether it is unfinished and past its deadline."""
    attempts: int
    build: str | None
    reason: str | None
    finished_at: str | None


def listed(session: Session, row: models.Operation) -> ListedOperation:
    """Return what is shown of a row."""
    subject = SUBJECTS[row.subject_type].find(session, row.subject_id)
    end = row.finished_at or now()
    late = row.finished_at is None and row.deadline_at is not None and row.deadline_at < end
    return ListedOperation(
        id=str(row.id),
        kind=row.kind,
        subject_type=row.subject_type,
        subject_id=str(row.subject_id),
        subject_name=subject.name if subject is not None else None,
        status=row.status,
        step=row.step,
        step_started_at=_text(row.step_started_at),
        created_at=row.created_at.isoformat(),
        age=round((end - row.created_at).total_seconds(), 3),
        deadline_at=_text(row.deadline_at),
        is_late=late,
        attempts=row.attempts,
        build=row.build,
        reason=row.error,
        finished_at=_text(row.finished_at),
    )


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def find(session: Session, prefix: str) -> models.Operation:
    """Return the operation whose id begins with some characters.

    Raises:
        HostError: there is none, or there are several.
    """
    wanted = prefix.lower()
    found = [
        row for row in session.scalars(select(models.Operation)) if str(row.id).startswith(wanted)
    ]
    if not found:
        raise HostError(f"there is no operation {prefix}; `openrdb operations list` shows them")
    if len(found) > 1:
        raise HostError(f"several operations begin with {prefix}; give more of the id")
    return found[0]


def overview(settings: Settings, *, everything: bool) -> list[ListedOperation]:
    """Return unfinished and deferred operations and those that failed in the last day, or all that
    are kept."""
    with opened_state(settings) as database, database.read() as session:
        if everything:
            by_age = select(models.Operation).order_by(models.Operation.created_at)
            rows = list(session.scalars(by_age))
        else:
            after = now() - _RECENTLY
            failed = operations.failed(session)
            recent = [row for row in failed if row.finished_at and row.finished_at > after]
            rows = operations.unfinished(session) + operations.deferred(session) + recent
        return [listed(session, row) for row in rows]


def details(settings: Settings, prefix: str) -> dict[str, Any]:
    """Return an operation with the events of its subject.

    Raises:
        HostError: there is no such operation.
    """
    with opened_state(settings) as database, database.read() as session:
        row = find(session, prefix)
        history = [events_shown.show(one) for one in events.of_subject(session, row.subject_id)]
        return asdict(listed(session, row)) | {"events": history}


def retry(settings: Settings, prefix: str) -> ListedOperation:
    """Record a failed operation's work again.

    Raises:
        HostError: that cannot be done; the message says why.
    """
    with opened_state(settings) as database, database.write() as session:
        row = find(session, prefix)
        try:
            return listed(session, begin_again(session, row.id))
        except PreconditionFailed as error:
            raise HostError(f"cannot retry {row.id}: {error.help_message}") from None
        except NotFound as error:
            raise HostError(f"cannot retry {row.id}: its {error.resource} is gone") from None
        except TransientState as error:
            why = f"its {error.resource} is {error.current_state}, and must be error"
            raise HostError(f"cannot retry {row.id}: {why}") from None
