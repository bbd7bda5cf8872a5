"""Organization, projects and API keys and what a key may do."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.errors import DeniedAuthentication, NotFound, PermissionsDenied
from openrdb.state.models import ApiKey, Project
from openrdb.state.scope import Principal

_ACCESS_KEY_ALPHABET = string.ascii_uppercase + string.digits


@dataclass(frozen=True)
class NewKey:
    """A key just made; the only moment at which its secret is known."""

    access_key: str
    secret_key: str
    organization_id: UUID
    project_id: UUID

    def environment(self) -> dict[str, str]:
        """Return what official clients need to know of it."""
        return {
            "SCW_ACCESS_KEY": self.access_key,
            "SCW_SECRET_KEY": self.secret_key,
            "SCW_DEFAULT_PROJECT_ID": str(self.project_id),
            "SCW_DEFAULT_ORGANIZATION_ID": str(self.organization_id),
        }


def secret_hash(secret_key: str) -> str:
    """Return what is kept of a secret key.

    Secrets are random UUIDs, not passwords: a plain hash cannot be guessed back.
    """
    return hashlib.sha256(secret_key.encode()).hexdigest()


def create_key(
    session: Session,
    project: Project,
    *,
    whole_organization: bool,
    read_only: bool = False,
    description: str = "",
) -> NewKey:
    access_key = "SCW" + "".join(secrets.choice(_ACCESS_KEY_ALPHABET) for _ in range(17))
    secret_key = str(UUID(bytes=secrets.token_bytes(16), version=4))
    session.add(
        ApiKey(
            access_key=access_key,
            secret_hash=secret_hash(secret_key),
            organization_id=project.organization_id,
            project_id=None if whole_organization else project.id,
            default_project_id=project.id,
            read_only=read_only,
            description=description,
        )
    )
    return NewKey(access_key, secret_key, project.organization_id, project.id)


def ensure_first_key(session: Session) -> NewKey | None:
    """Make the organization, its default project and a key, if there is no key; else None.

    Where all keys were revoked, the new one is for the organization that there is.
    """
    if session.scalars(select(ApiKey).limit(1)).first() is not None:
        return None
    project = default_project(session)
    if project is None:
        project_id = uuid4()
        project = Project(id=project_id, organization_id=project_id, name="default")
        session.add(project)
        session.flush()
    return create_key(session, project, whole_organization=True)


def authenticate(session: Session, secret_key: str | None) -> Principal:
    """Return the holder of a secret key.

    Raises:
        DeniedAuthentication: none given, or nobody's.
    """
    if not secret_key:
        raise DeniedAuthentication("invalid_argument")
    wanted = secret_hash(secret_key)
    key = session.scalars(select(ApiKey).where(ApiKey.secret_hash == wanted)).one_or_none()
    if key is None or not hmac.compare_digest(key.secret_hash, wanted):
        raise DeniedAuthentication("not_found")
    return Principal(
        key.access_key, key.organization_id, key.project_id, key.default_project_id, key.read_only
    )


def get_key(session: Session, access_key: str, principal: Principal) -> ApiKey:
    """Return a key that another one's holder may look at.

    Raises:
        NotFound: there is none, or it is another organization's, or beyond the holder's project.
    """
    key = session.get(ApiKey, access_key)
    if key is None or not principal.sees(key.organization_id, key.project_id):
        raise NotFound("api_key", access_key)
    return key


def default_project(session: Session) -> Project | None:
    """Return the default project of the deployment's first organization."""
    defaults = select(Project).where(Project.id == Project.organization_id)
    return session.scalars(defaults.order_by(Project.created_at).limit(1)).first()


def find_project(session: Session, principal: Principal, project_id: UUID) -> Project | None:
    """Return a project that the key is for."""
    project = session.get(Project, project_id)
    if project is None or not principal.sees(project.organization_id, project.id):
        return None
    return project


def project_for_creation(
    session: Session, principal: Principal, asked: UUID | None, action: str, resource: str
) -> Project:
    """Return the project in which something is created: the one asked for, or the key's default.

    Raises:
        PermissionsDenied: the key may not create there, or there is no such project.
    """
    project = find_project(session, principal, asked or principal.default_project_id)
    if project is None:
        raise PermissionsDenied(action, resource)
    return project
