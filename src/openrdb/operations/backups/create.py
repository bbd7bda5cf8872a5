"""POST /backups: creating → ready; the instance is `backuping` meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.errors import BackupFailed
from openrdb.operations.backups.transfer import (
    LONGEST,
    BackupOperation,
    check_there,
    concern_of_instance,
    dump,
    forget,
    release,
    remark_on_place,
)
from openrdb.operations.registry import Concern, register
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.spec import TransferState
from openrdb.state.models import DatabaseBackup, now
from openrdb.state.statuses import backup as statuses
from openrdb.state.statuses.backup import BackupStatus
from openrdb.state.statuses.instance import InstanceRequest


@register
@dataclass(frozen=True)
class CreateBackup(BackupOperation):
    """A failure leaves the backup in `error`, and the instance as it was."""

    kind = "create_backup"
    request = None
    meanwhile = BackupStatus.CREATING
    deadline = LONGEST

    instance_id: UUID

    def concerns(self) -> list[Concern]:
        instance = concern_of_instance(self.instance_id, InstanceRequest.CREATE_BACKUP)
        return [*super().concerns(), instance]

    def sequence(self, run: Run) -> None:
        stored = run.step(dump, run, self.instance_id, self.subject_id)
        if stored.status != "done":
            raise BackupFailed(stored.reason)
        run.step(check_there, run, self.subject_id, stored.size)

        def change(backup: DatabaseBackup) -> None:
            note_stored(backup, stored)
            release(session_of(backup), self.instance_id)

        run.complete(change, remark=remark_on_place(run))
        forget(run, self.instance_id, self.subject_id)


def note_stored(backup: DatabaseBackup, stored: TransferState) -> None:
    """Make a backup `ready`, now that its object is there."""
    backup.size, backup.checksum, backup.updated_at = stored.size, stored.checksum, now()
    statuses.move(backup, BackupStatus.READY)
