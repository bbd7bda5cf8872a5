"""The engine's settings."""

from __future__ import annotations

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.client import Json
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_PATH = f"{INSTANCE}/settings"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    available = await _available(visit, instance)
    form = visit.form("set")
    wanted = form.value("name", visit.request.query_params.get("setting", ""))
    return await frame.show(
        visit,
        "settings",
        instance,
        form=form,
        available=available,
        own={one["name"]: one["value"] for one in instance["settings"]},
        chosen=next((one for one in available if one["name"] == wanted), None),
    )


async def _available(visit: Visit, instance: Json) -> list[Json]:
    """Return the settings that the instance's version has."""
    for engine in await reading.engines(visit.api, visit.region):
        for version in engine["versions"]:
            if version["name"] == instance["engine"]:
                found: list[Json] = version["available_settings"]
                return sorted(found, key=lambda one: str(one["name"]))
    return []


@pages.post(f"{_PATH}/set", page=show)
async def set_one(visit: Visit, form: Form) -> Done:
    one = {name: form.get(name, "") for name in ("name", "value")}
    await visit.api.send("POST", visit.of_instance("settings"), {"settings": [one]})
    return Done(f"{one['name']} is set to {one['value']}.")


@pages.post(f"{_PATH}/reset", page=show)
async def reset_one(visit: Visit, form: Form) -> Done:
    name = form.get("name", "")
    await visit.api.send("DELETE", visit.of_instance("settings"), {"setting_names": [name]})
    return Done(f"{name} has its default again.")
