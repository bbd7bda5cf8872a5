"""POST /backups/{id}/export: exporting → ready, with a URL that anybody can download from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from openrdb.operations.backups.transfer import BackupOperation, check_whole, find, store_of
from openrdb.operations.registry import OnFailure, register
from openrdb.operations.run import Run
from openrdb.state import backups
from openrdb.state.models import DatabaseBackup, now
from openrdb.state.statuses import backup as statuses
from openrdb.state.statuses.backup import BackupRequest, BackupStatus

URL_LIFE = timedelta(hours=24)


@register
@dataclass(frozen=True)
class ExportBackup(BackupOperation):
    """What is exported has been read as a whole before: nobody downloads a damaged backup."""

    kind = "export_backup"
    request = BackupRequest.EXPORT
    meanwhile = BackupStatus.EXPORTING
    deadline = 3600.0
    on_failure = OnFailure.BACK

    def sequence(self, run: Run) -> None:
        damage = run.step(check_whole, run, self.subject_id)
        if damage is not None:
            run.complete(lambda backup: statuses.move(backup, BackupStatus.ERROR), damage)
            return
        url, end = run.step(sign, run, self.subject_id)

        def change(backup: DatabaseBackup) -> None:
            backup.download_url, backup.download_url_expires_at = url, end
            statuses.move(backup, BackupStatus.READY)

        run.complete(change)


def sign(run: Run, backup_id: UUID) -> tuple[str, datetime]:
    """Return a URL of a backup's object, and when it ends."""
    backup = find(run, backup_id)
    end = now() + URL_LIFE
    seconds = int(URL_LIFE.total_seconds())
    name = backups.file_name(backup)
    return store_of(run, backup).sign(backup.key, seconds, name), end
