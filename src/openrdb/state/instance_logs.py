"""Queries on copies of logs: what a key's holder may see, and what is over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from openrdb.errors import NotFound
from openrdb.state import operations
from openrdb.state.models import Instance, InstanceLog, Node, now
from openrdb.state.scope import Principal, visible
from openrdb.state.statuses.instance_log import ALLOWED, InstanceLogRequest, InstanceLogStatus

LIFE: Final = timedelta(hours=24)
"""As recorded."""
_NAMES = 10**8


def node_name(node_id: UUID) -> str:
    """Return how users know a node by: eight digits."""
    return f"{node_id.int % _NAMES:08}"


def new(
    instance: Instance, node: Node, first: date | None, last: date | None, moment: datetime
) -> InstanceLog:
    """Return the row of a copy that is about to be made."""
    identifier = uuid4()
    return InstanceLog(
        id=identifier,
        region=instance.region,
        organization_id=instance.organization_id,
        project_id=instance.project_id,
        instance_id=instance.id,
        host_id=node.host_id,
        node_id=node.id,
        node_name=node_name(node.id),
        first_day=first,
        last_day=last,
        status=InstanceLogStatus.CREATING.value,
        key=f"logs/{instance.id}/{identifier}.log",
        created_at=moment,
        expires_at=moment + LIFE,
    )


def file_name(log: InstanceLog) -> str:
    """Return the name under which a copy is downloaded."""
    days = [day.isoformat() for day in (log.first_day, log.last_day) if day is not None]
    return "_".join([log.node_name, *dict.fromkeys(days)]) + ".log"


def get(session: Session, region: str, log_id: UUID, principal: Principal) -> InstanceLog:
    """Return one copy.

    Raises:
        NotFound: there is none, it has expired, or it is another project's.
    """
    found = session.get(InstanceLog, log_id)
    row = visible(found, region, principal, "instance_log", log_id)
    if row.expires_at <= now():
        raise NotFound("instance_log", str(log_id))
    return row


def of_instance(session: Session, instance_id: UUID, *, newest_first: bool) -> list[InstanceLog]:
    """Return an instance's copies that have not expired."""
    query = select(InstanceLog).where(
        InstanceLog.instance_id == instance_id, InstanceLog.expires_at > now()
    )
    order = (InstanceLog.created_at, InstanceLog.node_name, InstanceLog.id)
    ordered = [column.desc() for column in order] if newest_first else order
    return list(session.scalars(query.order_by(*ordered)))


def expired(session: Session, moment: datetime) -> Sequence[UUID]:
    """Return the copies whose time is over, and that nobody is making, or removing already: no status
    says that."""
    deletable = ALLOWED[InstanceLogRequest.DELETE]
    over = (InstanceLog.expires_at <= moment, InstanceLog.status.in_(deletable))
    query = select(InstanceLog.id).where(*over, InstanceLog.id.not_in(operations.at_work()))
    return session.scalars(query).all()


def end(session: Session, instance_id: UUID) -> None:
    """Let an instance's copies expire: it is being removed."""
    of_it = InstanceLog.instance_id == instance_id
    session.execute(update(InstanceLog).where(of_it).values(expires_at=now()))
