"""Snapshots: create, list, get, update, delete, create an instance; and clones of instances."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from openrdb.api import high_availability, wire
from openrdb.api import wire_snapshots as own_wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import (
    PREFIX,
    CurrentBackend,
    CurrentPage,
    OptionalId,
    OptionalText,
    allowing,
    check_expiry,
)
from openrdb.api.instance_copies import (
    Source,
    add_copy,
    check_larger,
    check_room_of_copy,
    require_copyable,
    source_of,
)
from openrdb.api.instance_creation import check_room
from openrdb.api.instance_view import show as show_instance
from openrdb.catalog.node_types import LOCAL
from openrdb.config import Region
from openrdb.errors import PreconditionFailed
from openrdb.operations.snapshots.create import CreateSnapshot
from openrdb.operations.snapshots.delete import DeleteSnapshot
from openrdb.operations.snapshots.restore import CloneInstance, RestoreSnapshot
from openrdb.state import copies, instances, quotas, snapshots
from openrdb.state.models import Instance, Snapshot
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses import snapshot as statuses
from openrdb.state.statuses.instance import InstanceRequest
from openrdb.state.statuses.snapshot import SnapshotRequest

router = APIRouter(prefix=PREFIX)


def show(snapshot: Snapshot) -> own_wire.Snapshot:
    return own_wire.Snapshot(
        id=snapshot.id,
        instance_id=snapshot.instance_id,
        name=snapshot.name,
        status=cast(own_wire.SnapshotStatus, snapshot.status),
        size=snapshot.size,
        expires_at=snapshot.expires_at,
        created_at=snapshot.created_at,
        updated_at=snapshot.updated_at,
        instance_name=snapshot.instance_name,
        node_type=snapshot.node_type,
        region=cast(Region, snapshot.region),
        volume_type=own_wire.SnapshotVolumeType(
            type=cast(wire.VolumeTypeName, snapshot.volume_type),
            class_=cast(wire.StorageClass, snapshot.volume_class),
        ),
    )


@router.post("/instances/{instance_id}/snapshots")
async def create_snapshot(
    region: Region,
    instance_id: UUID,
    body: own_wire.CreateSnapshot,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> own_wire.Snapshot:
    """Record a new snapshot, and begin to make it. Local volumes have none, as the reference says."""
    check_expiry(body.expires_at)

    def add(session: Session) -> Snapshot:
        instance = instances.get(session, region, instance_id, caller.principal)
        instance_statuses.require(instance, InstanceRequest.CREATE_SNAPSHOT)
        if instance.volume_type == LOCAL:
            help_message = (
                "snapshots are of block storage, and the instance's volume is a local one"
            )
            raise PreconditionFailed("volume_type", help_message)
        limit = backend.settings.quotas_of(instance.project_id).snapshots
        quotas.require_snapshot(session, instance.project_id, limit)
        snapshot = snapshots.new(session, instance, body.name, body.expires_at)
        backend.secrets.seal_for(snapshot, instance)
        session.add(snapshot)
        return snapshot

    def prepare(_: Session, snapshot: Snapshot) -> CreateSnapshot:
        return CreateSnapshot(snapshot.id, snapshot.instance_id)

    def begin() -> own_wire.Snapshot:
        check_room(backend, instances.pool_of(asked))
        return show(backend.begin(caller, add, None, prepare).subject)

    request = InstanceRequest.CREATE_SNAPSHOT
    asked = await allowing(backend, caller, region, instance_id, request)
    await require_copyable(backend, asked)
    return await run_in_threadpool(begin)


@router.get("/snapshots")
def list_snapshots(
    region: Region,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
    name: OptionalText = None,
    order_by: own_wire.SnapshotsOrder = "created_at_asc",
    instance_id: OptionalId = None,
    organization_id: OptionalId = None,
    project_id: OptionalId = None,
) -> own_wire.Snapshots:
    """Return a page of what the key may see; `name` is a part of the names."""
    filters = copies.Filters(organization_id, project_id, instance_id, name)
    with backend.database.read() as session:
        found, total = copies.page(session, Snapshot, region, principal, filters, order_by, page)
        shown = [show(snapshot) for snapshot in found]
    return own_wire.Snapshots(snapshots=shown, total_count=total)


@router.get("/snapshots/{snapshot_id}")
async def get_snapshot(
    region: Region, snapshot_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> own_wire.Snapshot:
    """Return a snapshot; while it is in transition the answer is held for a moment, by no thread."""

    def read() -> tuple[str, own_wire.Snapshot]:
        with backend.database.read() as session:
            snapshot = snapshots.get(session, region, snapshot_id, principal)
            return snapshot.status, show(snapshot)

    return await backend.held(principal, snapshot_id, read, statuses.TRANSIENT)


@router.patch("/snapshots/{snapshot_id}")
def update_snapshot(
    region: Region,
    snapshot_id: UUID,
    body: own_wire.UpdateSnapshot,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> own_wire.Snapshot:
    """Change name and expiry."""
    check_expiry(body.expires_at)

    def change(_: Session, snapshot: Snapshot) -> None:
        given = "expires_at" in body.model_fields_set
        copies.change(snapshot, body.name, body.expires_at, expiry_given=given)

    def find(session: Session) -> Snapshot:
        return snapshots.get(session, region, snapshot_id, caller.principal)

    return show(backend.begin(caller, find, SnapshotRequest.UPDATE, change).subject)


@router.delete("/snapshots/{snapshot_id}")
def delete_snapshot(
    region: Region, snapshot_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> own_wire.Snapshot:
    """Remove a snapshot for good."""

    def find(session: Session) -> Snapshot:
        return snapshots.get(session, region, snapshot_id, caller.principal)

    begun = backend.begin(
        caller, find, DeleteSnapshot.request, lambda _, snapshot: DeleteSnapshot(snapshot.id)
    )
    return show(begun.subject)


@router.post("/snapshots/{snapshot_id}/create-instance")
def create_instance_from_snapshot(
    region: Region,
    snapshot_id: UUID,
    body: own_wire.CreateInstanceFromSnapshot,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Instance:
    """Record a new instance, and begin to make it of a snapshot."""
    availability = high_availability.asked(body.is_ha_cluster, body.high_availability_mode)
    with backend.database.read() as session:
        asked = snapshots.get(session, region, snapshot_id, caller.principal)
    encrypted = snapshots.origin(asked).encryption
    check_room_of_copy(backend, asked.volume_type, encrypted=encrypted)

    def add(session: Session) -> Instance:
        snapshot = snapshots.get(session, region, snapshot_id, caller.principal)
        statuses.require(snapshot, SnapshotRequest.RESTORE)
        source = Source(
            region=snapshot.region,
            organization_id=snapshot.organization_id,
            project_id=snapshot.project_id,
            engine=snapshot.engine,
            node_type=snapshot.node_type,
            volume_type=snapshot.volume_type,
            volume_size=snapshot.volume_size,
            host_id=snapshot.host_id,
            origin=snapshots.origin(snapshot),
        )
        kind = body.node_type or snapshot.node_type
        return add_copy(
            session, source, body.instance_name, kind, caller.principal, backend, availability
        )

    begun = backend.begin(
        caller, add, None, lambda _, instance: RestoreSnapshot(instance.id, snapshot_id)
    )
    return show_instance(begun.subject, backend.offers)


@router.post("/instances/{instance_id}/clone")
async def clone_instance(
    region: Region,
    instance_id: UUID,
    body: own_wire.CloneInstance,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Instance:
    """Record a new instance, and begin to make it of another one, which works on."""

    def add(session: Session) -> Instance:
        instance = instances.get(session, region, instance_id, caller.principal)
        instance_statuses.require(instance, InstanceRequest.CLONE)
        kind = body.node_type or instance.node_type
        check_larger(kind, instance.node_type)
        source = source_of(session, instance)
        return add_copy(session, source, body.name, kind, caller.principal, backend)

    def prepare(_: Session, instance: Instance) -> CloneInstance:
        return CloneInstance(instance.id, instance_id)

    def begin() -> wire.Instance:
        check_room_of_copy(backend, asked.volume_type, encrypted=asked.encryption)
        begun = backend.begin(caller, add, None, prepare)
        return show_instance(begun.subject, backend.offers)

    asked = await allowing(backend, caller, region, instance_id, InstanceRequest.CLONE)
    await require_copyable(backend, asked)
    return await run_in_threadpool(begin)
