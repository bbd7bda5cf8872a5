"""Metrics of instances: what their nodes take and do, as time series."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from fastapi import APIRouter, Request

from openrdb.api import wire_metrics as wire
from openrdb.api.auth import CurrentPrincipal
from openrdb.api.common import PREFIX, CurrentBackend
from openrdb.api.engine_calls import Kind
from openrdb.api.instance_logs import check_dates
from openrdb.api.wire_backups import OptionalMoment
from openrdb.config import Region
from openrdb.errors import InvalidArguments
from openrdb.spec import METRICS, MetricSeries
from openrdb.state import instances
from openrdb.state.instance_logs import node_name
from openrdb.state.models import Instance, now

router = APIRouter(prefix=PREFIX)

_WINDOW = timedelta(hours=1)
"""What is answered of where no start is asked for: the hour before the end."""
_READS_OBJECTS = "scaleway-sdk-python/"
"""How the official Python SDK names itself. It reads points as objects, and the other official clients
as pairs, which is how the reference service writes them."""


@router.get("/instances/{instance_id}/metrics")
async def get_instance_metrics(
    request: Request,
    region: Region,
    instance_id: UUID,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    start_date: OptionalMoment = None,
    end_date: OptionalMoment = None,
    metric_name: str | None = None,
) -> wire.InstanceMetrics:
    """Return what was measured of each of the instance's nodes, its read replicas' too."""
    check_dates(start_date, end_date)
    if metric_name is not None and metric_name not in METRICS:
        help_message = f"must be one of {', '.join(METRICS)}"
        raise InvalidArguments(("metric_name", "constraint", help_message))
    names = [metric_name] if metric_name is not None else list(METRICS)
    end = end_date or now()
    start = start_date or _before(end)

    def load() -> Instance:
        with backend.database.read() as session:
            return instances.get(session, region, instance_id, principal)

    instance = await backend.reads.run(principal.access_key, load)

    def find() -> list[MetricSeries]:
        return [
            series
            for host_id in {node.host_id for node in instance.every_node}
            for series in backend.hosts[host_id].metrics(
                [node.id for node in instance.every_node if node.host_id == host_id],
                names,
                start,
                end,
            )
        ]

    found = await backend.engine_calls.run(instance, Kind.READ, find)
    as_objects = request.headers.get("user-agent", "").startswith(_READS_OBJECTS)
    return wire.InstanceMetrics(timeseries=list(_shown(instance, found, as_objects=as_objects)))


def _before(end: datetime) -> datetime:
    try:
        return end - _WINDOW
    except OverflowError:  # it is in the first hour of all
        return end


def _shown(
    instance: Instance, found: Collection[MetricSeries], *, as_objects: bool
) -> Iterator[wire.TimeSeries]:
    """Yield the series of each metric, the instance's own nodes before its replicas."""
    replicas = {replica.node_id: replica for replica in instance.read_replicas}
    by_node = {(series.name, series.node_id): series for series in found}
    for name in METRICS:
        for node in instance.every_node:
            if (series := by_node.get((name, node.id))) is None:
                continue
            metadata = {"node": node_name(node.id), "role": node.observed_role or node.role}
            if (replica := replicas.get(node.id)) is not None:
                metadata["read_replica_id"] = str(replica.id)
            points = [(datetime.fromtimestamp(at, UTC), value) for at, value in series.points]
            yield wire.TimeSeries(
                name=name,
                points=[wire.TimeSeriesPoint(timestamp=at, value=value) for at, value in points]
                if as_objects
                else points,
                metadata=metadata,
            )
