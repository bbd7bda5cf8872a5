"""Databases: what the engine itself holds, read and changed live."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from fastapi import APIRouter

from openrdb.api import content, wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import PREFIX, CurrentBackend, CurrentPage, OptionalText
from openrdb.config import Region
from openrdb.operations.databases import CreateDatabase, DeleteDatabase
from openrdb.spec import Database

router = APIRouter(prefix=PREFIX + "/instances/{instance_id}")


@router.get("/databases")
async def list_databases(
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
    """Return the databases with their sizes in bytes; 0 with `skip_size_retrieval`."""
    listed = await content.read(
        backend,
        principal,
        region,
        instance_id,
        lambda engine: engine.databases(sizes=not skip_size_retrieval),
    )
    found = [
        one
        for one in sorted(listed, key=lambda one: one.name)
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
async def create_database(
    region: Region,
    instance_id: UUID,
    body: wire.CreateDatabase,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Database:
    """Create a database, and return it."""
    await content.change(
        backend, caller, region, instance_id, lambda found: CreateDatabase(found, body.name)
    )
    return wire.Database(name=body.name, owner="", managed=True, size=0)  # as recorded


@router.delete("/databases/{name:path}", status_code=204)
async def delete_database(
    region: Region,
    instance_id: UUID,
    name: content.PathName,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> None:
    """Delete a database with all that is in it."""
    await content.change(
        backend, caller, region, instance_id, lambda found: DeleteDatabase(found, name)
    )
