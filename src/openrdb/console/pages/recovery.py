"""Recovery to a point in time: what an instance can be recovered to, and a new instance of it."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.client import Json
from openrdb.console.refusals import Refused
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_PATH = f"{INSTANCE}/recovery"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    (recovery, refusal), node_types = await asyncio.gather(
        _recovery(visit), reading.node_types(visit.api, visit.region)
    )
    return await frame.show(
        visit,
        "recovery",
        instance,
        live="parts/recovery.html",
        recovery=recovery,
        refusal=refusal,
        node_types=node_types,
    )


async def _recovery(visit: Visit) -> tuple[Json | None, str | None]:
    """Return what an instance can be recovered to, or why that is not known."""
    try:
        return await visit.api.get(_api(visit)), None
    except Refused as refused:
        if refused.is_signed_out:
            raise
        return None, str(refused)


def _api(visit: Visit, *parts: str) -> str:
    """Return the path in the API: beyond the reference, it is not below `/rdb`."""
    instance = f"/openrdb/v1/regions/{visit.region}/instances/{visit.instance_id}"
    return "/".join((instance, "recovery", *parts))


@pages.post(f"{_PATH}/restore", page=show)
async def restore(visit: Visit, form: Form) -> Done:
    asked = {name: form.get(name) or None for name in ("name", "to", "node_type")}
    made = await visit.api.send("POST", _api(visit, "restore"), asked)
    return Done(f"{made['name']} is being recovered.", visit.path("instances", made["id"]))
