"""Read replicas, and how far they are."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.client import Json
from openrdb.console.pages import endpoints
from openrdb.console.pages.overview import certificate_name, lines
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_PATH = f"{INSTANCE}/replicas"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    replicas = instance["read_replicas"]
    present = [endpoint for one in replicas for endpoint in one["endpoints"]]
    seen, said, surroundings = await asyncio.gather(
        visit.in_state(reading.replicas, [one["id"] for one in replicas]),
        lines(visit, instance, present),
        endpoints.surroundings(visit, instance),
    )
    return await frame.show(
        visit,
        "replicas",
        instance,
        live="parts/replicas.html",
        parts=replicas,
        replicas=replicas,
        seen=seen,
        lines=said,
        certificate=certificate_name(instance),
        **surroundings,
    )


def _api(visit: Visit, form: Form, *parts: str) -> str:
    return visit.rdb("read-replicas", reading.id_of(form, "replica_id"), *parts)


@pages.post(f"{_PATH}/create", page=show)
async def create(visit: Visit, form: Form) -> Done:
    kinds: Json = {"direct_access": {}} if "direct_access" in form else {}
    if form.get("private_network_id"):
        kinds |= endpoints.spec(form, "direct_access")
    asked = {"instance_id": str(visit.instance_id), "endpoint_spec": [kinds]}
    await visit.api.send("POST", visit.rdb("read-replicas"), asked)
    return Done("The read replica is being made.")


@pages.post(f"{_PATH}/add-endpoint", page=show)
async def add_endpoint(visit: Visit, form: Form) -> Done:
    asked = {"endpoint_spec": [endpoints.spec(form, "direct_access")]}
    await visit.api.send("POST", _api(visit, form, "endpoints"), asked)
    return Done("The endpoint is being added.")


@pages.post(f"{_PATH}/reset", page=show)
async def reset(visit: Visit, form: Form) -> Done:
    await visit.api.send("POST", _api(visit, form, "reset"))
    return Done("The read replica is being copied again.")


@pages.post(f"{_PATH}/promote", page=show)
async def promote(visit: Visit, form: Form) -> Done:
    made = await visit.api.send("POST", _api(visit, form, "promote"))
    return Done(f"{made['name']} is being made of it.", visit.path("instances", made["id"]))


@pages.post(f"{_PATH}/delete", page=show)
async def delete(visit: Visit, form: Form) -> Done:
    await visit.api.send("DELETE", _api(visit, form))
    return Done("The read replica is being deleted.")


endpoints.add_changes(pages, _PATH, show)
