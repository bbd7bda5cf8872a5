"""Snapshots and clones."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from openrdb.console import reading
from openrdb.console.pages import copies
from openrdb.console.pages.copies import Kind, end_of_day
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_SNAPSHOTS = Kind("snapshot", "snapshots")
_PATH, _ALL = f"{INSTANCE}/snapshots", "/{region}/snapshots"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    snapshots, node_types = await asyncio.gather(
        copies.listed(visit, _SNAPSHOTS, instance["id"]),
        reading.node_types(visit.api, visit.region),
    )
    return await copies.show_of_instance(
        visit, _SNAPSHOTS, instance, snapshots, node_types=node_types
    )


@pages.get(_ALL)
async def show_all(visit: Visit) -> Response:
    snapshots, node_types = await asyncio.gather(
        copies.listed(visit, _SNAPSHOTS),
        reading.node_types(visit.api, visit.region),
    )
    return await copies.show_all(visit, _SNAPSHOTS, snapshots, node_types=node_types)


@pages.post(f"{_PATH}/create", page=show)
async def create(visit: Visit, form: Form) -> Done:
    asked = {"name": form.get("name", ""), "expires_at": end_of_day(form.get("expires_at"))}
    await visit.api.send("POST", visit.of_instance("snapshots"), asked)
    return Done(f"The snapshot {asked['name']} is being made.")


@pages.post(f"{_PATH}/clone", page=show)
async def clone(visit: Visit, form: Form) -> Done:
    asked = {name: form.get(name) or None for name in ("name", "node_type")}
    made = await visit.api.send("POST", visit.of_instance("clone"), asked)
    return Done(f"{made['name']} is being created.", visit.path("instances", made["id"]))


async def create_instance(visit: Visit, form: Form) -> Done:
    asked = {
        "instance_name": form.get("instance_name") or None,
        "node_type": form.get("node_type") or None,
        "is_ha_cluster": bool(form.get("high_availability_mode")),
        "high_availability_mode": form.get("high_availability_mode") or None,
    }
    path = visit.rdb("snapshots", reading.id_of(form, "copy_id"), "create-instance")
    made = await visit.api.send("POST", path, asked)
    return Done(f"{made['name']} is being created.", visit.path("instances", made["id"]))


_PLACES = {_PATH: show, _ALL: show_all}
copies.add_changes(pages, _SNAPSHOTS, _PLACES)
for _path, _page in _PLACES.items():
    pages.post(f"{_path}/create-instance", page=_page)(create_instance)
