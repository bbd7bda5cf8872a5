"""An instance at a glance, and how to connect to it."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from uuid import UUID

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.client import Json
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit
from openrdb.engines import rules_of
from openrdb.engines.base import Login
from openrdb.engines.names import FIRST_DATABASE

pages = Pages()

_NO_USER = "USER"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Lines:
    """How to connect to one endpoint."""

    command: str
    url: str
    has_user: bool
    """Whether they name a user; none is known of what was recovered to a moment."""


@pages.get(INSTANCE)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    return await frame.show(
        visit,
        "",
        instance,
        live="parts/overview.html",
        lines=await lines(visit, instance, instance["endpoints"]),
        certificate=certificate_name(instance),
    )


async def lines(visit: Visit, instance: Json, endpoints: list[Json]) -> dict[str, Lines]:
    """Return how an administrator connects to each endpoint of an instance, by the endpoints' ids."""
    rules = rules_of(instance["engine"])
    user = await visit.in_state(reading.administrator, UUID(instance["id"]))
    said = {}
    for one in endpoints:
        name = certificate_name(instance)
        login = Login(one["ip"], one["port"], user or _NO_USER, FIRST_DATABASE, name)
        said[one["id"]] = Lines(rules.client_command(login), rules.url(login), bool(user))
    return said


def certificate_name(instance: Json) -> str:
    """Return what the file of an instance's certificate is called."""
    return f"{_NOT_IN_NAMES.sub('-', instance['name']).strip('-.') or 'instance'}.pem"


@pages.get(f"{INSTANCE}/certificate")
async def download_certificate(visit: Visit) -> Response:
    instance = await visit.instance()
    certificate = await visit.api.get(visit.of_instance("certificate"))
    name = certificate_name(instance)
    return Response(
        base64.b64decode(certificate["content"]),
        media_type="application/x-pem-file",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@pages.post(f"{INSTANCE}/restart", page=show)
async def restart(visit: Visit, _: Form) -> Done:
    await visit.api.send("POST", visit.of_instance("restart"))
    return Done("The instance is restarting.")


@pages.post(f"{INSTANCE}/apply-maintenance", page=show)
async def apply_maintenance(visit: Visit, _: Form) -> Done:
    await visit.api.send("POST", visit.of_instance("apply-maintenance"))
    return Done("The maintenance has begun.")
