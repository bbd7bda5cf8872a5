"""Backups of databases, and when they are made."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from openrdb.console import reading
from openrdb.console.client import Json
from openrdb.console.pages import copies
from openrdb.console.pages.copies import Kind, end_of_day
from openrdb.console.reading import Part
from openrdb.console.refusals import Refused
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_BACKUPS = Kind("backup", "database_backups")
_PATH, _ALL = f"{INSTANCE}/backups", "/{region}/backups"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    backups, databases, instances = await asyncio.gather(
        copies.listed(visit, _BACKUPS, instance["id"]),
        _databases(visit),
        reading.instances(visit.api, visit.region, project_id=instance["project_id"]),
    )
    targets = await _targets(visit, backups, instances)
    return await copies.show_of_instance(
        visit, _BACKUPS, instance, backups, databases=databases, targets=targets
    )


@pages.get(_ALL)
async def show_all(visit: Visit) -> Response:
    backups, instances = await asyncio.gather(
        copies.listed(visit, _BACKUPS),
        reading.instances(visit.api, visit.region),
    )
    targets = await _targets(visit, backups, instances)
    return await copies.show_all(visit, _BACKUPS, backups, targets=targets)


async def _targets(visit: Visit, backups: Part, instances: list[Json]) -> dict[str, list[Json]]:
    """Return what each backup can be restored into: instances of its project that run its engine, its
    own first."""
    origins = await visit.in_state(reading.origins, [one["id"] for one in backups.items])
    return {
        one["id"]: reading.fitting(instances, origins.get(one["id"]), one["instance_id"])
        for one in backups.items
    }


async def _databases(visit: Visit) -> Part:
    """Return all databases that can be backed up, without their sizes."""
    asked = {"skip_size_retrieval": "true"}
    try:
        path = visit.of_instance("databases")
        return Part(await reading.every(visit.api, path, "databases", **asked), 1)
    except Refused as refused:
        if refused.is_signed_out:
            raise
        return Part([], 1, refusal=str(refused))


@pages.post(f"{_PATH}/create", page=show)
async def create(visit: Visit, form: Form) -> Done:
    asked = {
        "instance_id": str(visit.instance_id),
        "database_name": form.get("database_name", ""),
        "name": form.get("name") or None,
        "expires_at": end_of_day(form.get("expires_at")),
    }
    made = await visit.api.send("POST", visit.rdb("backups"), asked)
    return Done(f"The backup {made['name']} is being made.")


@pages.post(f"{_PATH}/schedule", page=show)
async def schedule(visit: Visit, form: Form) -> Done:
    before = (await visit.instance())["backup_schedule"]
    asked: Json = {
        "is_backup_schedule_disabled": "backups" not in form,
        "backup_same_region": "backup_same_region" in form,
    }
    for name in ("frequency", "retention", "start_hour"):
        asked[f"backup_schedule_{name}"] = reading.number(form.get(f"backup_schedule_{name}", ""))
    if asked["backup_schedule_frequency"] == before["frequency"]:
        # It would count from now on, and put off the backups that come next.
        del asked["backup_schedule_frequency"]
    await visit.api.send("PATCH", visit.of_instance(), asked)
    return Done("The schedule was changed.")


async def export(visit: Visit, form: Form) -> Done:
    await visit.api.send("POST", visit.rdb("backups", reading.id_of(form, "copy_id"), "export"))
    return Done("A link to the backup is being made.")


async def restore(visit: Visit, form: Form) -> Done:
    asked = {
        "instance_id": form.get("instance_id", ""),
        "database_name": form.get("database_name") or None,
    }
    path = visit.rdb("backups", reading.id_of(form, "copy_id"), "restore")
    await visit.api.send("POST", path, asked)
    return Done("The backup is being restored.")


_PLACES = {_PATH: show, _ALL: show_all}
copies.add_changes(pages, _BACKUPS, _PLACES)
for _path, _page in _PLACES.items():
    pages.post(f"{_path}/export", page=_page)(export)
    pages.post(f"{_path}/restore", page=_page)(restore)
