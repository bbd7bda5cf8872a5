"""account/v3: projects, which tests of Terraform configurations make for themselves."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import CurrentBackend, CurrentPage, OptionalId, OptionalText
from openrdb.api.companions import wire
from openrdb.errors import PermissionsDenied
from openrdb.state import events, models, projects
from openrdb.state.models import now

router = APIRouter(prefix="/account/v3")


def show(project: models.Project, *, qualified: bool = True) -> wire.Project:
    return wire.Project(
        id=project.id,
        name=project.name,
        organization_id=project.organization_id,
        created_at=project.created_at,
        updated_at=project.updated_at,
        description=project.description,
        qualification=wire.Qualification() if qualified else None,
    )


@router.post("/projects")
def create_project(
    body: wire.CreateProject, backend: CurrentBackend, caller: CurrentCaller
) -> wire.Project:
    """Create a project; this needs a key of the whole organization."""
    foreign = body.organization_id not in (None, caller.principal.organization_id)
    if foreign or caller.principal.project_id is not None:
        raise PermissionsDenied("create", "project")
    with backend.database.write() as session:
        project = projects.create(
            session, caller.principal.organization_id, body.name, body.description or ""
        )
        events.accepted(session, caller, "project", project.id)
    return show(project, qualified=False)


@router.get("/projects")
def list_projects(
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
    organization_id: OptionalId = None,
    name: OptionalText = None,
    project_ids: wire.Ids = None,
    order_by: wire.Order = "created_at_asc",
) -> wire.Projects:
    """Return a page of the projects that the key may see."""
    filters = projects.Filters(organization_id, name, project_ids or [])
    with backend.database.read() as session:
        found, total = projects.page(session, principal, filters, order_by, page)
    return wire.Projects(projects=[show(project) for project in found], total_count=total)


@router.get("/projects/{project_id}")
def get_project(
    project_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.Project:
    """Return a project."""
    with backend.database.read() as session:
        return show(projects.get(session, project_id, principal))


@router.patch("/projects/{project_id}")
def update_project(
    project_id: UUID,
    body: wire.UpdateProject,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Project:
    """Change a project's name and description."""
    with backend.database.write() as session:
        project = projects.get(session, project_id, caller.principal)
        project.name = body.name or project.name
        if body.description is not None:
            project.description = body.description
        if session.is_modified(project):
            project.updated_at = now()
        events.accepted(session, caller, "project", project.id)
    return show(project)


@router.delete("/projects/{project_id}", status_code=204)
def delete_project(project_id: UUID, backend: CurrentBackend, caller: CurrentCaller) -> None:
    """Delete an empty project; this needs a key of the whole organization."""
    with backend.database.write() as session:
        project = projects.get(session, project_id, caller.principal)
        if caller.principal.project_id is not None:
            raise PermissionsDenied("delete", "project")
        projects.delete(session, project)
        events.accepted(session, caller, "project", project.id)
