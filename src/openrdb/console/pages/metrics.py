"""What an instance has used, as charts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.responses import Response

from openrdb.console import frame
from openrdb.console.client import Json
from openrdb.console.refusals import Refused
from openrdb.console.routing import INSTANCE, Pages
from openrdb.console.visits import Visit

pages = Pages()

_SPANS: Final = {
    "1h": ("Hour", timedelta(hours=1)),
    "24h": ("Day", timedelta(days=1)),
    "7d": ("Week", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
}


@pages.get(f"{INSTANCE}/metrics")
async def show(visit: Visit) -> Response:
    instance = await visit.instance()
    asked = visit.request.query_params.get("span", "1h")
    span = asked if asked in _SPANS else "1h"
    series, refusal = await _series(visit, _SPANS[span][1])
    return await frame.show(
        visit,
        "metrics",
        instance,
        live="parts/metrics.html",
        series=series,
        refusal=refusal,
        span=span,
        spans={name: title for name, (title, _) in _SPANS.items()},
    )


async def _series(visit: Visit, span: timedelta) -> tuple[list[Json], str | None]:
    """Return the time series of the last while, or why they cannot be read now."""
    end = datetime.now(UTC)
    asked = {"start_date": (end - span).isoformat(), "end_date": end.isoformat()}
    try:
        answer = await visit.api.get(visit.of_instance("metrics"), asked)
    except Refused as refused:
        if refused.is_signed_out:
            raise
        return [], str(refused)
    return answer["timeseries"], None
