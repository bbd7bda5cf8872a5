"""The append-only record of requests that change something, and of how operations ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, or_, select
from sqlalchemy.orm import Session

from openrdb.state.models import (
    ApiKey,
    DatabaseBackup,
    Event,
    InstanceLog,
    Ip,
    Operation,
    PrivateNetwork,
    Project,
    ReadReplica,
    Snapshot,
    Vpc,
    now,
)
from openrdb.state.models.base import storable
from openrdb.state.scope import Principal
from openrdb.state.subjects import SUBJECTS

KEPT = timedelta(days=90)
"""How long events outlive their subject."""
_SECRETS = ("password", "secret", "verifier", "token")
"""Parts of the names of fields whose values are never recorded."""
_LONGEST_TEXT = 255
_LONGEST_LIST = 100
_DEEPEST = 5


@dataclass(frozen=True)
class Caller:
    """Who sent a request, and what it asks for."""

    principal: Principal
    source: str
    request_id: str
    action: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def without_secrets(value: Any, depth: int = 0) -> Any:  # noqa: ANN401
    """Return a copy without the values of secret fields, its texts and lists shortened."""
    if isinstance(value, str):
        return _kept(value)
    if isinstance(value, Mapping | list) and depth == _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {
            _kept(str(name)): without_secrets(part, depth + 1)
            for name, part in list(value.items())[:_LONGEST_LIST]
            if not any(secret in str(name).lower() for secret in _SECRETS)
        }
    if isinstance(value, list):
        return [without_secrets(part, depth + 1) for part in value[:_LONGEST_LIST]]
    return value


def _kept(text: str) -> str:
    return storable(text[:_LONGEST_TEXT])


def accepted(
    session: Session,
    caller: Caller,
    subject_type: str,
    subject_id: UUID,
    operation_id: UUID | None = None,
) -> None:
    """Add the event of an accepted request, in the transaction of its change."""
    event = _of_request(session, caller, "accepted", subject_type, str(subject_id))
    event.operation_id = operation_id
    session.add(event)


def refused(
    session: Session,
    caller: Caller,
    subject: tuple[str, str] | None,
    error_type: str,
    *,
    is_failure: bool,
) -> None:
    """Add the event of a request that changed nothing.

    A no-op if the request has been accepted: then its operation's end says what became of it.
    """
    outcome = "failed" if is_failure else "refused"
    event = _of_request(session, caller, outcome, *(subject or (None, None)))
    event.error_type = error_type
    if session.get(Event, event.id) is None:
        session.add(event)


def observed(
    session: Session, instance_id: UUID, action: str, outcome: str, reason: str | None
) -> None:
    """Add an event about an instance that neither a request nor an operation tells of."""
    session.add(
        Event(
            action=action,
            outcome=outcome,
            subject_type="instance",
            subject_id=str(instance_id),
            instance_id=instance_id,
            reason=reason,
        )
    )


def request_of(session: Session, operation: Operation) -> str | None:
    """Return the id of the request that an operation was recorded by; None: there was none."""
    of_subject = Event.subject_id == str(operation.subject_id)
    query = select(Event.request_id).where(of_subject, Event.operation_id == operation.id)
    return session.scalars(query.where(Event.request_id.is_not(None)).limit(1)).first()


def _of_request(
    session: Session,
    caller: Caller,
    outcome: str,
    subject_type: str | None,
    subject_id: str | None,
) -> Event:
    return Event(
        id=UUID(caller.request_id),
        action=caller.action[:_LONGEST_TEXT],
        outcome=outcome,
        subject_type=subject_type,
        subject_id=subject_id[:_LONGEST_TEXT] if subject_id else None,
        instance_id=_instance_of(session, subject_type, subject_id),
        access_key=caller.principal.access_key,
        source=caller.source,
        request_id=caller.request_id,
        parameters=without_secrets(caller.parameters),
    )


def of_operation(
    session: Session,
    operation: Operation,
    outcome: str,
    error_type: str | None = None,
    remark: str | None = None,
) -> None:
    """Add the event of an operation that has ended or is overdue.

    Args:
        remark: what there is to say of one that did not fail.
    """
    session.add(
        Event(
            action=operation.kind,
            outcome=outcome,
            subject_type=operation.subject_type,
            subject_id=str(operation.subject_id),
            instance_id=_instance_of(session, operation.subject_type, str(operation.subject_id)),
            operation_id=operation.id,
            error_type=error_type,
            reason=operation.error or remark,
            duration=(now() - operation.created_at).total_seconds(),
        )
    )


_TABLES: Mapping[str, Any] = {
    "vpc": Vpc,
    "private_network": PrivateNetwork,
    "ip": Ip,
    "project": Project,
    **{name: subject.model for name, subject in SUBJECTS.items()},
}
"""Where a subject is as long as it exists."""


def prune(session: Session) -> None:
    """Forget the events of subjects that have been gone for long, and old ones without a subject.

    A subject's last event tells when it went.
    """
    before = now() - KEPT
    last = (
        select(Event.subject_type, Event.subject_id)
        .where(Event.subject_id.is_not(None))
        .group_by(Event.subject_type, Event.subject_id)
        .having(func.max(Event.at) < before)
    )
    for subject_type, subject_id in session.execute(last).all():
        if not _exists(session, subject_type, subject_id):
            of_subject = (Event.subject_type == subject_type, Event.subject_id == subject_id)
            session.execute(delete(Event).where(*of_subject))
    session.execute(delete(Event).where(Event.subject_id.is_(None), Event.at < before))


def _exists(session: Session, subject_type: str | None, subject_id: str | None) -> bool:
    table, known = _TABLES.get(subject_type or ""), _uuid(subject_id)
    if table is None or known is None:
        return False
    return session.scalar(select(table.id).where(table.id == known)) is not None


def first_user(session: Session, instance_id: UUID) -> str | None:
    """Return the name of the user that an instance was created with; None: it is not known."""
    query = select(Event.parameters).where(
        Event.subject_id == str(instance_id),
        Event.action == "create_instance",
        Event.outcome == "accepted",
    )
    asked = session.scalars(query.limit(1)).first() or {}
    return str(asked.get("user_name") or "") or None


def _instance_of(session: Session, subject_type: str | None, subject_id: str | None) -> UUID | None:
    """Return the instance that a subject is, or is or was of; None: of none, or nothing is known."""
    subject = SUBJECTS.get(subject_type or "")
    known = _uuid(subject_id)
    if subject is None or known is None:
        return None
    if subject_type == "instance":
        return known
    row = subject.find(session, known)
    if row is not None and row.instance_id is not None:
        return UUID(str(row.instance_id))
    before = select(Event.instance_id).where(
        Event.subject_id == str(known), Event.instance_id.is_not(None)
    )
    return session.scalars(before.limit(1)).first()


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def about(session: Session, instance_id: UUID) -> ColumnElement[bool]:
    """Return which events are about an instance, or what is or was of it: a replica, a backup, a
    snapshot or a copy of its logs."""
    own: tuple[Any, ...] = (ReadReplica, DatabaseBackup, Snapshot, InstanceLog)
    queries = (select(model.id).where(model.instance_id == instance_id) for model in own)
    found = [instance_id, *(one for query in queries for one in session.scalars(query))]
    # Those of earlier versions know their subject only.
    return or_(Event.instance_id == instance_id, Event.subject_id.in_(map(str, found)))


def newest(session: Session, count: int, subject_id: UUID | None = None) -> list[Event]:
    """Return the newest events, of an instance with all that is of it, of anything else alone, or of
    all; the oldest of them first."""
    query = select(Event).order_by(Event.at.desc(), Event.id).limit(count)
    if subject_id is not None:
        query = query.where(about(session, subject_id))
    return list(session.scalars(query))[::-1]


def unless_refused_to_others(keys: Select[str]) -> ColumnElement[bool]:
    """Return which events are none of what was refused to other keys than some."""
    return or_(
        Event.outcome.not_in(("refused", "failed")),
        Event.access_key.is_(None),
        Event.access_key.in_(keys),
    )


def newest_of(session: Session, count: int, instance_id: UUID, project_id: UUID) -> list[Event]:
    """Return the newest events of an instance and of what is of it, the newest first.

    What was refused to keys of other projects is not its project's: it may have been asked for with
    any text, by whoever knows an id.
    """
    own = select(ApiKey.access_key).where(
        or_(ApiKey.project_id.is_(None), ApiKey.project_id == project_id)
    )
    query = select(Event).where(
        about(session, instance_id),
        unless_refused_to_others(own),
    )
    return list(session.scalars(query.order_by(Event.at.desc(), Event.id).limit(count)))


def of_subject(session: Session, subject_id: UUID) -> Sequence[Event]:
    """Return a subject's events, the oldest first."""
    query = select(Event).where(Event.subject_id == str(subject_id)).order_by(Event.at)
    return session.scalars(query).all()
