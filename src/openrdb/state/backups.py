"""Queries on backups: what a key's holder may see, page by page, and what is due."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from openrdb.state.models import DatabaseBackup, Instance, now
from openrdb.state.scope import (
    Columns,
    Owner,
    Page,
    Principal,
    ids_of_page,
    in_order,
    owned,
    visible,
)
from openrdb.state.statuses.backup import BackupStatus

_OWNERS: Columns = {
    "organization_id": DatabaseBackup.organization_id,
    "project_id": DatabaseBackup.project_id,
}
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_FILE_NAME = 100


@dataclass(frozen=True)
class Filters:
    """What `GET /backups` narrows its list by; `name` is a part of theirs."""

    organization_id: UUID | None = None
    project_id: UUID | None = None
    instance_id: UUID | None = None
    name: str | None = None


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


def page(
    session: Session,
    region: str,
    principal: Principal,
    filters: Filters,
    order_by: str,
    page: Page,
) -> tuple[list[DatabaseBackup], int]:
    """Return a page of backups, and the count of all that match.

    Args:
        order_by: a column and a direction: `created_at_asc`; ties by creation.
    """
    asked = Owner(filters.organization_id, filters.project_id)
    conditions = [DatabaseBackup.region == region, *owned(_OWNERS, principal, asked)]
    if filters.instance_id is not None:
        conditions.append(DatabaseBackup.instance_id == filters.instance_id)
    if filters.name:
        conditions.append(DatabaseBackup.name.icontains(filters.name, autoescape=True))
    first, _, direction = order_by.rpartition("_")
    columns = dict.fromkeys((first, "created_at", "id"))
    order = [(getattr(DatabaseBackup, column), direction == "desc") for column in columns]
    matching = select(DatabaseBackup.id).where(*conditions)
    ids, total = ids_of_page(session, matching, order, page)
    found = session.scalars(select(DatabaseBackup).where(DatabaseBackup.id.in_(ids))).all()
    return in_order(found, ids), total


def rename_instance(session: Session, instance_id: UUID, name: str) -> None:
    """Let an instance's backups say its new name."""
    of_it = DatabaseBackup.instance_id == instance_id
    session.execute(update(DatabaseBackup).where(of_it).values(instance_name=name))


def expired(session: Session, moment: datetime, statuses: Collection[str]) -> list[UUID]:
    """Return the backups in one of these statuses whose time is over, the oldest end first."""
    over = (DatabaseBackup.expires_at <= moment, DatabaseBackup.status.in_(statuses))
    query = select(DatabaseBackup.id).where(*over).order_by(DatabaseBackup.expires_at)
    return list(session.scalars(query))
