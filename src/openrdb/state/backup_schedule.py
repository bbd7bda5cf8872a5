"""When an instance's backups are made by its schedule, and which are due."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from openrdb.state.models import DatabaseBackup, Instance, Node, Snapshot
from openrdb.state.statuses.instance import WORKING, InstanceStatus

_HOURS = 24
_DIVISORS: Final = [hours for hours in range(1, _HOURS + 1) if _HOURS % hours == 0]
_TOLERANCE = timedelta(minutes=1)
_ENABLED: Final = (Instance.backup_disabled.is_(False), Instance.first_ready_at.is_not(None))


def next_run(moment: datetime, frequency: int, start_hour: int | None) -> datetime:
    """Return when the run after `moment` is due; never more than `frequency` hours later.

    With a start hour (UTC) runs are at that hour of the day, and at others so many hours before and
    after it as divide the day: every 6 hours from 3 o'clock is 3, 9, 15 and 21 o'clock.
    """
    due = moment + timedelta(hours=frequency)
    if start_hour is None:
        return due
    step = timedelta(hours=max(one for one in _DIVISORS if one <= frequency))
    midnight = due.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight + timedelta(hours=start_hour) - timedelta(days=1)
    return first + (due - first) // step * step


def schedule(instance: Instance, moment: datetime) -> None:
    """Set when the run after `moment` is due."""
    instance.backup_next_run_at = next_run(
        moment, instance.backup_frequency, instance.backup_start_hour
    )


def due(session: Session, moment: datetime) -> list[tuple[UUID, UUID]]:
    """Return the instances whose backups are due and can be made, with their primaries' hosts; those
    that have waited longest first."""
    query = select(Instance.id, Node.host_id).join(Node, Node.instance_id == Instance.id)
    is_due = (*_ENABLED, Instance.backup_next_run_at <= moment)
    able = (Instance.status.in_([one.value for one in WORKING]), Node.role == "primary")
    rows = session.execute(query.where(*is_due, *able).order_by(Instance.backup_next_run_at))
    return [(instance_id, host_id) for instance_id, host_id in rows]


def under_way(session: Session) -> Counter[UUID]:
    """Return on how many instances of each host backups are being made or restored."""
    query = select(Node.host_id, func.count()).join(Instance, Instance.id == Node.instance_id)
    now_made = (Instance.status == InstanceStatus.BACKUPING.value, Node.role == "primary")
    counted = session.execute(query.where(*now_made).group_by(Node.host_id))
    return Counter({row[0]: row[1] for row in counted})


def misplaced(session: Session, moment: datetime) -> list[UUID]:
    """Return the instances whose next run is later than their frequency allows, as when the clock
    was put back; none of them would have backups for as long as it was wrong."""
    columns = (Instance.id, Instance.backup_frequency, Instance.backup_next_run_at)
    return [
        instance_id
        for instance_id, frequency, next_run_at in session.execute(
            select(*columns).where(*_ENABLED)
        )
        if next_run_at is None or next_run_at > moment + timedelta(hours=frequency) + _TOLERANCE
    ]


def next_moment(session: Session, moment: datetime) -> datetime | None:
    """Return when something is due next after `moment`: a run, or the end of the time of a backup or
    snapshot."""
    run_at = Instance.backup_next_run_at
    found = [session.scalar(select(func.min(run_at)).where(*_ENABLED, run_at > moment))]
    for ends_at in (DatabaseBackup.expires_at, Snapshot.expires_at):
        found.append(session.scalar(select(func.min(ends_at)).where(ends_at > moment)))
    return min((one for one in found if one is not None), default=None)
