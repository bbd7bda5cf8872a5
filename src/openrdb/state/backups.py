"""Queries on backups: what a key's holder may see, page by page, and what is due."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from openrdb.state.models import DatabaseBackup, Instance, now
from openrdb.state.scope import Principal, visible
from openrdb.state.statuses.backup import BackupStatus

_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_FILE_NAME = 100


def new(
    instance: Instance,
    database: str,
    *,
    store_region: str,
    suffix: str,
    name: str | None = None,
    expires_at: datetime | None = None,
    backup_id: UUID | None = None,
) -> DatabaseBackup:
    """Return the row of a backup that is about to be made.

    Args:
        suffix: what the engine's dumps end in: `.custom`.
    """
    identifier = backup_id or uuid4()
    return DatabaseBackup(
        id=identifier,
        region=instance.region,
        organization_id=instance.organization_id,
        project_id=instance.project_id,
        instance_id=instance.id,
        instance_name=instance.name,
        engine=instance.engine,
        database_name=database,
        name=name or f"bkp-{secrets.token_hex(4)}",
        status=BackupStatus.CREATING.value,
        same_region=instance.backup_same_region,
        store_region=store_region,
        key=f"backups/{instance.id}/{identifier}{suffix}",
        expires_at=expires_at,
        created_at=now(),
    )


def sidecar(backup: DatabaseBackup) -> str:
    """Return the key of what a restore needs in addition to the dump."""
    return f"{backup.key}.json"


def file_name(backup: DatabaseBackup) -> str:
    """Return the name under which a backup is downloaded."""
    name = _NOT_IN_FILE_NAMES.sub("_", backup.name)[:_LONGEST_FILE_NAME].lstrip(".")
    suffix = backup.key.rpartition("/")[2].removeprefix(str(backup.id))
    return f"{name or backup.id}{suffix}"


def get(session: Session, region: str, backup_id: UUID, principal: Principal) -> DatabaseBackup:
    """Return one backup.

    Raises:
        NotFound: there is none, or it is another project's.
    """
    row = session.get(DatabaseBackup, backup_id)
    return visible(row, region, principal, "database_backup", backup_id)
