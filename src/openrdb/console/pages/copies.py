"""What backups and snapshots have in common: their lists, their names and their ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.client import Json
from openrdb.console.reading import Part
from openrdb.console.routing import Done, Page, Pages
from openrdb.console.visits import Form, Visit, page_number

Places = Mapping[str, Page]
"""Where copies of a kind are shown, and by what: an instance's, and all those of a region."""


@dataclass(frozen=True)
class Kind:
    """Backups or snapshots."""

    name: str
    items: str
    """What the API calls a list of them."""

    @property
    def path(self) -> str:
        """Return the last part of their paths, in the API and in the console."""
        return f"{self.name}s"


async def listed(visit: Visit, kind: Kind, instance_id: str | None = None) -> Part:
    """Return the page of a list that the address names, the newest first."""
    asked = {"order_by": "created_at_desc"}
    if instance_id is not None:
        asked["instance_id"] = instance_id
    page = page_number(visit.request, "page")
    return await reading.part(visit.api, visit.rdb(kind.path), kind.items, page, **asked)


async def show_all(visit: Visit, kind: Kind, copies: Part, **values: object) -> Response:
    """Return the page of a region's copies: also of those whose instances are gone."""
    moving = await frame.moving(visit, copies.items)
    failures = await frame.failures(visit, copies.items)
    return visit.render(
        "copies.html",
        live="parts/copies.html",
        kind=kind,
        copies=copies,
        failures=failures,
        page=visit.path(kind.path),
        is_of_region=True,
        **moving,
        **values,
    )


async def show_of_instance(
    visit: Visit, kind: Kind, instance: Json, copies: Part, **values: object
) -> Response:
    """Return the page of an instance's copies."""
    return await frame.show(
        visit,
        kind.path,
        instance,
        live="parts/copies.html",
        parts=copies.items,
        kind=kind,
        copies=copies,
        failures=await frame.failures(visit, copies.items),
        page=visit.path("instances", instance["id"], kind.path),
        is_of_region=False,
        **values,
    )


def add_changes(pages: Pages, kind: Kind, places: Places) -> None:
    """Let copies be renamed, kept longer or shorter, and deleted wherever they are shown."""

    async def update(visit: Visit, form: Form) -> Done:
        asked: Json = {"name": form.get("name", "")}
        if (day := form.get("expires_at", "")) != form.get("kept_until", ""):
            asked["expires_at"] = end_of_day(day)
        await visit.api.send("PATCH", _path(visit, kind, form), asked)
        return Done(f"The {kind.name} {asked['name']} was changed.")

    async def delete(visit: Visit, form: Form) -> Done:
        await visit.api.send("DELETE", _path(visit, kind, form))
        return Done(f"The {kind.name} is being deleted.")

    for path, page in places.items():
        pages.post(f"{path}/update", page=page)(update)
        pages.post(f"{path}/delete", page=page)(delete)


def _path(visit: Visit, kind: Kind, form: Form) -> str:
    return visit.rdb(kind.path, reading.id_of(form, "copy_id"))


def end_of_day(date: str | None) -> str | None:
    """Return the last moment of a day that a form names; what is no day the API refuses."""
    return f"{date}T23:59:59Z" if date else None
