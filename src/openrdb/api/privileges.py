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
from openrdb.state.scope import Page

router = APIRouter(prefix=PREFIX + "/instances/{instance_id}")


@router.get("/privileges")
async def list_privileges(
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

    def ask(engine: content.Reading) -> tuple[list[Privilege], int]:
        return _page(engine, page, order_by, database_name or None, user_name or None)

    shown, total = await content.read(backend, principal, region, instance_id, ask)
    return wire.Privileges(privileges=[_privilege(one) for one in shown], total_count=total)


def _page(
    engine: content.Reading, page: Page, order_by: str, database: str | None, user: str | None
) -> tuple[list[Privilege], int]:
    """Return a page of privileges and the count of all.

    Only the page's levels are read: each database of PostgreSQL needs a session of its own, and an
    instance may have a thousand users in each of them.
    """
    if database is not None and user is not None:
        found = engine.privileges(database=database, user=user)
        return page.of(found), len(found)
    names = engine.names()
    databases = sorted(one for one in names.databases if database in (None, one))
    users = sorted(one for one in names.users if user in (None, one))
    by_user = order_by.startswith("user")
    outer, inner = (users, databases) if by_user else (databases, users)
    if order_by.endswith("_desc"):
        outer, inner = outer[::-1], inner[::-1]
    numbers = range(len(outer) * len(inner))
    asked = [(outer[one // len(inner)], inner[one % len(inner)]) for one in page.of(numbers)]
    pairs = [pair[::-1] for pair in asked] if by_user else asked
    levels = engine.levels(_distinct(pairs, 0), _distinct(pairs, 1)) if pairs else []
    by_pair = {(one.database, one.user): one for one in levels}
    return [by_pair[pair] for pair in pairs if pair in by_pair], len(numbers)


def _distinct(pairs: list[tuple[str, str]], member: Literal[0, 1]) -> list[str]:
    return list(dict.fromkeys(pair[member] for pair in pairs))


def _privilege(one: Privilege) -> wire.Privilege:
    return wire.Privilege(permission=one.permission, database_name=one.database, user_name=one.user)


@router.put("/privileges")
async def set_privilege(
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
    await content.change(
        backend,
        caller,
        region,
        instance_id,
        lambda found: SetPrivilege(found, body.database_name, body.user_name, permission),
    )
    return wire.Privilege(
        permission=permission, database_name=body.database_name, user_name=body.user_name
    )
