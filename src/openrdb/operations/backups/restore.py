"""POST /backups/{id}/restore: restoring → ready; the instance of destination is `backuping`."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.errors import BackupFailed
from openrdb.operations.backups.transfer import (
    DAMAGED,
    LONGEST,
    BackupOperation,
    concern_of_instance,
    find,
    forget,
    object_of,
    release,
    transfer,
)
from openrdb.operations.registry import Concern, OnFailure, register
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.spec import RestoreSpec, TransferState
from openrdb.state import known
from openrdb.state.models import DatabaseBackup, now
from openrdb.state.statuses import backup as statuses
from openrdb.state.statuses.backup import BackupRequest, BackupStatus
from openrdb.state.statuses.instance import InstanceRequest


@register
@dataclass(frozen=True)
class RestoreBackup(BackupOperation):
    """All or nothing: a failure leaves both as they were, but for a backup that is no good."""

    kind = "restore_backup"
    request = BackupRequest.RESTORE
    meanwhile = BackupStatus.RESTORING
    deadline = LONGEST
    on_failure = OnFailure.BACK

    instance_id: UUID
    """Of destination."""
    database_name: str
    """Of destination; made if it is not there."""

    def concerns(self) -> list[Concern]:
        instance = concern_of_instance(self.instance_id, InstanceRequest.RESTORE_BACKUP)
        return [*super().concerns(), instance]

    def sequence(self, run: Run) -> None:
        with run.services.content_locks.hold(self.instance_id):  # what is under way ends before
            restored = run.step(restore, run, self)
        if restored.status != "done" and restored.kind not in DAMAGED:
            raise BackupFailed(restored.reason)

        def change(backup: DatabaseBackup) -> None:
            session = session_of(backup)
            release(session, self.instance_id)
            if restored.status == "done":
                backup.updated_at = now()
                statuses.move(backup, BackupStatus.READY)
                known.note(
                    session, self.instance_id, lambda it: it.add_database(self.database_name)
                )
            else:
                statuses.move(backup, BackupStatus.ERROR)

        # Until this is committed the job is known: nothing is restored twice.
        run.complete(change, None if restored.status == "done" else restored.reason)
        forget(run, self.instance_id, run.operation_id)


def restore(run: Run, operation: RestoreBackup) -> TransferState:
    """Load a backup into its destination, and return how that ended."""
    backup = find(run, operation.subject_id)
    assert backup.size is not None  # noqa: S101
    assert backup.checksum is not None  # noqa: S101
    spec = RestoreSpec(
        job_id=run.operation_id,
        database=operation.database_name,
        source=object_of(run, backup),
        size=backup.size,
        checksum=backup.checksum,
        engine=backup.engine,
        deadline=LONGEST,
    )
    return transfer(
        run,
        operation.instance_id,
        run.operation_id,
        lambda host, node: host.start_restore(node, spec),
    )
