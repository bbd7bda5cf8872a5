"""iam/v1alpha1: a key by its access key, where the CLI looks for the default project."""

from __future__ import annotations

from uuid import uuid5

from fastapi import APIRouter

from openrdb.api.auth import CurrentPrincipal
from openrdb.api.common import CurrentBackend
from openrdb.api.companions import wire
from openrdb.state import access

router = APIRouter(prefix="/iam/v1alpha1")

_MADE_AT = "127.0.0.1"
"""`openrdb keys` and the first start make keys, both on the machine itself."""


@router.get("/api-keys/{access_key}")
def get_api_key(
    access_key: str, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.APIKey:
    """Return a key. There are no users here, so the organization stands for one."""
    with backend.database.read() as session:
        key = access.get_key(session, access_key, principal)
    return wire.APIKey(
        access_key=key.access_key,
        description=key.description,
        created_at=key.created_at,
        updated_at=key.created_at,
        default_project_id=key.default_project_id,
        editable=False,
        deletable=False,
        managed=False,
        creation_ip=_MADE_AT,
        user_id=uuid5(key.organization_id, "user"),
    )
