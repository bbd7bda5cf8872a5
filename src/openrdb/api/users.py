"""Users: what the engine itself holds, read and changed live."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from fastapi import APIRouter

from openrdb.api import content, wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import (
    PREFIX,
    Backend,
    CurrentBackend,
    CurrentPage,
    OptionalText,
    allowing,
)
from openrdb.config import Region
from openrdb.errors import NotFound
from openrdb.operations.users import CreateUser, DeleteUser, UpdateUser
from openrdb.spec import User
from openrdb.state.scope import Principal

router = APIRouter(prefix=PREFIX + "/instances/{instance_id}")


@router.get("/users")
async def list_users(
    region: Region,
    instance_id: UUID,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
    name: OptionalText = None,
    order_by: Literal["name_asc", "name_desc", "is_admin_asc", "is_admin_desc"] = "name_asc",
) -> wire.Users:
    """Return the users, also those created by SQL; `name` is exact, as recorded."""
    found = await content.read(
        backend, principal, region, instance_id, lambda engine: engine.users()
    )
    found.sort(key=lambda user: user.name)
    if name:
        found = [user for user in found if user.name == name]
    if order_by.startswith("is_admin"):
        found.sort(key=lambda user: user.is_admin)
    if order_by.endswith("_desc"):
        found.reverse()
    return wire.Users(users=[_user(user) for user in page.of(found)], total_count=len(found))


def _user(user: User) -> wire.User:
    return wire.User(name=user.name, is_admin=user.is_admin)


@router.post("/users")
async def create_user(
    region: Region,
    instance_id: UUID,
    body: wire.CreateUser,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.User:
    """Create a user, and return it."""
    verifier = await content.verifier(backend, caller, region, instance_id, body.password)
    await content.change(
        backend,
        caller,
        region,
        instance_id,
        lambda found: CreateUser(found, body.name, verifier, body.is_admin),
    )
    return wire.User(name=body.name, is_admin=body.is_admin)


@router.patch("/users/{name:path}")
async def update_user(
    region: Region,
    instance_id: UUID,
    name: content.PathName,
    body: wire.UpdateUser,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.User:
    """Change a user's password, or whether they are an administrator."""
    verifier = None
    if body.password:
        verifier = await content.verifier(backend, caller, region, instance_id, body.password)
    is_admin = body.is_admin
    if is_admin is None:
        # Not afterwards: an engine that has ended by then would refuse what is in force.
        await allowing(backend, caller, region, instance_id, UpdateUser.request, whole=False)
        is_admin = await _is_admin(backend, caller.principal, region, instance_id, name)
    await content.change(
        backend,
        caller,
        region,
        instance_id,
        lambda found: UpdateUser(found, name, verifier, body.is_admin),
    )
    return wire.User(name=name, is_admin=is_admin)


async def _is_admin(
    backend: Backend, principal: Principal, region: Region, instance_id: UUID, name: str
) -> bool:
    users = await content.read(
        backend, principal, region, instance_id, lambda engine: engine.users()
    )
    for user in users:
        if user.name == name:
            return user.is_admin
    raise NotFound("user", name)


@router.delete("/users/{name:path}", status_code=204)
async def delete_user(
    region: Region,
    instance_id: UUID,
    name: content.PathName,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> None:
    """Delete a user; what they owned in managed databases belongs to the databases' owner."""
    await content.change(
        backend, caller, region, instance_id, lambda found: DeleteUser(found, name)
    )
