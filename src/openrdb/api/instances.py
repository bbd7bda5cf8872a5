"""Instances: create, list, get, update, delete, restart; their certificate."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from openrdb.api import wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import (
    PREFIX,
    CurrentBackend,
    CurrentPage,
    OptionalId,
    OptionalText,
    require_made,
    the_instance,
)
from openrdb.api.instance_creation import (
    add_first_endpoints,
    administrator,
    asked_project,
    check_quotas,
    check_room,
    new_instance,
    pool_of,
)
from openrdb.api.instance_view import show
from openrdb.config import Region
from openrdb.errors import NotFound
from openrdb.operations.instances.apply_logs_policy import ApplyLogsPolicy
from openrdb.operations.instances.create import CreateInstance
from openrdb.operations.instances.delete import DeleteInstance
from openrdb.operations.instances.renew_certificate import RenewCertificate
from openrdb.operations.instances.restart import RestartInstance
from openrdb.operations.last_known import at_birth
from openrdb.state import access, backup_schedule, copies, instances, known
from openrdb.state.models import DatabaseBackup, Instance, Snapshot, now
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

router = APIRouter(prefix=PREFIX)

_RENEWAL_WAIT = 10.0
"""Seconds that the renewal of a certificate is waited for; then 204 says that it will come."""


@router.post("/instances")
def create_instance(
    region: Region,
    body: wire.CreateInstance,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Instance:
    """Record a new instance and its creation in one transaction, then begin."""
    principal, settings = caller.principal, backend.settings
    asked = asked_project(body, principal)
    with backend.database.read() as session:
        project = access.project_for_creation(session, principal, asked, "create", "instance")
    instance = new_instance(body, region, project, backend)
    first_user = administrator(body, instance.engine)
    pool = pool_of(
        "encryption.enabled", settings, instance.volume_type, encrypted=instance.encryption
    )
    check_room(backend, pool)

    def add(session: Session) -> Instance:
        # The project may have been deleted since.
        access.project_for_creation(session, principal, asked, "create", "instance")
        check_quotas(session, instance, settings, pool)
        instances.place(
            session,
            instance,
            version=backend.offers.installed[instance.engine],
            pool=pool,
            node_ports=settings.node_ports,
            uids=settings.instance_uids if os.geteuid() == 0 else None,
        )
        instance.known = known.row_of(at_birth(body.user_name), instance.id)
        session.add(instance)
        add_first_endpoints(session, instance, body, principal, settings)
        backend.secrets.create(instance)
        return instance

    backend.begin(caller, add, None, lambda _, made: CreateInstance(made.id, first_user))
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
    """Return a page of what the key may see; `name` is a part of the names, tags all match."""
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
    """Return an instance; while it is in transition the answer is held for a moment, by no thread."""

    def read() -> tuple[str, wire.Instance]:
        # Shown at once: an instance's rows may be many, and would live as long as the answer is held.
        with backend.database.read() as session:
            instance = instances.get(session, region, instance_id, principal)
            return instance.status, show(instance, backend.offers)

    return await backend.held(principal, instance_id, read, statuses.PASSING)


@router.patch("/instances/{instance_id}")
def update_instance(
    region: Region,
    instance_id: UUID,
    body: wire.UpdateInstance,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Instance:
    """Change what needs no node at once; a new logs policy is applied by an operation."""

    def prepare(session: Session, instance: Instance) -> ApplyLogsPolicy | None:
        _update_attributes(session, instance, body)
        changed = _update_logs_policy(instance, body.logs_policy)
        if instance.status == InstanceStatus.ERROR:
            return None  # it is in force once the instance works again
        return ApplyLogsPolicy(instance.id) if changed else None

    find = the_instance(region, instance_id, caller)
    begun = backend.begin(caller, find, InstanceRequest.UPDATE, prepare)
    return show(begun.subject, backend.offers)


def _update_attributes(session: Session, instance: Instance, body: wire.UpdateInstance) -> None:
    if body.name:
        instance.name = body.name
        copies.rename_instance(session, DatabaseBackup, instance.id, body.name)
        copies.rename_instance(session, Snapshot, instance.id, body.name)
    if body.tags is not None:
        instances.retag(session, instance, body.tags)
    if body.backup_same_region is not None:
        instance.backup_same_region = body.backup_same_region
    if body.backup_schedule_retention is not None:
        instance.backup_retention = body.backup_schedule_retention
    _update_schedule(instance, body)


def _update_schedule(instance: Instance, body: wire.UpdateInstance) -> None:
    """Change when backups are made; a rhythm that is given, even the old one, counts from now on."""
    disabled, frequency = body.is_backup_schedule_disabled, body.backup_schedule_frequency
    start_hour = body.backup_schedule_start_hour
    enabled_again = instance.backup_disabled and disabled is False
    if disabled is not None:
        instance.backup_disabled = disabled
    if enabled_again or frequency is not None or start_hour is not None:
        instance.backup_frequency = frequency or instance.backup_frequency
        if start_hour is not None:
            instance.backup_start_hour = start_hour
        backup_schedule.schedule(instance, now())


def _update_logs_policy(instance: Instance, policy: wire.LogsPolicyRequest | None) -> bool:
    """Change the policy; return whether it is another one."""
    if policy is None:
        return False
    old = (instance.logs_max_age_retention, instance.logs_total_disk_retention)
    asked = policy.model_dump(exclude_unset=True)
    new = (asked.get("max_age_retention", old[0]), asked.get("total_disk_retention", old[1]))
    instance.logs_max_age_retention, instance.logs_total_disk_retention = new
    return new != old


@router.delete("/instances/{instance_id}")
def delete_instance(
    region: Region, instance_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.Instance:
    """Delete an instance with its read replicas."""

    def prepare(_: Session, instance: Instance) -> DeleteInstance:
        return DeleteInstance(instance.id, tuple(one.id for one in instance.read_replicas))

    find = the_instance(region, instance_id, caller)
    begun = backend.begin(caller, find, DeleteInstance.request, prepare)
    return show(begun.subject, backend.offers)


@router.post("/instances/{instance_id}/restart")
def restart_instance(
    region: Region, instance_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.Instance:
    """Restart an instance. Refused if its creation failed: there is nothing to restart."""

    def prepare(_: Session, instance: Instance) -> RestartInstance:
        require_made(instance)
        return RestartInstance(instance.id)

    find = the_instance(region, instance_id, caller)
    begun = backend.begin(caller, find, RestartInstance.request, prepare)
    return show(begun.subject, backend.offers)


@router.get("/instances/{instance_id}/certificate")
def get_instance_certificate(
    region: Region, instance_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.Certificate:
    """Return the certificate of the instance's authority, which clients verify its server by."""
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal)
    return wire.Certificate(
        name="ssl_certificate",
        content_type="application/x-pem-file",
        content=base64.b64encode((instance.certificate or "").encode()).decode(),
    )


@router.post("/instances/{instance_id}/renew-certificate", status_code=204)
async def renew_instance_certificate(
    region: Region, instance_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> None:
    """Renew the certificate and return when it is in use: clients read it next, and find `ready`."""
    find = the_instance(region, instance_id, caller)

    def begin() -> None:
        backend.begin(
            caller,
            find,
            RenewCertificate.request,
            lambda _, instance: RenewCertificate(instance.id, instance.certificate),
        )

    def is_configuring() -> bool:
        with backend.database.read() as session:
            return find(session).status == InstanceStatus.CONFIGURING

    with backend.changes.of(instance_id) as change:
        await run_in_threadpool(begin)
        deadline = asyncio.get_running_loop().time() + _RENEWAL_WAIT
        try:
            while await run_in_threadpool(is_configuring):
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or not await change.wait(left):
                    return
        except NotFound:
            return
