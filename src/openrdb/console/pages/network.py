"""Who may connect, and by which endpoints."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.pages import endpoints
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_PATH = f"{INSTANCE}/network"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    rules, surroundings = await asyncio.gather(
        reading.every(visit.api, visit.of_instance("acls"), "rules"),
        endpoints.surroundings(visit, instance),
    )
    return await frame.show(
        visit, "network", instance, live="parts/endpoints.html", rules=rules, **surroundings
    )


@pages.post(f"{_PATH}/allow", page=show)
async def allow(visit: Visit, form: Form) -> Done:
    rule = {"ip": form.get("ip", ""), "description": form.get("description") or None}
    await visit.api.send("POST", visit.of_instance("acls"), {"rules": [rule]})
    return Done(f"{rule['ip']} may connect.")


@pages.post(f"{_PATH}/forbid", page=show)
async def forbid(visit: Visit, form: Form) -> Done:
    ip = form.get("ip", "")
    await visit.api.send("DELETE", visit.of_instance("acls"), {"acl_rule_ips": [ip]})
    return Done(f"The rule for {ip} was deleted.")


@pages.post(f"{_PATH}/add-endpoint", page=show)
async def add_endpoint(visit: Visit, form: Form) -> Done:
    asked = {"endpoint_spec": endpoints.spec(form, "load_balancer")}
    await visit.api.send("POST", visit.of_instance("endpoints"), asked)
    return Done("The endpoint is being added.")


endpoints.add_changes(pages, _PATH, show)
