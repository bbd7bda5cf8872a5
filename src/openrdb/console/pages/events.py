"""Who asked for what, and what became of it."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from starlette.responses import Response

from openrdb.console import frame, history, reading
from openrdb.console.routing import INSTANCE, Pages
from openrdb.console.visits import Visit, page_number
from openrdb.state import events

pages = Pages()

_MOST: Final = 200


@pages.get(f"{INSTANCE}/events")
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    ids = UUID(instance["id"]), UUID(instance["project_id"])
    found = await visit.in_state(events.newest_of, _MOST, *ids)
    return await frame.show(
        visit,
        "events",
        instance,
        live="parts/events.html",
        events=found,
        instances=None,
        most=_MOST,
    )


@pages.get("/{region}/events")
async def show_all(visit: Visit) -> Response:
    """Return the page of all events, also of what is gone: no event says of which region it is."""
    await reading.projects(visit.api)  # by which a key that was revoked is signed out
    subject = visit.request.query_params.get("subject", "").strip()
    page, holder = page_number(visit.request, "page"), visit.session.holder
    found = await visit.in_state(history.page, holder, page, subject)
    return visit.render(
        "events.html",
        live="parts/events.html",
        events=found.events,
        instances=found.instances,
        found=found,
        subject=subject,
        filters=f"&{urlencode({'subject': subject})}" if subject else "",
        is_moving=False,
    )
