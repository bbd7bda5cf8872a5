"""What backups and snapshots share: copies of instances' data, which have a name and an end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from openrdb.state.models import DatabaseBackup, Snapshot, now
from openrdb.state.scope import (
    Columns,
    Condition,
    Owner,
    Page,
    Principal,
    ids_of_page,
    in_order,
    owned,
)

Copy = TypeVar("Copy", DatabaseBackup, Snapshot)


@dataclass(frozen=True)
class Filters:
    """What lists of copies are narrowed by; `name` is a part of theirs."""

    organization_id: UUID | None = None
    project_id: UUID | None = None
    instance_id: UUID | None = None
    name: str | None = None


def page(
    session: Session,
    model: type[Copy],
    region: str,
    principal: Principal,
    filters: Filters,
    order_by: str,
    page: Page,
) -> tuple[list[Copy], int]:
    """Return a page of copies, and the count of all that match.

    Args:
        order_by: a column and a direction: `created_at_asc`; ties by creation.
    """
    owners: Columns = {
        "organization_id": model.organization_id,
        "project_id": model.project_id,
    }
    asked: Owner = Owner(filters.organization_id, filters.project_id)
    conditions: list[Condition] = owned(owners, principal, asked)
    conditions.append(model.region == region)
    if filters.instance_id is not None:
        conditions.append(model.instance_id == filters.instance_id)
    if filters.name:
        conditions.append(model.name.icontains(filters.name, autoescape=True))
    first, _, direction = order_by.rpartition("_")
    columns = dict.fromkeys((first, "created_at", "id"))
    order = [(getattr(model, column), direction == "desc") for column in columns]
    ids, total = ids_of_page(session, select(model.id).where(*conditions), order, page)
    return in_order(session.scalars(select(model).where(model.id.in_(ids))).all(), ids), total


def rename_instance(session: Session, model: type[Copy], instance_id: UUID, name: str) -> None:
    """Let an instance's copies say its new name."""
    of_it = model.instance_id == instance_id
    session.execute(update(model).where(of_it).values(instance_name=name))


def expired(
    session: Session, model: type[Copy], moment: datetime, statuses: Collection[str]
) -> list[UUID]:
    """Return the copies in one of these statuses whose time is over, the oldest end first."""
    over = (model.expires_at <= moment, model.status.in_(statuses))
    return list(session.scalars(select(model.id).where(*over).order_by(model.expires_at)))


def change(
    copy: DatabaseBackup | Snapshot,
    name: str | None,
    expires_at: datetime | None,
    *,
    expiry_given: bool,
) -> None:
    """Change a copy's name, if there is a new one, and its end, if that is given."""
    if name:
        copy.name = name
    if expiry_given:
        copy.expires_at = expires_at
    if name or expiry_given:
        copy.updated_at = now()
