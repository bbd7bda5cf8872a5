"""A run of an instance's backup schedule: one backup a managed database, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid5

from openrdb.config import Region, backup_region
from openrdb.engines import rules_of
from openrdb.errors import OpenRDBError, QuotasExceeded
from openrdb.operations.backups.create import note_stored
from openrdb.operations.backups.transfer import (
    LONGEST,
    check_there,
    concern_of_instance,
    dump,
    forget,
    remark_on_place,
)
from openrdb.operations.content import administration
from openrdb.operations.registry import Concern, InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.spec import TransferState
from openrdb.state import backups, quotas
from openrdb.state.models import DatabaseBackup, Instance, now
from openrdb.state.statuses import backup as backup_statuses
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.backup import BackupStatus
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class RunBackupSchedule(InstanceOperation):
    """A database whose backup fails keeps none of the others from theirs."""

    kind = "run_backup_schedule"
    request = InstanceRequest.CREATE_BACKUP
    meanwhile = InstanceStatus.BACKUPING
    deadline = LONGEST

    def concerns(self) -> list[Concern]:
        return [concern_of_instance(self.subject_id, InstanceRequest.CREATE_BACKUP)]

    def sequence(self, run: Run) -> None:
        failures: list[str] = []
        made: list[UUID] = []
        for name in run.step(managed_databases, run):
            refusal = run.step(add_backup, run, name)
            if refusal is not None:
                failures.append(refusal)
                continue
            backup_id = id_of(run.operation_id, name)
            made.append(backup_id)
            stored = run.step(dump, run, self.subject_id, backup_id)
            reason = run.step(end_backup, run, backup_id, stored)
            if reason is not None:
                failures.append(f"the database {name}: {reason}")
        run.complete(
            lambda instance: statuses.move(instance, InstanceStatus.READY),
            "; ".join(failures) or None,
            remark=remark_on_place(run),
        )
        for backup_id in made:
            forget(run, self.subject_id, backup_id)


def id_of(operation_id: UUID, database: str) -> UUID:
    """Return the id of a run's backup of a database: the same however often the run begins again."""
    return uuid5(operation_id, database)


def managed_databases(run: Run) -> list[str]:
    """Return the names of the databases that a run makes backups of."""
    content = administration(run.services.hosts, run.instance(), run.secrets)
    return [one.name for one in content.databases(sizes=False) if one.managed]


def add_backup(run: Run, database: str) -> str | None:
    """Add the row of a database's backup; return why there cannot be one, None if there is."""
    backup_id = id_of(run.operation_id, database)
    with run.database.write() as session:
        instance = session.get_one(Instance, run.operation.subject_id)
        if session.get(DatabaseBackup, backup_id) is not None:
            return None
        limit = run.settings.quotas_of(instance.project_id).backups
        try:
            quotas.require_backup(session, instance.project_id, limit)
        except QuotasExceeded as refusal:
            return f"the database {database}: the project may have {refusal.quota} backups"
        session.add(
            backups.new(
                instance,
                database,
                backup_id=backup_id,
                name=f"auto-{database}-{now():%Y%m%d-%H%M}",
                expires_at=now() + timedelta(days=instance.backup_retention),
                store_region=backup_region(
                    cast(Region, instance.region), same=instance.backup_same_region
                ),
                suffix=rules_of(instance.engine).dump_suffix,
            )
        )
    return None


def end_backup(run: Run, backup_id: UUID, stored: TransferState) -> str | None:
    """Make a backup `ready`, or `error`; return why that."""
    reason = None if stored.status == "done" else stored.reason
    if reason is None:
        try:
            check_there(run, backup_id, stored.size)
        except OpenRDBError as error:
            reason = str(error)
    with run.database.write() as session:
        backup = session.get_one(DatabaseBackup, backup_id)
        if backup.status == BackupStatus.CREATING:  # else the step is done again
            if reason is None:
                note_stored(backup, stored)
            else:
                backup_statuses.move(backup, BackupStatus.ERROR)
    run.services.changes.announce(backup_id)
    return reason
