"""Logs of instances: what there is, copies to download, and removal."""

from __future__ import annotations

from datetime import datetime
from typing import cast
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session

from openrdb.api import wire_logs as wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import PREFIX, CurrentBackend, allowing, require_made, the_instance
from openrdb.api.engine_calls import Kind
from openrdb.config import Region
from openrdb.errors import InvalidArguments
from openrdb.operations.logs.listed import logs_of
from openrdb.operations.logs.prepare import PrepareLogs
from openrdb.operations.logs.purge import PurgeLogs
from openrdb.state import instance_logs, instances, quotas
from openrdb.state.models import InstanceLog, now
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses import instance_log as statuses
from openrdb.state.statuses.instance import InstanceRequest

router = APIRouter(prefix=PREFIX)


def show(log: InstanceLog) -> wire.InstanceLog:
    return wire.InstanceLog(
        id=log.id,
        status=cast(wire.InstanceLogStatus, log.status),
        node_name=log.node_name,
        download_url=log.download_url,
        expires_at=log.expires_at,
        created_at=log.created_at,
        region=cast(Region, log.region),
    )


@router.post("/instances/{instance_id}/prepare-logs")
def prepare_instance_logs(
    region: Region,
    instance_id: UUID,
    body: wire.PrepareLogs,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.InstanceLogs:
    """Begin to copy what each of the instance's nodes, its read replicas' too, has logged on whole days
    in UTC."""
    check_dates(body.start_date, body.end_date)
    first, last = (one.date() if one else None for one in (body.start_date, body.end_date))
    rows: list[InstanceLog] = []

    def add(session: Session) -> InstanceLog:
        instance = instances.get(session, region, instance_id, caller.principal)
        instance_statuses.require(instance, InstanceRequest.PREPARE_LOGS)
        require_made(instance)
        quotas.require_logs(session, instance.id, len(instance.every_node))
        moment = now()
        rows.extend(
            instance_logs.new(instance, node, first, last, moment) for node in instance.every_node
        )
        session.add_all(rows)
        return rows[0]

    def prepare(_: Session, log: InstanceLog) -> PrepareLogs:
        return PrepareLogs(log.id, tuple(one.id for one in rows[1:]))

    backend.begin(caller, add, None, prepare)
    return wire.InstanceLogs(instance_logs=[show(log) for log in rows])


def check_dates(start: datetime | None, end: datetime | None) -> None:
    """Raise InvalidArguments (`end_date`) if an end is before its start."""
    if start is not None and end is not None and end < start:
        raise InvalidArguments(("end_date", "constraint", "must not be before start_date"))


@router.get("/instances/{instance_id}/logs")
def list_instance_logs(
    region: Region,
    instance_id: UUID,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    order_by: wire.LogsOrder = "created_at_asc",
) -> wire.InstanceLogs:
    """Return the copies that were prepared and have not expired."""
    newest_first = order_by == "created_at_desc"
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal, whole=False)
        found = instance_logs.of_instance(session, instance.id, newest_first=newest_first)
        return wire.InstanceLogs(instance_logs=[show(log) for log in found])


@router.get("/logs/{instance_log_id}")
async def get_instance_log(
    region: Region, instance_log_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.InstanceLog:
    """Return a copy; while it is being made the answer is held for a moment, by no thread."""

    def read() -> tuple[str, wire.InstanceLog]:
        with backend.database.read() as session:
            log = instance_logs.get(session, region, instance_log_id, principal)
            return log.status, show(log)

    return await backend.held(principal, instance_log_id, read, statuses.TRANSIENT)


@router.get("/instances/{instance_id}/logs-details")
async def list_instance_logs_details(
    region: Region, instance_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.LogDetails:
    """Return the logs in order of their beginnings (1383). A name that several nodes have is listed
    once, with the sum of their sizes."""
    request = InstanceRequest.PREPARE_LOGS
    instance = await allowing(backend, caller, region, instance_id, request)

    def find() -> wire.LogDetails:
        files = logs_of(backend.hosts, instance, backend.secrets)
        sizes: dict[str, int] = {}
        for file in sorted(files, key=lambda one: (one.begun, one.name)):
            sizes[file.name] = sizes.get(file.name, 0) + file.size
        return wire.LogDetails(
            details=[wire.LogDetail(log_name=name, size=size) for name, size in sizes.items()]
        )

    return await backend.engine_calls.run(instance, Kind.READ, find)


@router.post("/instances/{instance_id}/purge-logs", status_code=204)
async def purge_instance_logs(
    region: Region,
    instance_id: UUID,
    body: wire.PurgeLogs,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> None:
    """Remove a log, or all of them, and return when that is done."""
    find, request = the_instance(region, instance_id, caller), PurgeLogs.request

    def perform() -> None:
        operation = PurgeLogs(instance.id, body.log_name)
        backend.begin(caller, find, request, lambda _, __: operation, wait=True)

    instance = await allowing(backend, caller, region, instance_id, request)
    await backend.engine_calls.run(instance, Kind.CHANGE, perform)
