"""What all pages of one instance show around their own part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy.orm import Session
from starlette.responses import Response

from openrdb.console import reading, remedies
from openrdb.console.client import Json
from openrdb.console.remedies import Remedy
from openrdb.console.visits import Visit

Reasons = Callable[[Session, Sequence[str]], dict[str, str]]
TABS = {
    "": "Overview",
    "content": "Users and databases",
    "settings": "Settings",
    "network": "Network",
    "backups": "Backups",
    "snapshots": "Snapshots",
    "recovery": "Recovery",
    "replicas": "Read replicas",
    "metrics": "Metrics",
    "logs": "Logs",
    "events": "Events",
    "manage": "Manage",
}


async def show(
    visit: Visit,
    tab: str,
    instance: Json,
    live: str | None = None,
    parts: Sequence[Json] = (),
    **values: object,
) -> Response:
    """Return a page of an instance.

    Args:
        live: the template of the part that is renewed while something changes.
        parts: what else has a status, as the backups on the page.
    """
    reason, remedy = await _trouble(visit, instance)
    return visit.render(
        f"instance/{tab or 'overview'}.html",
        live=live,
        instance=instance,
        reason=reason,
        remedy=remedy,
        tab=tab,
        tabs=TABS,
        **await moving(visit, [instance, *parts]),
        **values,
    )


async def moving(visit: Visit, subjects: Sequence[Json]) -> Json:
    """Return for a page whether something on it changes by itself, and which steps that has reached."""
    ids = [one["id"] for one in subjects if reading.is_moving(one)]
    steps = await visit.in_state(reading.steps, ids) if ids else {}
    return {"is_moving": bool(ids), "steps": steps}


async def _trouble(visit: Visit, instance: Json) -> tuple[str | None, Remedy | None]:
    """Return why an instance is not as it should be, and what its users can do about it."""
    if not reading.is_in_trouble(instance):
        return None, None
    is_unmade = await visit.in_state(reading.is_unmade, UUID(instance["id"]))
    reason = (await reasons(visit, [instance["id"]])).get(instance["id"])
    return reason, remedies.of(instance, is_unmade=is_unmade)


async def reasons(visit: Visit, instance_ids: Sequence[str]) -> dict[str, str]:
    """Return why instances are not as they should be, for those whom the host's words are for."""
    return await _told(visit, reading.reasons, instance_ids)


async def failures(visit: Visit, copies: Sequence[Json]) -> dict[str, str]:
    """Return likewise why copies are in `error`: backups, snapshots or those of logs."""
    failed = [one["id"] for one in copies if one["status"] == "error"]
    return await _told(visit, reading.failures, failed)


async def _told(visit: Visit, read: Reasons, subject_ids: Sequence[str]) -> dict[str, str]:
    if not subject_ids:
        return {}
    if not visit.is_operator:
        return dict.fromkeys(subject_ids, "The operator of this service sees why.")
    found: dict[str, str] = await visit.in_state(read, subject_ids)
    return found
