"""Quotas: how much a project may have, and how much a pool of volumes may promise in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from openrdb.errors import QuotasExceeded
from openrdb.spec import DEFAULT_POOL
from openrdb.state.models import (
    DatabaseBackup,
    Instance,
    InstanceLog,
    Node,
    ReadReplica,
    Snapshot,
    Volume,
)

_READ_REPLICAS: Final = 3
"""As many an instance has at most, as the reference says."""
_LOGS: Final = 50
"""Copies of its logs that an instance has at most: each may be as large as these, and lives a day."""


@dataclass(frozen=True)
class Limits:
    """What a project may have (None: as much as it likes), and the pool that its volumes are from."""

    instances: int | None
    volume_bytes: int | None
    pool_bytes: int
    """What all volumes of the pool may have together; they rarely fill what was asked for."""
    pool: str = DEFAULT_POOL


def require(session: Session, project_id: UUID, limits: Limits, volume_bytes: int) -> None:
    """Raise QuotasExceeded if another instance with such a volume is too much; while writing.

    Instances in any status count, as they have their volumes until they are gone.
    """
    own = Instance.project_id == project_id
    count = select(func.count()).select_from(Instance).where(own)
    _within(session, "instances", limits.instances, count, 1)
    require_bytes(session, project_id, limits, volume_bytes, volume_bytes)


def require_bytes(
    session: Session, project_id: UUID, limits: Limits, added: int, to_pool: int
) -> None:
    """Raise QuotasExceeded if so many more bytes of volumes are too much; while writing.

    Args:
        to_pool: how many the pool gets: more, if they come from another one.
    """
    own = Instance.project_id == project_id
    sizes = select(func.coalesce(func.sum(Volume.size), 0))
    of_project = sizes.join(Node, Node.id == Volume.node_id).join(Instance).where(own)
    _within(session, "volume_bytes", limits.volume_bytes, of_project, added)
    of_pool = sizes.where(Volume.pool == limits.pool)
    _within(session, "volume_bytes", limits.pool_bytes, of_pool, to_pool)


def require_backup(session: Session, project_id: UUID, limit: int | None) -> None:
    """Raise QuotasExceeded if another backup is too much for a project; while writing.

    Backups in any status count, until they are gone.
    """
    own = DatabaseBackup.project_id == project_id
    count = select(func.count()).select_from(DatabaseBackup).where(own)
    _within(session, "database_backups", limit, count, 1)


def require_snapshot(session: Session, project_id: UUID, limit: int | None) -> None:
    """Raise QuotasExceeded if another snapshot is too much for a project; while writing."""
    own = Snapshot.project_id == project_id
    count = select(func.count()).select_from(Snapshot).where(own)
    _within(session, "instance_snapshots", limit, count, 1)


def require_logs(session: Session, instance_id: UUID, added: int) -> None:
    """Raise QuotasExceeded if so many more copies of its logs are too much for an instance; while
    writing."""
    own = InstanceLog.instance_id == instance_id
    count = select(func.count()).select_from(InstanceLog).where(own)
    _within(session, "instance_logs", _LOGS, count, added)


def require_read_replica(session: Session, instance_id: UUID) -> None:
    """Raise QuotasExceeded if another read replica is too much for an instance; while writing."""
    own = ReadReplica.instance_id == instance_id
    count = select(func.count()).select_from(ReadReplica).where(own)
    _within(session, "read_replicas", _READ_REPLICAS, count, 1)


def _within(
    session: Session, resource: str, quota: int | None, used: Select[Any], added: int
) -> None:
    if quota is None:
        return
    current = int(session.scalar(used) or 0)
    if current + added > quota:
        raise QuotasExceeded(resource, quota, current)
