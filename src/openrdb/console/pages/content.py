"""Users, databases and privileges."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.client import Json, segment
from openrdb.console.reading import Part
from openrdb.console.refusals import Refused
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit, page_number

pages = Pages()

PERMISSIONS = ("none", "readonly", "readwrite", "all")
_PATH = f"{INSTANCE}/content"


async def listed(visit: Visit, name: str, **filters: str) -> Part:
    """Return the page of a list of the engine's that the address names: `?users=2`."""
    number = page_number(visit.request, name)
    try:
        return await reading.part(visit.api, visit.of_instance(name), name, number, **filters)
    except Refused as refused:
        if refused.is_signed_out:
            raise
        return Part([], number, refusal=str(refused))


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    query = visit.request.query_params
    chosen = {name: query[name] for name in ("user_name", "database_name") if query.get(name)}
    users, databases, privileges = await asyncio.gather(
        listed(visit, "users"), listed(visit, "databases"), listed(visit, "privileges", **chosen)
    )
    return await frame.show(
        visit,
        "content",
        instance,
        users=users,
        databases=databases,
        privileges=privileges,
        permissions=PERMISSIONS,
        chosen=chosen,
        filters=f"&{urlencode(chosen)}" if chosen else "",
    )


@pages.post(f"{_PATH}/create-user", page=show)
async def create_user(visit: Visit, form: Form) -> Done:
    asked: Json = {"name": form.get("name", ""), "password": form.get("password", "")}
    asked |= {"is_admin": "is_admin" in form}
    await visit.api.send("POST", visit.of_instance("users"), asked)
    return Done(f"The user {asked['name']} was created.")


@pages.post(f"{_PATH}/update-user", page=show)
async def update_user(visit: Visit, form: Form) -> Done:
    asked: Json = {"is_admin": "is_admin" in form}
    if password := form.get("password"):
        asked["password"] = password
    name = form.get("name", "")
    await visit.api.send("PATCH", visit.of_instance("users", segment(name)), asked)
    return Done(f"The user {name} was changed.")


@pages.post(f"{_PATH}/create-database", page=show)
async def create_database(visit: Visit, form: Form) -> Done:
    name = form.get("name", "")
    await visit.api.send("POST", visit.of_instance("databases"), {"name": name})
    return Done(f"The database {name} was created.")


def _deletion(kind: str) -> None:
    """Add the form that deletes a user, or a database."""

    async def delete(visit: Visit, form: Form) -> Done:
        name = form.get("name", "")
        await visit.api.send("DELETE", visit.of_instance(f"{kind}s", segment(name)))
        return Done(f"The {kind} {name} was deleted.")

    pages.post(f"{_PATH}/delete-{kind}", page=show)(delete)


_deletion("user")
_deletion("database")


@pages.post(f"{_PATH}/set-privilege", page=show)
async def set_privilege(visit: Visit, form: Form) -> Done:
    asked = {name: form.get(name, "") for name in ("user_name", "database_name", "permission")}
    await visit.api.send("PUT", visit.of_instance("privileges"), asked)
    user, database, permission = asked.values()
    return Done(f"{user} has {permission} on {database}.")
