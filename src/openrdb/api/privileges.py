"""Privileges: what the engine itself holds, read and changed live."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from fastapi import APIRouter

from openrdb.api import content, wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import PREFIX, CurrentBackend, CurrentPage, OptionalText
from openrdb.config import Region
from openrdb.errors import InvalidArguments
from openrdb.operations.privileges import SetPrivilege
from openrdb.spec import Privilege

router = APIRouter(prefix=PREFIX + "/instances/{instance_id}")


@router.get("/privileges")
def list_privileges(
    region: Region,
    instance_id: UUID,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
    order_by: Literal[
        "user_name_asc", "user_name_desc", "database_name_asc", "database_name_desc"
    ] = "user_name_asc",
    database_name: OptionalText = None,
    user_name: OptionalText = None,
) -> wire.Privileges:
    """Return a row for each managed database and user, `none` included."""
    engine = content.reading(backend, principal, region, instance_id)
    found = engine.privileges(database=database_name or None, user=user_name or None)
    if order_by.startswith("user"):
        found.sort(key=lambda one: (one.user, one.database))
    else:
        found.sort(key=lambda one: (one.database, one.user))
    if order_by.endswith("_desc"):
        found.reverse()
    shown = [_privilege(one) for one in page.of(found)]
    return wire.Privileges(privileges=shown, total_count=len(found))


def _privilege(one: Privilege) -> wire.Privilege:
    return wire.Privilege(permission=one.permission, database_name=one.database, user_name=one.user)


@router.put("/privileges")
def set_privilege(
    region: Region,
    instance_id: UUID,
    body: wire.SetPrivilege,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Privilege:
    """Make it exactly this level."""
    permission = body.permission or "readonly"
    if permission == "custom":
        help_message = "custom is what grants made by SQL are; it cannot be set"
        raise InvalidArguments(("permission", "constraint", help_message))
    content.change(
        backend,
        caller,
        region,
        instance_id,
        lambda found: SetPrivilege(found, body.database_name, body.user_name, permission),
    )
    return wire.Privilege(
        permission=permission, database_name=body.database_name, user_name=body.user_name
    )
