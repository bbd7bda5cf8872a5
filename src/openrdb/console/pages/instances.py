"""All instances of a region."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from starlette.responses import Response

from openrdb.config import REGIONS
from openrdb.console import frame, reading
from openrdb.console.client import Json
from openrdb.console.routing import Pages
from openrdb.console.visits import Visit, page_number

pages = Pages()


@pages.get("/{region}/instances")
async def show(visit: Visit) -> Response:
    query = visit.request.query_params
    page, name, tags = page_number(visit.request, "page"), query.get("name", ""), _tags(visit)
    filters: Json = {"name": name, "tags": tags}
    if has_maintenances := query.get("has_maintenances") == "true":
        filters["has_maintenances"] = "true"
    filters = {key: value for key, value in filters.items() if value}
    asked = {**filters, "order_by": "created_at_desc"}
    found, projects, counts, maintained = await asyncio.gather(
        reading.part(visit.api, visit.rdb("instances"), "instances", page, **asked),
        reading.projects(visit.api),
        _counts(visit),
        _count(visit, visit.region, has_maintenances="true"),
    )
    failed = [one["id"] for one in found.items if reading.is_in_trouble(one)]
    reasons = await frame.reasons(visit, failed)
    return visit.render(
        "instances.html",
        live="parts/instances.html",
        found=found,
        reasons=reasons,
        projects=projects,
        counts=counts,
        maintained=maintained,
        name=name,
        tags=tags,
        has_maintenances=has_maintenances,
        is_filtered=bool(filters),
        filters=f"&{urlencode(filters, doseq=True)}" if filters else "",
        **await frame.moving(visit, found.items),
    )


def _tags(visit: Visit) -> list[str]:
    return [one for one in visit.request.query_params.getlist("tags") if one]


async def _count(visit: Visit, region: str, **filters: str) -> int:
    """Return how many instances a region has."""
    asked = {"page_size": 1, **filters}
    answer = await visit.api.get(f"/rdb/v1/regions/{region}/instances", asked)
    return int(answer["total_count"])


async def _counts(visit: Visit) -> dict[str, int]:
    """Return how many instances each region has."""
    found = await asyncio.gather(*(_count(visit, region) for region in REGIONS))
    return dict(zip(REGIONS, found, strict=True))
