"""Events of everything that a key is for, also of what is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import and_, false, func, or_, select
from sqlalchemy.orm import Session

from openrdb.state import events
from openrdb.state.models import (
    ApiKey,
    DatabaseBackup,
    Event,
    Instance,
    InstanceLog,
    Ip,
    PrivateNetwork,
    ReadReplica,
    Snapshot,
    Vpc,
)
from openrdb.state.scope import Condition, Principal

PAGE_SIZE: Final = 50
_OF_PROJECTS: Final = (Instance, DatabaseBackup, Snapshot, InstanceLog, Vpc, PrivateNetwork, Ip)


@dataclass(frozen=True)
class Found:
    """A page of events, the newest first."""

    events: list[Event]
    instances: dict[str, tuple[str, str]]
    """Regions and names of those instances among the subjects that there still are, by their ids."""
    page: int
    last_page: int


def page(session: Session, holder: Principal, number: int, subject: str) -> Found:
    """Return a page of the events that a key's holder may see.

    Args:
        subject: the id of what they are about, which may be gone, or the name of an instance; empty:
            anything.
    """
    conditions = _visible(session, holder)
    if subject:
        conditions.append(_about(session, holder, subject))
    total = session.scalar(select(func.count()).select_from(Event).where(*conditions)) or 0
    query = select(Event).where(*conditions).order_by(Event.at.desc(), Event.id)
    found = list(session.scalars(query.limit(PAGE_SIZE).offset((number - 1) * PAGE_SIZE)))
    known = _instances(session, holder, found)
    return Found(found, known, number, max(1, -(-total // PAGE_SIZE)))


def _visible(session: Session, holder: Principal) -> list[Condition]:
    """Return what narrows events to those that a key is for.

    A project's keys see what they asked for, and what became of what is or was the project's. What
    was refused to another project's keys is none of it: they may have asked with any text.
    """
    if holder.project_id is None:
        return []
    keys = select(ApiKey.access_key)
    own = keys.where(ApiKey.project_id == holder.project_id)
    of_all = keys.where(ApiKey.project_id.is_(None))
    was_own = select(Event.subject_id).where(Event.outcome == "accepted", Event.access_key.in_(own))
    is_known = or_(Event.subject_id.in_(was_own), Event.subject_id.in_(_ids(session, holder)))
    is_done = events.unless_refused_to_others(of_all)
    return [or_(Event.access_key.in_(own), and_(is_known, is_done))]


def _ids(session: Session, holder: Principal) -> list[str]:
    """Return the ids of what a project has now, and its own."""
    queries = [
        *(select(model.id).where(model.project_id == holder.project_id) for model in _OF_PROJECTS),
        select(ReadReplica.id)
        .join(Instance, Instance.id == ReadReplica.instance_id)
        .where(Instance.project_id == holder.project_id),
    ]
    found = [one for query in queries for one in session.scalars(query)]
    return [str(holder.project_id), *map(str, found)]


def _about(session: Session, holder: Principal, text: str) -> Condition:
    try:
        return events.about(session, UUID(text))
    except ValueError:
        named = select(Instance.id).where(Instance.name == text)
    if holder.project_id is not None:
        named = named.where(Instance.project_id == holder.project_id)
    return or_(false(), *(events.about(session, one) for one in session.scalars(named).all()))


def _instances(
    session: Session, holder: Principal, found: list[Event]
) -> dict[str, tuple[str, str]]:
    ids = {
        UUID(one.subject_id) for one in found if one.subject_type == "instance" and one.subject_id
    }
    query = select(Instance.id, Instance.region, Instance.name).where(Instance.id.in_(ids))
    if holder.project_id is not None:  # its keys may have asked for another project's, in vain
        query = query.where(Instance.project_id == holder.project_id)
    return {str(one.id): (one.region, one.name) for one in session.execute(query)}
