"""The schedule of backups: what is due is begun, and what has expired removed, snapshots and copies of
logs as well.

It looks when the next thing is due and at least once a minute: so a schedule that has just been
changed, and a clock that is put forward, are noticed then. What was missed, as while the service was
down, is made up for once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from openrdb.operations.backups.delete import DeleteBackup
from openrdb.operations.backups.scheduled import RunBackupSchedule
from openrdb.operations.logs.delete import DeleteLog
from openrdb.operations.registry import Operation
from openrdb.operations.run import Services
from openrdb.operations.snapshots.delete import DeleteSnapshot
from openrdb.schedules.base import Schedule
from openrdb.state import backup_schedule, copies, instance_logs
from openrdb.state.models import DatabaseBackup, Instance, Snapshot, now
from openrdb.state.statuses import snapshot as snapshot_statuses
from openrdb.state.statuses.backup import ALLOWED, BackupRequest
from openrdb.state.statuses.snapshot import SnapshotRequest

_AGAIN = timedelta(hours=1)
"""When the removal of what has expired is tried again."""


class BackupSchedule(Schedule):
    """Begins backups that are due, and removes those that have expired."""

    name = "backups"

    def __init__(
        self,
        services: Services,
        start: Callable[[UUID], None],
        clock: Callable[[], datetime] = now,
    ) -> None:
        super().__init__(services, start, clock, services.schedules)
        self._last: datetime | None = None
        """The moment of the last round."""
        self._tried: dict[UUID, datetime] = {}
        """What had expired and whose removal was begun."""

    def round(self) -> float:
        moment = self._clock()
        if self._last is None or moment < self._last:
            self._put_in_place(moment)
        self._last = moment
        self._remove_expired(moment)
        self._begin_due(moment)
        with self._services.database.read() as session:
            following = backup_schedule.next_moment(session, moment)
        return self._seconds_to(following)

    def _put_in_place(self, moment: datetime) -> None:
        """Bring forward the runs that are too far away, as they are after the clock was put back."""
        with self._services.database.read() as session:
            found = backup_schedule.misplaced(session, moment)
        if not found:
            return
        with self._services.database.write() as session:
            for instance_id in backup_schedule.misplaced(session, moment):
                backup_schedule.schedule(session.get_one(Instance, instance_id), moment)

    def _begin_due(self, moment: datetime) -> None:
        """Begin the runs that are due, on each host as many as it makes at once."""
        most = self._services.settings.backups_at_once
        with self._services.database.read() as session:
            due = backup_schedule.due(session, moment)
            busy = backup_schedule.under_way(session) if due else {}
        for instance_id, host_id in due:
            if busy.get(host_id, 0) < most and self._begin_run(instance_id, moment):
                busy[host_id] = busy.get(host_id, 0) + 1

    def _begin_run(self, instance_id: UUID, moment: datetime) -> bool:
        def prepare_next(instance: Instance) -> None:
            backup_schedule.schedule(instance, moment)

        return self._record(RunBackupSchedule(instance_id), prepare_next)

    def _remove_expired(self, moment: datetime) -> None:
        with self._services.database.read() as session:
            found: dict[UUID, Operation] = {
                one: DeleteBackup(one)
                for one in copies.expired(
                    session, DatabaseBackup, moment, ALLOWED[BackupRequest.DELETE]
                )
            }
            deletable = snapshot_statuses.ALLOWED[SnapshotRequest.DELETE]
            found |= {
                one: DeleteSnapshot(one)
                for one in copies.expired(session, Snapshot, moment, deletable)
            }
            found |= {one: DeleteLog(one) for one in instance_logs.expired(session, moment)}
        self._tried = {one: at for one, at in self._tried.items() if one in found}
        for subject_id, removal in found.items():
            tried = self._tried.get(subject_id)
            if tried is None or abs(moment - tried) > _AGAIN:
                self._tried[subject_id] = moment
                self._record(removal)
