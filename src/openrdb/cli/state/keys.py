"""API keys by the command line: in the data directory's database, whether it is served or not.

The service looks a key up for each request, so that a change is in force with its commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.credentials import read_credentials
from openrdb.errors import HostError
from openrdb.state import access
from openrdb.state.models import ApiKey, Project


@dataclass(frozen=True)
class ListedKey:
    """A key without its secret, which is not kept."""

    access_key: str
    scope: str
    """The project's name, or `organization`."""
    kind: str
    """`full` or `read-only`."""
    description: str
    created_at: datetime


def create(
    settings: Settings,
    project: str | None,
    *,
    whole_organization: bool,
    read_only: bool,
    description: str,
) -> dict[str, str]:
    """Make a key; the environment that official clients need to use it.

    Raises:
        HostError: there is no such project, or there are several of that name.
    """
    with opened_state(settings) as database, database.write() as session:
        key = access.create_key(
            session,
            _project(session, project),
            whole_organization=whole_organization,
            read_only=read_only,
            description=description,
        )
    return read_credentials(settings.data_dir) | key.environment()


def _project(session: Session, wanted: str | None) -> Project:
    if wanted is None:
        found = access.default_project(session)
        if found is None:
            raise HostError("there is no default project")
        return found
    try:
        by_id = session.get(Project, UUID(wanted))
    except ValueError:
        by_id = None
    if by_id is not None:
        return by_id
    named = session.scalars(select(Project).where(Project.name == wanted)).all()
    if not named:
        raise HostError(f"there is no project {wanted}")
    if len(named) > 1:
        ids = ", ".join(str(one.id) for one in named)
        raise HostError(f"several projects are named {wanted}; say which by its id: {ids}")
    return named[0]


def listed(settings: Settings) -> list[ListedKey]:
    """Return all keys, the oldest first."""
    of_projects = select(ApiKey, Project.name).outerjoin(Project, Project.id == ApiKey.project_id)
    ordered = of_projects.order_by(ApiKey.created_at, ApiKey.access_key)
    with opened_state(settings) as database, database.read() as session:
        return [
            ListedKey(
                access_key=key.access_key,
                scope=f"project {name}" if key.project_id else "organization",
                kind="read-only" if key.read_only else "full",
                description=key.description,
                created_at=key.created_at,
            )
            for key, name in session.execute(ordered)
        ]


def revoke(settings: Settings, access_key: str, *, force: bool) -> None:
    """Forget a key.

    Raises:
        HostError: there is none of that access key, or it is the one of the credentials.
    """
    own = read_credentials(settings.data_dir)["SCW_ACCESS_KEY"]
    with opened_state(settings) as database, database.write() as session:
        key = session.get(ApiKey, access_key)
        if key is None:
            raise HostError(f"there is no key {access_key}")
        if access_key == own and not force:
            raise HostError(
                f"{access_key} is the key that `openrdb env` prints and `openrdb demo` uses, which "
                "would be of no use any more; --force revokes it all the same"
            )
        session.delete(key)
