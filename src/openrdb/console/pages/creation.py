"""The form for a new instance, made of the catalogue."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response

from openrdb.console import reading
from openrdb.console.client import Json
from openrdb.console.formats import GB
from openrdb.console.pages import endpoints
from openrdb.console.routing import Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_BLOCK_STORAGE = "sbs_5k"
"""What is chosen first where a node type takes it: snapshots are of it, and it can be enlarged."""

_INIT = "init "
"""What the names of fields begin with that are of settings for creation."""


@pages.get("/{region}/instances/new")
async def show(visit: Visit) -> Response:
    engines, node_types, projects, networks = await asyncio.gather(
        reading.engines(visit.api, visit.region),
        reading.node_types(visit.api, visit.region),
        reading.projects(visit.api),
        reading.private_networks(visit.api, visit.region),
    )
    form = visit.form("create")
    query = visit.request.query_params
    versions = [one for engine in engines for one in engine["versions"] if not one["disabled"]]
    wanted = form.value("engine", query.get("engine", versions[0]["name"]))
    version = next((one for one in versions if one["name"] == wanted), versions[0])
    wanted = form.value("node_type", query.get("node_type", node_types[0]["name"]))
    node_type = next((one for one in node_types if one["name"] == wanted), node_types[0])
    volume_types = node_type["available_volume_types"]
    names = [one["type"] for one in volume_types]
    first = _BLOCK_STORAGE if _BLOCK_STORAGE in names else names[0]
    wanted_volume = form.value("volume_type", query.get("volume_type", first))
    volume_type = volume_types[names.index(wanted_volume if wanted_volume in names else first)]
    return visit.render(
        "create.html",
        form=form,
        engines=engines,
        engine_name=version["name"],
        first_settings=version["available_init_settings"],
        node_types=node_types,
        node_type=node_type,
        volume_types=volume_types,
        volume_type=volume_type,
        size=query.get("volume_size") or volume_type["min_size"] // GB,
        projects=projects,
        networks=networks,
    )


@pages.post("/{region}/instances/new/create", page=show)
async def create(visit: Visit, form: Form) -> Done:
    made = await visit.api.send("POST", visit.rdb("instances"), _asked(form))
    path = visit.path("instances", made["id"])
    return Done(f"{made['name']} is being created.", path)


def _asked(form: Form) -> Json:
    asked: dict[str, Any] = {
        "name": form.get("name") or None,
        "engine": form.get("engine", ""),
        "node_type": form.get("node_type", ""),
        "user_name": form.get("user_name", ""),
        "password": form.get("password", ""),
        "is_ha_cluster": bool(form.get("high_availability_mode")),
        "high_availability_mode": form.get("high_availability_mode") or None,
        "disable_backup": "backups" not in form,
        "volume_type": form.get("volume_type") or None,
        "volume_size": reading.gigabytes(form.get("volume_size", "")),
        "tags": reading.listed(form.get("tags", "")),
        "project_id": form.get("project_id") or None,
        "encryption": {"enabled": "encryption" in form},
        "backup_same_region": "backup_same_region" in form,
        "init_settings": _init_settings(form),
    }
    first: list[Json] = [{"load_balancer": {}}] if "load_balancer" in form else []
    if form.get("private_network_id"):
        first.append(endpoints.spec(form, "load_balancer"))
    return asked | {"init_endpoints": first}


def _init_settings(form: Form) -> list[Json]:
    """Return what a form says of settings that can be set at creation only."""
    return [
        {"name": name.removeprefix(_INIT), "value": value}
        for name, value in form.items()
        if name.startswith(_INIT) and value
    ]
