"""Maintenances of instances: which one is open, which are due, and how they are closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from openrdb.errors import PreconditionFailed
from openrdb.state import events
from openrdb.state.models import Instance, Maintenance, Node, now
from openrdb.state.statuses.instance import InstanceStatus
from openrdb.state.statuses.maintenance import OPEN, MaintenanceStatus

ACTION: Final = "maintenance"
"""Of the events that tell what was planned, moved and given up."""
_NONE: Final = ("maintenance", "the instance has no pending maintenance")
_READY: Final = (InstanceStatus.READY.value, InstanceStatus.DISK_FULL.value)
"""Where one is begun without being asked for: not while a pair could not be switched over."""


def instances_with_open() -> Select[UUID]:
    """Return what selects the ids of the instances that have a scheduled maintenance."""
    return select(Maintenance.instance_id).where(Maintenance.status.in_(OPEN))


def open_of(instance: Instance) -> Maintenance | None:
    """Return the maintenance that is pending or under way."""
    return next((one for one in instance.maintenances if one.status in OPEN), None)


def is_applicable(maintenance: Maintenance, moment: datetime) -> bool:
    """Return whether users can apply it at a moment."""
    is_pending = maintenance.status == MaintenanceStatus.PENDING
    return is_pending and maintenance.starts_at <= moment <= maintenance.stops_at


def to_apply(instance: Instance, moment: datetime) -> Maintenance:
    """Return the maintenance that a request asks for: the pending one, or the last if that is done.

    Raises:
        PreconditionFailed: there is neither, or it cannot be applied at this moment.
    """
    pending = open_of(instance)
    if pending is None:
        last = instance.maintenances[-1] if instance.maintenances else None
        if last is not None and last.status == MaintenanceStatus.DONE:
            return last
        raise PreconditionFailed(*_NONE)
    if not is_applicable(pending, moment):
        window = f"{pending.starts_at.isoformat()} and {pending.stops_at.isoformat()}"
        raise PreconditionFailed("maintenance", f"it can be applied between {window}")
    return pending


def begin(instance: Instance) -> None:
    """Note that an instance's pending maintenance is under way from now on.

    Raises:
        PreconditionFailed: it has none any more.
    """
    if (pending := open_of(instance)) is None:
        raise PreconditionFailed(*_NONE)
    pending.status = MaintenanceStatus.ONGOING.value


def close(
    maintenance: Maintenance, status: MaintenanceStatus, *, refusal: str | None = None
) -> None:
    """End a maintenance.

    Args:
        refusal: why the engine did not start with the binaries.
    """
    maintenance.status, maintenance.refusal = status.value, refusal
    maintenance.closed_at = now()


def close_done(instance: Instance) -> None:
    """Note that an instance runs the newest binaries; a no-op where no maintenance is open."""
    if (found := open_of(instance)) is not None:
        close(found, MaintenanceStatus.DONE)


def due(session: Session, moment: datetime) -> list[tuple[UUID, UUID]]:
    """Return the instances whose maintenance is to be applied now, with their primaries' hosts; those
    that have waited longest first."""
    query = (
        select(Maintenance.instance_id, Node.host_id)
        .join(Node, Node.instance_id == Maintenance.instance_id)
        .join(Instance, Instance.id == Maintenance.instance_id)
        .where(
            Maintenance.status == MaintenanceStatus.PENDING.value,
            Maintenance.forced_at <= moment,
            Maintenance.stops_at > moment,
            Instance.status.in_(_READY),
            Node.role == "primary",
        )
    )
    rows = session.execute(query.order_by(Maintenance.forced_at, Maintenance.id))
    return [(instance_id, host_id) for instance_id, host_id in rows]


def under_way(session: Session) -> Counter[UUID]:
    """Return how many are being applied on each host."""
    query = (
        select(Node.host_id, func.count())
        .join(Maintenance, Node.instance_id == Maintenance.instance_id)
        .where(Maintenance.status == MaintenanceStatus.ONGOING.value, Node.role == "primary")
    )
    return Counter({row[0]: row[1] for row in session.execute(query.group_by(Node.host_id))})


def next_forced(session: Session, moment: datetime) -> datetime | None:
    """Return when the next pending one is to be applied after a moment."""
    is_pending = Maintenance.status == MaintenanceStatus.PENDING.value
    forced_at = Maintenance.forced_at
    return session.scalar(select(func.min(forced_at)).where(is_pending, forced_at > moment))


def listed(session: Session, statuses: Iterable[str]) -> list[tuple[Maintenance, Instance]]:
    """Return the maintenances in some statuses with their instances, the next to be forced first."""
    query = (
        select(Maintenance, Instance)
        .join(Instance, Instance.id == Maintenance.instance_id)
        .where(Maintenance.status.in_(statuses))
    )
    rows = session.execute(query.order_by(Maintenance.forced_at, Maintenance.id)).unique()
    return [(maintenance, instance) for maintenance, instance in rows]


def tell(session: Session, maintenance: Maintenance, outcome: str, reason: str) -> None:
    """Add an event about a maintenance that no operation tells of."""
    events.observed(session, maintenance.instance_id, ACTION, outcome, reason)
