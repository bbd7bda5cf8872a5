"""What endpoints of instances and of read replicas have in common: they are moved and deleted."""

from __future__ import annotations

import asyncio

from openrdb.console import reading
from openrdb.console.client import Json
from openrdb.console.routing import Done, Page, Pages
from openrdb.console.visits import Form, Visit


def spec(form: Form, public: str) -> Json:
    """Return what a form's `private_network_id` asks for: that network, or the public kind."""
    network = form.get("private_network_id")
    if not network:
        return {public: {}}
    asked: Json = {"private_network_id": network}
    if address := form.get("service_ip"):
        asked["service_ip"] = address
    else:
        asked["ipam_config"] = {}
    return {"private_network": asked}


async def surroundings(visit: Visit, instance: Json) -> Json:
    """Return for a page what its endpoints can be in, and which instances could have them."""
    found, targets = await asyncio.gather(
        reading.private_networks(visit.api, visit.region),
        reading.same_engine(visit.api, visit.region, instance),
    )
    return {
        "networks": {one["id"]: one["name"] for one in found},
        "own_networks": [one for one in found if one["project_id"] == instance["project_id"]],
        "targets": targets,
    }


def add_changes(pages: Pages, path: str, page: Page) -> None:
    """Let the endpoints on a page be moved and deleted."""

    async def migrate(visit: Visit, form: Form) -> Done:
        endpoint, taker = reading.id_of(form, "endpoint_id"), form.get("instance_id", "")
        asked = {"instance_id": taker}
        await visit.api.send("POST", visit.rdb("endpoints", endpoint, "migrate"), asked)
        return Done("The endpoint is being moved.")

    async def delete(visit: Visit, form: Form) -> Done:
        await visit.api.send("DELETE", visit.rdb("endpoints", reading.id_of(form, "endpoint_id")))
        return Done("The endpoint is being deleted.")

    pages.post(f"{path}/migrate-endpoint", page=page)(migrate)
    pages.post(f"{path}/delete-endpoint", page=page)(delete)
