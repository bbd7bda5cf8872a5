"""Changes of an instance itself: its name, its size, its version, and its end."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.client import Json
from openrdb.console.refusals import Refused
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_PATH = f"{INSTANCE}/manage"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    node_types = await reading.node_types(visit.api, visit.region)
    kind = next((one for one in node_types if one["name"] == instance["node_type"]), None)
    versions = instance["upgradable_version"]
    return await frame.show(
        visit,
        "manage",
        instance,
        live="parts/shape.html",
        node_types=node_types,
        volume_types=kind["available_volume_types"] if kind else [],
        minors=[one for one in versions if one["name"] == instance["engine"]],
        majors=[one for one in versions if one["name"] != instance["engine"]],
    )


@pages.post(f"{_PATH}/rename", page=show)
async def rename(visit: Visit, form: Form) -> Done:
    asked = {"name": form.get("name", ""), "tags": reading.listed(form.get("tags", ""))}
    await visit.api.send("PATCH", visit.of_instance(), asked)
    return Done("Name and tags were changed.")


def _upgrade(action: str, asked: Callable[[Form], Json], notice: str) -> None:
    """Add a form that asks for one of the changes of the API's `upgrade`."""

    async def upgrade(visit: Visit, form: Form) -> Done:
        made = await visit.api.send("POST", visit.of_instance("upgrade"), asked(form))
        is_another = made["id"] != str(visit.instance_id)  # as with another major version
        return Done(notice, visit.path("instances", made["id"]) if is_another else None)

    pages.post(f"{_PATH}/{action}", page=show)(upgrade)


_upgrade(
    "node-type",
    lambda form: {"node_type": form.get("node_type", "")},
    "The node type is being changed.",
)
_upgrade(
    "volume",
    lambda form: {"volume_size": reading.gigabytes(form.get("volume_size", ""))},
    "The volume is being enlarged.",
)
_upgrade(
    "volume-type",
    lambda form: {"volume_type": form.get("volume_type", "")},
    "The volume is being moved.",
)
_upgrade("encryption", lambda _: {"enable_encryption": True}, "The volume is being encrypted.")
_upgrade(
    "availability",
    lambda form: {
        "enable_ha": True,
        "high_availability_mode": form.get("high_availability_mode") or None,
    },
    "A standby is being made.",
)
_upgrade(
    "minor-version",
    lambda form: {"upgradable_version_id": form.get("upgradable_version_id", "")},
    "The newer version is being installed.",
)
_upgrade(
    "major-version",
    lambda form: {
        "major_upgrade_workflow": {
            "upgradable_version_id": form.get("upgradable_version_id", ""),
            "with_endpoints": "with_endpoints" in form,
        }
    },
    "This is the new instance. The former one stays until you delete it.",
)


@pages.post(f"{_PATH}/certificate", page=show)
async def renew_certificate(visit: Visit, _: Form) -> Done:
    await visit.api.send("POST", visit.of_instance("renew-certificate"))
    return Done("The certificate was renewed: download it again for your clients.")


@pages.post(f"{_PATH}/delete", page=show)
async def delete(visit: Visit, form: Form) -> Done:
    instance = await visit.instance()
    if form.get("confirmed_name") != instance["name"]:
        detail = {
            "argument_name": "confirmed_name",
            "help_message": f"type the name of the instance to delete it: {instance['name']}",
        }
        raise Refused(400, {"type": "invalid_arguments", "details": [detail]})
    await visit.api.send("DELETE", visit.of_instance())
    return Done(f"{instance['name']} is being deleted.", visit.path("instances"))
