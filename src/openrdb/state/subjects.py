"""What operations work on: each type of subject with its table and its status machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from openrdb.state.models import DatabaseBackup, Instance, InstanceLog, ReadReplica, Snapshot
from openrdb.state.statuses.backup import BACKUP, BackupRequest, BackupStatus
from openrdb.state.statuses.instance import INSTANCE, InstanceRequest, InstanceStatus
from openrdb.state.statuses.instance_log import (
    INSTANCE_LOG,
    InstanceLogRequest,
    InstanceLogStatus,
)
from openrdb.state.statuses.machine import Machine
from openrdb.state.statuses.read_replica import (
    READ_REPLICA,
    ReadReplicaRequest,
    ReadReplicaStatus,
)
from openrdb.state.statuses.snapshot import SNAPSHOT, SnapshotRequest, SnapshotStatus


@dataclass(frozen=True)
class Subject:
    """One type of subject."""

    model: Any
    """Its table; the rows have an `id` and a `status`."""
    machine: Machine[Any, Any]
    failed: StrEnum
    """Its status after a failure that it does not come back from by itself."""
    retry: StrEnum
    """The request that its status must allow for a failed operation to be retried."""

    def find(self, session: Session, subject_id: UUID) -> Any:  # noqa: ANN401
        """Return the row, or None where it has been deleted."""
        return session.get(self.model, subject_id)


SUBJECTS: Final[dict[str, Subject]] = {
    "instance": Subject(
        Instance, INSTANCE, failed=InstanceStatus.ERROR, retry=InstanceRequest.RETRY
    ),
    "database_backup": Subject(
        DatabaseBackup, BACKUP, failed=BackupStatus.ERROR, retry=BackupRequest.RETRY
    ),
    "instance_snapshot": Subject(
        Snapshot, SNAPSHOT, failed=SnapshotStatus.ERROR, retry=SnapshotRequest.RETRY
    ),
    "read_replica": Subject(
        ReadReplica,
        READ_REPLICA,
        failed=ReadReplicaStatus.ERROR,
        retry=ReadReplicaRequest.RETRY,
    ),
    "instance_log": Subject(
        InstanceLog,
        INSTANCE_LOG,
        failed=InstanceLogStatus.ERROR,
        retry=InstanceLogRequest.RETRY,
    ),
}
"""By the type's name, as operations' rows have it."""


def subject_of(row: object) -> Subject:
    """Return the type of a row."""
    return next(subject for subject in SUBJECTS.values() if isinstance(row, subject.model))
