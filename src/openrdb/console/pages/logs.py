"""An instance's logs."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from openrdb.console import frame, reading
from openrdb.console.client import Json
from openrdb.console.formats import GB
from openrdb.console.pages.copies import end_of_day
from openrdb.console.refusals import Refused
from openrdb.console.routing import INSTANCE, Done, Pages
from openrdb.console.visits import Form, Visit

pages = Pages()

_PATH = f"{INSTANCE}/logs"


@pages.get(_PATH)
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    answer, details = await asyncio.gather(
        visit.api.get(visit.of_instance("logs"), {"order_by": "created_at_desc"}), _details(visit)
    )
    copies = answer["instance_logs"]
    policy = instance["logs_policy"]
    return await frame.show(
        visit,
        "logs",
        instance,
        live="parts/logs.html",
        parts=copies,
        copies=copies,
        failures=await frame.failures(visit, copies),
        details=details,
        policy=policy,
        disk=(policy["total_disk_retention"] or 0) / GB,
    )


async def _details(visit: Visit) -> list[Json] | str:
    """Return the instance's logs, newest first, or the reason why they cannot be read now."""
    try:
        answer = await visit.api.get(visit.of_instance("logs-details"))
    except Refused as refused:
        if refused.is_signed_out:
            raise
        return str(refused)
    return list(reversed(answer["details"]))


@pages.post(f"{_PATH}/prepare", page=show)
async def prepare(visit: Visit, form: Form) -> Done:
    first, last = form.get("start_date"), form.get("end_date")
    asked = {"start_date": f"{first}T00:00:00Z" if first else None, "end_date": end_of_day(last)}
    await visit.api.send("POST", visit.of_instance("prepare-logs"), asked)
    return Done("The logs are being copied.")


@pages.post(f"{_PATH}/purge", page=show)
async def purge(visit: Visit, form: Form) -> Done:
    name = form.get("log_name") or None
    await visit.api.send("POST", visit.of_instance("purge-logs"), {"log_name": name})
    return Done(f"The log {name} was deleted." if name else "All logs were deleted.")


@pages.post(f"{_PATH}/policy", page=show)
async def set_policy(visit: Visit, form: Form) -> Done:
    asked = {
        "max_age_retention": reading.number(form.get("max_age_retention", "")),
        "total_disk_retention": reading.gigabytes(form.get("total_disk_retention", "")),
    }
    await visit.api.send("PATCH", visit.of_instance(), {"logs_policy": asked})
    return Done("The policy was changed.")
