"""Instances: create, list, get, update, delete, restart; their certificate."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from openrdb.api import wire
from openrdb.api.auth import CurrentPrincipal
from openrdb.api.common import (
    PREFIX,
    Backend,
    CurrentBackend,
    CurrentPage,
    OptionalId,
    OptionalText,
)
from openrdb.api.instance_creation import (
    add_first_endpoints,
    administrator,
    asked_project,
    new_instance,
)
from openrdb.api.instance_view import show
from openrdb.config import Region
from openrdb.errors import NotFound, PreconditionFailed
from openrdb.state import access, instances, operations, statuses
from openrdb.state.models import Instance, Operation, now
from openrdb.state.scope import Principal

router = APIRouter(prefix=PREFIX)

_RENEWAL_WAIT = 10.0
"""Seconds that the renewal of a certificate is waited for; then 204 says that it will come."""


@router.post("/instances")
def create_instance(
    region: Region,
    body: wire.CreateInstance,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.Instance:
    """Record a new instance and its creation in one transaction, then begin."""
    with backend.database.write() as session:
        asked = asked_project(body, principal)
        project = access.project_for_creation(session, principal, asked, "create", "instance")
        instance = new_instance(body, region, project, backend)
        first_user = administrator(body, instance.engine)
        settings = backend.settings
        instances.place(
            session,
            instance,
            version=backend.offers.installed[instance.engine],
            node_ports=settings.node_ports,
            uids=settings.instance_uids if os.geteuid() == 0 else None,
        )
        session.add(instance)
        add_first_endpoints(session, instance, body, principal, settings)
        backend.secrets.create(instance)
        operation = operations.record(
            session, instance, "create_instance", {"administrator": first_user}
        )
    backend.start(operation.id)
    return show(instance, backend.offers)


@router.get("/instances")
def list_instances(
    region: Region,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
    tags: Annotated[list[wire.TagText] | None, Query(max_length=64)] = None,
    name: OptionalText = None,
    order_by: wire.InstancesOrder = "created_at_asc",
    organization_id: OptionalId = None,
    project_id: OptionalId = None,
    has_maintenances: bool | None = None,
) -> wire.Instances:
    """A page of the instances that the key may see; `name` is a part of theirs, tags all match."""
    filters = instances.Filters(
        organization_id=organization_id,
        project_id=project_id,
        name=name,
        tags=[tag for tag in tags or [] if tag],
        has_maintenances=has_maintenances,
    )
    with backend.database.read() as session:
        found, total = instances.page(session, region, principal, filters, order_by, page)
        shown = [show(instance, backend.offers) for instance in found]
    return wire.Instances(instances=shown, total_count=total)


@router.get("/instances/{instance_id}")
async def get_instance(
    region: Region, instance_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.Instance:
    """One instance; while it is in transition the answer is held for a moment."""

    def read() -> Instance:
        with backend.database.read() as session:
            return instances.get(session, region, instance_id, principal)

    deadline = time.monotonic() + backend.settings.hold
    with backend.changes.of(instance_id) as change:
        while True:
            instance = await run_in_threadpool(read)
            left = deadline - time.monotonic()
            if instance.status not in statuses.TRANSIENT or left <= 0:
                return show(instance, backend.offers)
            await change.wait(left)


@router.patch("/instances/{instance_id}")
def update_instance(
    region: Region,
    instance_id: UUID,
    body: wire.UpdateInstance,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.Instance:
    """Change what needs no node at once; a new logs policy is applied by an operation."""
    operation: Operation | None = None
    with backend.database.write() as session:
        instance = instances.get(session, region, instance_id, principal)
        statuses.require(instance, "update")
        _update_attributes(session, instance, body)
        if _update_logs_policy(instance, body.logs_policy):
            statuses.require(instance, "configure")
            statuses.move(instance, "configuring")
            operation = operations.record(session, instance, "apply_logs_policy")
    if operation is not None:
        backend.start(operation.id)
    return show(instance, backend.offers)


def _update_attributes(session: Session, instance: Instance, body: wire.UpdateInstance) -> None:
    if body.name:
        instance.name = body.name
    if body.tags is not None:
        instances.retag(session, instance, body.tags)
    if body.backup_same_region is not None:
        instance.backup_same_region = body.backup_same_region
    if body.backup_schedule_retention is not None:
        instance.backup_retention = body.backup_schedule_retention
    if body.backup_schedule_start_hour is not None:
        instance.backup_start_hour = body.backup_schedule_start_hour
    _update_schedule(instance, body.is_backup_schedule_disabled, body.backup_schedule_frequency)


def _update_schedule(instance: Instance, disabled: bool | None, frequency: int | None) -> None:
    """Change when backups are made; a rhythm given, be it the old one, counts from now on."""
    enabled_again = instance.backup_disabled and disabled is False
    if disabled is not None:
        instance.backup_disabled = disabled
    if enabled_again or frequency is not None:
        instance.backup_frequency = frequency or instance.backup_frequency
        instance.backup_next_run_at = now() + timedelta(hours=instance.backup_frequency)


def _update_logs_policy(instance: Instance, policy: wire.LogsPolicyRequest | None) -> bool:
    """Whether the policy changed."""
    if policy is None:
        return False
    old = (instance.logs_max_age_retention, instance.logs_total_disk_retention)
    asked = policy.model_dump(exclude_unset=True)
    new = (asked.get("max_age_retention", old[0]), asked.get("total_disk_retention", old[1]))
    instance.logs_max_age_retention, instance.logs_total_disk_retention = new
    return new != old


@router.delete("/instances/{instance_id}")
def delete_instance(
    region: Region, instance_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.Instance:
    instance = _begin(backend, principal, region, instance_id, "delete", "deleting")
    return show(instance, backend.offers)


@router.post("/instances/{instance_id}/restart")
def restart_instance(
    region: Region, instance_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.Instance:
    instance = _begin(backend, principal, region, instance_id, "restart", "restarting", _check_made)
    return show(instance, backend.offers)


def _check_made(instance: Instance) -> dict[str, Any]:
    """Raise PreconditionFailed where the creation itself failed: there is nothing to restart."""
    if instance.first_ready_at is None:
        raise PreconditionFailed("resource_not_usable", "the instance was never made; delete it")
    return {}


_KINDS = {
    "delete": "delete_instance",
    "restart": "restart_instance",
    "renew_certificate": "renew_certificate",
}


def _begin(
    backend: Backend,
    principal: Principal,
    region: Region,
    instance_id: UUID,
    request: str,
    status: str,
    parameters: Callable[[Instance], dict[str, Any]] = lambda _: {},
) -> Instance:
    """Move an instance to the status of an operation and record that, then begin it."""
    with backend.database.write() as session:
        instance = instances.get(session, region, instance_id, principal)
        statuses.require(instance, request)
        statuses.move(instance, status)
        operation = operations.record(session, instance, _KINDS[request], parameters(instance))
    backend.start(operation.id)
    return instance


@router.get("/instances/{instance_id}/certificate")
def get_instance_certificate(
    region: Region, instance_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.Certificate:
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal)
    return wire.Certificate(
        name="ssl_certificate",
        content_type="application/x-pem-file",
        content=base64.b64encode((instance.certificate or "").encode()).decode(),
    )


@router.post("/instances/{instance_id}/renew-certificate", status_code=204)
async def renew_instance_certificate(
    region: Region, instance_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> None:
    """Answers when the new certificate is in force: clients read it next, and find `ready`."""

    def begin() -> None:
        _begin(
            backend,
            principal,
            region,
            instance_id,
            "renew_certificate",
            "configuring",
            lambda instance: {"certificate": instance.certificate},
        )

    def status() -> str:
        with backend.database.read() as session:
            return instances.get(session, region, instance_id, principal).status

    with backend.changes.of(instance_id) as change:
        await run_in_threadpool(begin)
        deadline = asyncio.get_running_loop().time() + _RENEWAL_WAIT
        try:
            while await run_in_threadpool(status) == "configuring":
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or not await change.wait(left):
                    return
        except NotFound:
            return
