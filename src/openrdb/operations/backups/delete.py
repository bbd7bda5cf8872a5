"""DELETE /backups/{id}: deleting → gone, with its objects."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.operations import rows
from openrdb.operations.backups.transfer import BackupOperation, find, store_of
from openrdb.operations.registry import register
from openrdb.operations.run import Run
from openrdb.state import backups
from openrdb.state.models import Instance
from openrdb.state.statuses.backup import BackupRequest, BackupStatus


@register
@dataclass(frozen=True)
class DeleteBackup(BackupOperation):
    kind = "delete_backup"
    request = BackupRequest.DELETE
    meanwhile = BackupStatus.DELETING
    deadline = 300.0

    def sequence(self, run: Run) -> None:
        run.step(end_job, run, self.subject_id)
        run.step(remove_objects, run, self.subject_id)
        run.complete(rows.forget)


def end_job(run: Run, backup_id: UUID) -> None:
    """End the job that was to make a backup, where its operation failed before its end was known."""
    backup = find(run, backup_id)
    with run.database.read() as session:
        instance = session.get(Instance, backup.instance_id)
    if instance is not None and not instance.is_unmade:
        host = run.host_of(instance.primary)
        host.stop_job(backup_id)
        host.forget_job(backup_id)


def remove_objects(run: Run, backup_id: UUID) -> None:
    """Remove a backup's objects from their store."""
    backup = find(run, backup_id)
    store = store_of(run, backup)
    for key in (backup.key, backups.sidecar(backup)):
        store.delete(key)
