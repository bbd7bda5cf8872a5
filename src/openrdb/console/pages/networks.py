"""The private networks of a region, which endpoints can be in."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from openrdb.console import reading
from openrdb.console.routing import Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_PATH = "/{region}/networks"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    networks, projects = await asyncio.gather(
        reading.private_networks(visit.api, visit.region), reading.projects(visit.api)
    )
    return visit.render("networks.html", networks=networks, projects=projects)


def _api(visit: Visit, *parts: str) -> str:
    return "/".join((f"/vpc/v2/regions/{visit.region}/private-networks", *parts))


@pages.post(f"{_PATH}/create", page=show)
async def create(visit: Visit, form: Form) -> Done:
    asked = {
        "name": form.get("name") or None,
        "subnets": reading.listed(form.get("subnets", "")) or None,
        "project_id": form.get("project_id") or None,
    }
    made = await visit.api.send("POST", _api(visit), asked)
    return Done(f"The private network {made['name']} was created.")


@pages.post(f"{_PATH}/delete", page=show)
async def delete(visit: Visit, form: Form) -> Done:
    await visit.api.send("DELETE", _api(visit, reading.id_of(form, "network_id")))
    return Done("The private network was deleted.")
