"""Projects: the state behind `account/v3`."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from sqlalchemy import delete as delete_from
from sqlalchemy import select, true, update
from sqlalchemy.orm import Session

from openrdb.errors import NotFound, PreconditionFailed
from openrdb.state.access import find_project
from openrdb.state.models import (
    ApiKey,
    DatabaseBackup,
    Instance,
    PrivateNetwork,
    Project,
    Snapshot,
    Vpc,
    now,
)
from openrdb.state.scope import Owner, Page, Principal, ids_of_page, in_order, owned


@dataclass(frozen=True)
class Filters:
    """What a list is narrowed by; `name` is a part of theirs."""

    organization_id: UUID | None = None
    name: str | None = None
    ids: Collection[UUID] = field(default_factory=list)


def get(session: Session, project_id: UUID, principal: Principal) -> Project:
    """Return one project.

    Raises:
        NotFound: there is none, or the key is not for it; of `project_id`, as recorded.
    """
    project = find_project(session, principal, project_id)
    if project is None:
        raise NotFound("project_id", str(project_id))
    return project


def create(session: Session, organization_id: UUID, name: str | None, description: str) -> Project:
    moment = now()
    project = Project(
        id=uuid4(),
        organization_id=organization_id,
        name=name or f"project-{secrets.token_hex(4)}",
        description=description,
        created_at=moment,
        updated_at=moment,
    )
    session.add(project)
    session.flush()
    return project


def page(
    session: Session,
    principal: Principal,
    filters: Filters,
    order_by: str,
    page: Page,
) -> tuple[list[Project], int]:
    """Return a page of the projects that the key may see, and the count of all that match."""
    columns = {"organization_id": Project.organization_id, "project_id": Project.id}
    conditions = owned(columns, principal, Owner(filters.organization_id))
    if filters.name:
        conditions.append(Project.name.icontains(filters.name, autoescape=True))
    if filters.ids:
        conditions.append(Project.id.in_(filters.ids))
    name, _, direction = order_by.rpartition("_")
    first = Project.created_at if name == "created_at" else Project.name
    order = [(column, direction == "desc") for column in (first, Project.id)]
    ids, total = ids_of_page(session, select(Project.id).where(*conditions), order, page)
    found = session.scalars(select(Project).where(Project.id.in_(ids))).all()
    return in_order(found, ids), total


def delete(session: Session, project: Project) -> None:
    """Forget a project with its keys and its default VPCs, which nobody made.

    Raises:
        PreconditionFailed: it is the organization's default one, or not empty.
    """
    if project.id == project.organization_id:
        help_message = "the default project cannot be deleted"
        raise PreconditionFailed("resource_not_usable", help_message)
    for what, model, condition in (
        ("instances", Instance, true()),
        ("backups", DatabaseBackup, true()),
        ("snapshots", Snapshot, true()),
        ("private networks", PrivateNetwork, true()),
        ("VPCs", Vpc, Vpc.is_default.is_(False)),
    ):
        inside = select(model.id).where(model.project_id == project.id, condition)
        if session.scalars(inside.limit(1)).first() is not None:
            help_message = f"the project has {what}; delete them first"
            raise PreconditionFailed("resource_still_in_use", help_message)
    session.execute(delete_from(Vpc).where(Vpc.project_id == project.id))
    session.execute(delete_from(ApiKey).where(ApiKey.project_id == project.id))
    # A key of the whole organization goes on with the organization's own default.
    moved = update(ApiKey).where(ApiKey.default_project_id == project.id)
    session.execute(moved.values(default_project_id=project.organization_id))
    session.delete(project)
