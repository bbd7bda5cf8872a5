"""Users, databases, privileges: what the engine itself holds, read and changed live."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path

from openrdb.api import wire
from openrdb.api.auth import CurrentPrincipal
from openrdb.api.common import NO_NUL, PREFIX, Backend, CurrentBackend, CurrentPage, OptionalText
from openrdb.config import Region
from openrdb.engines import engine_of
from openrdb.engines.base import Administration
from openrdb.engines.passwords import check_password
from openrdb.errors import InvalidArguments, NotFound
from openrdb.operations.desired import main_spec
from openrdb.spec import Database, Privilege, User
from openrdb.state import instances, operations, statuses
from openrdb.state.scope import Principal

router = APIRouter(prefix=PREFIX + "/instances/{instance_id}")

PathName = Annotated[str, Path(max_length=255, pattern=NO_NUL)]


@contextmanager
def _looking(
    backend: Backend, principal: Principal, region: Region, instance_id: UUID
) -> Iterator[Administration]:
    """The inside of an instance, whose status must allow it."""
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal)
    statuses.require(instance, "look_inside")
    with backend.host.administration(main_spec(instance, backend.secrets)) as inside:
        yield inside


def _change(
    backend: Backend,
    principal: Principal,
    region: Region,
    instance_id: UUID,
    kind: str,
    parameters: dict[str, Any],
) -> None:
    """Record a change, and return when it is in force; what the engine refuses changes nothing."""
    with backend.database.write() as session:
        instance = instances.get(session, region, instance_id, principal)
        statuses.require(instance, "change_inside")
        operation = operations.record(session, instance, kind, parameters)
    backend.perform(operation.id)


def _verifier(
    backend: Backend, principal: Principal, region: Region, instance_id: UUID, password: str
) -> str:
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal)
    check_password("password", password)
    return engine_of(instance.engine).verifier(password)


# -- users -----------------------------------------------------------------------------------------


@router.get("/users")
def list_users(
    region: Region,
    instance_id: UUID,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
    name: OptionalText = None,
    order_by: Literal["name_asc", "name_desc", "is_admin_asc", "is_admin_desc"] = "name_asc",
) -> wire.Users:
    """The users, also those made by SQL; `name` is exact, as recorded."""
    with _looking(backend, principal, region, instance_id) as inside:
        found = sorted(inside.users(), key=lambda user: user.name)
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
def create_user(
    region: Region,
    instance_id: UUID,
    body: wire.CreateUser,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.User:
    verifier = _verifier(backend, principal, region, instance_id, body.password)
    asked = {"name": body.name, "verifier": verifier, "is_admin": body.is_admin}
    _change(backend, principal, region, instance_id, "create_user", asked)
    return wire.User(name=body.name, is_admin=body.is_admin)


@router.patch("/users/{name}")
def update_user(
    region: Region,
    instance_id: UUID,
    name: PathName,
    body: wire.UpdateUser,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.User:
    verifier = None
    if body.password:
        verifier = _verifier(backend, principal, region, instance_id, body.password)
    asked = {"name": name, "verifier": verifier, "is_admin": body.is_admin}
    _change(backend, principal, region, instance_id, "update_user", asked)
    with _looking(backend, principal, region, instance_id) as inside:
        found = [user for user in inside.users() if user.name == name]
    if not found:  # dropped by SQL meanwhile
        raise NotFound("user", name)
    return _user(found[0])


@router.delete("/users/{name}", status_code=204)
def delete_user(
    region: Region,
    instance_id: UUID,
    name: PathName,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> None:
    """What the user owned in managed databases is their owner's from then on."""
    _change(backend, principal, region, instance_id, "delete_user", {"name": name})


# -- databases -------------------------------------------------------------------------------------


@router.get("/databases")
def list_databases(
    region: Region,
    instance_id: UUID,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
    name: OptionalText = None,
    managed: bool | None = None,
    owner: OptionalText = None,
    order_by: Literal["name_asc", "name_desc", "size_asc", "size_desc"] = "name_asc",
    skip_size_retrieval: bool = False,
) -> wire.Databases:
    """The databases with their sizes in bytes; 0 with `skip_size_retrieval`."""
    with _looking(backend, principal, region, instance_id) as inside:
        found = sorted(inside.databases(sizes=not skip_size_retrieval), key=lambda one: one.name)
    found = [
        one
        for one in found
        if (not name or one.name == name)
        and managed in (None, one.managed)
        and (not owner or one.owner == owner)
    ]
    if order_by.startswith("size"):
        found.sort(key=lambda one: one.size)
    if order_by.endswith("_desc"):
        found.reverse()
    shown = [_database(one) for one in page.of(found)]
    return wire.Databases(databases=shown, total_count=len(found))


def _database(one: Database) -> wire.Database:
    return wire.Database(name=one.name, owner=one.owner, managed=one.managed, size=one.size)


@router.post("/databases")
def create_database(
    region: Region,
    instance_id: UUID,
    body: wire.CreateDatabase,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.Database:
    _change(backend, principal, region, instance_id, "create_database", {"name": body.name})
    return wire.Database(name=body.name, owner="", managed=True, size=0)  # as recorded


@router.delete("/databases/{name}", status_code=204)
def delete_database(
    region: Region,
    instance_id: UUID,
    name: PathName,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> None:
    _change(backend, principal, region, instance_id, "delete_database", {"name": name})


# -- privileges ------------------------------------------------------------------------------------


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
    """A row for each managed database and user, `none` included."""
    with _looking(backend, principal, region, instance_id) as inside:
        found = inside.privileges(database=database_name or None, user=user_name or None)
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
    principal: CurrentPrincipal,
) -> wire.Privilege:
    """Make it exactly this level."""
    permission = body.permission or "readonly"
    if permission == "custom":
        help_message = "custom is what grants made by SQL are; it cannot be set"
        raise InvalidArguments(("permission", "constraint", help_message))
    asked = {"database": body.database_name, "user": body.user_name, "permission": permission}
    _change(backend, principal, region, instance_id, "set_privilege", asked)
    return wire.Privilege(
        permission=permission, database_name=body.database_name, user_name=body.user_name
    )
