"""Who asked for what, and what became of it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from starlette.responses import Response

from openrdb.console import frame
from openrdb.console.routing import INSTANCE, Pages
from openrdb.console.visits import Visit
from openrdb.state import events

pages = Pages()

_MOST: Final = 200


@pages.get(f"{INSTANCE}/events")
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    ids = UUID(instance["id"]), UUID(instance["project_id"])
    found = await visit.in_state(events.newest_of, _MOST, *ids)
    return await frame.show(
        visit, "events", instance, live="parts/events.html", events=found, most=_MOST
    )
