"""Read replicas: create, get, delete, reset, promote, and more endpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from uuid import UUID

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from openrdb.api import wire, wire_replicas
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import PREFIX, CurrentBackend, allowing
from openrdb.api.high_availability import check_engine
from openrdb.api.instance_copies import Source, add_copy, require_copyable, source_of
from openrdb.api.instance_creation import add_private, check_room, limits_of
from openrdb.api.instance_view import show as show_instance
from openrdb.api.instance_view import show_replica as show
from openrdb.config import Region, Settings
from openrdb.errors import InvalidArguments
from openrdb.operations.replicas.create import CreateReadReplica
from openrdb.operations.replicas.delete import DeleteReadReplica
from openrdb.operations.replicas.endpoints import CreateReplicaEndpoint
from openrdb.operations.replicas.promote import PromoteReadReplica
from openrdb.operations.replicas.reset import ResetReadReplica
from openrdb.state import instances, quotas, read_replicas
from openrdb.state.events import Caller
from openrdb.state.models import AclRule, Instance, ReadReplica
from openrdb.state.scope import Principal
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses import read_replica as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus
from openrdb.state.statuses.read_replica import ReadReplicaStatus

router = APIRouter(prefix=PREFIX + "/read-replicas")

_LONGEST_NAME = 255


@router.post("")
async def create_read_replica(
    request: Request,
    region: Region,
    body: wire_replicas.CreateReadReplica,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.ReadReplica:
    """Record a new read replica, and begin to make it; with direct access if no endpoint is named."""
    settings, needed = backend.settings, InstanceRequest.CREATE_READ_REPLICA
    request.state.instance_id = body.instance_id  # it is not in the path
    specs = body.endpoint_spec or [wire_replicas.ReadReplicaEndpointSpec(direct_access={})]

    def add(session: Session) -> ReadReplica:
        instance = instances.get(session, region, body.instance_id, caller.principal)
        instance_statuses.require(instance, needed)
        quotas.require_read_replica(session, instance.id)
        pool, size = instances.pool_of(instance), instance.volume_size
        limits = limits_of(instance.project_id, settings, pool)
        quotas.require_bytes(session, instance.project_id, limits, size, size)
        node = instances.add_node(
            session,
            instance,
            "replica",
            version=instance.primary.version,
            pool=pool,
            ports=settings.node_ports,
        )
        replica = read_replicas.new(instance, node, same_zone=body.same_zone)
        session.flush()
        _add_endpoints(session, instance, replica, specs, caller.principal, settings)
        return replica

    def begin() -> wire.ReadReplica:
        check_room(backend, instances.pool_of(asked))
        begun = backend.begin(caller, add, None, lambda _, made: CreateReadReplica(made.id))
        return show(begun.subject)

    asked = await allowing(backend, caller, region, body.instance_id, needed)
    check_engine("instance_id", asked.engine, asked.primary.version, "read replicas")
    await require_copyable(backend, asked)
    return await run_in_threadpool(begin)


def _the_replica(region: str, replica_id: UUID, caller: Caller) -> Callable[[Session], ReadReplica]:
    """Return what finds a read replica, if the caller may see it."""
    return lambda session: read_replicas.get(session, region, replica_id, caller.principal)


def _add_endpoints(
    session: Session,
    instance: Instance,
    replica: ReadReplica,
    specs: list[wire_replicas.ReadReplicaEndpointSpec],
    principal: Principal,
    settings: Settings,
) -> None:
    """Add the endpoints that are named; a private one is shown at once, direct access once it works.

    Raises:
        InvalidArguments, NotFound, QuotasExceeded: one of them is impossible.
    """
    if not specs:
        help_message = "must name an endpoint: direct_access, private_network or both"
        raise InvalidArguments(("endpoint_spec", "required", help_message))
    present = {one.kind for one in replica.endpoints if not one.leaving}
    named = dict[str, tuple[str, wire_replicas.ReadReplicaEndpointSpec]]()
    for position, spec in enumerate(specs):
        argument = f"endpoint_spec.{position}"
        kinds = [kind for kind in _KINDS if getattr(spec, kind) is not None]
        if not kinds:
            help_message = "must name a kind of endpoint: direct_access or private_network"
            raise InvalidArguments((argument, "required", help_message))
        for kind in kinds:
            if kind in present or kind in named:
                help_message = "a read replica has at most one endpoint of a kind"
                raise InvalidArguments((f"{argument}.{kind}", "constraint", help_message))
            named[kind] = (f"{argument}.{kind}", spec)
    if "private_network" in named:
        argument, spec = named["private_network"]
        assert spec.private_network is not None  # noqa: S101
        add_private(session, instance, replica, spec.private_network, argument, principal, settings)
    if "direct_access" in named:
        direct = instances.public_endpoint(
            session, "direct_access", address=settings.public_address, ports=settings.endpoint_ports
        )
        replica.endpoints.append(read_replicas.endpoint_of(replica, direct))


_KINDS = ("private_network", "direct_access")


@router.get("/{read_replica_id}")
async def get_read_replica(
    region: Region, read_replica_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.ReadReplica:
    """Return a replica; while it is in transition the answer is held for a moment, by no thread."""

    def read() -> tuple[str, wire.ReadReplica]:
        with backend.database.read() as session:
            replica = read_replicas.get(session, region, read_replica_id, principal)
            return read_replicas.shown_status(replica), show(replica)

    return await backend.held(principal, read_replica_id, read, statuses.TRANSIENT)


@router.delete("/{read_replica_id}")
def delete_read_replica(
    region: Region, read_replica_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.ReadReplica:
    """Delete a read replica with its endpoints."""

    def prepare(session: Session, replica: ReadReplica) -> DeleteReadReplica:
        instance = session.get_one(Instance, replica.instance_id)
        instance_statuses.require(instance, InstanceRequest.REMOVE_READ_REPLICA)
        return DeleteReadReplica(replica.id)

    find = _the_replica(region, read_replica_id, caller)
    begun = backend.begin(caller, find, DeleteReadReplica.request, prepare)
    return show(begun.subject)


@router.post("/{read_replica_id}/endpoints")
def create_read_replica_endpoint(
    region: Region,
    read_replica_id: UUID,
    body: wire_replicas.CreateReadReplicaEndpoint,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.ReadReplica:
    """Add endpoints of one kind or both."""

    def prepare(session: Session, replica: ReadReplica) -> CreateReplicaEndpoint:
        instance = session.get_one(Instance, replica.instance_id)
        specs = body.endpoint_spec
        _add_endpoints(session, instance, replica, specs, caller.principal, backend.settings)
        return CreateReplicaEndpoint(replica.id)

    find = _the_replica(region, read_replica_id, caller)
    begun = backend.begin(caller, find, CreateReplicaEndpoint.request, prepare)
    return show(begun.subject)


@router.post("/{read_replica_id}/reset")
def reset_read_replica(
    region: Region, read_replica_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.ReadReplica:
    """Copy a replica's data again; its endpoints stay.

    Refused unless its instance works: the replica's data may be all that there is.
    """

    def prepare(session: Session, replica: ReadReplica) -> ResetReadReplica:
        instance = session.get_one(Instance, replica.instance_id)
        instance_statuses.require(instance, InstanceRequest.RESET_READ_REPLICA)
        read_replicas.require_source(instance)
        was_ready = replica.status == ReadReplicaStatus.READY
        return ResetReadReplica(replica.id, was_ready=was_ready)

    find = _the_replica(region, read_replica_id, caller)
    begun = backend.begin(caller, find, ResetReadReplica.request, prepare)
    return show(begun.subject)


@router.post("/{read_replica_id}/promote")
def promote_read_replica(
    region: Region, read_replica_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.Instance:
    """Record a new instance, and begin to make it of a replica, which is gone then."""

    def add(session: Session) -> Instance:
        replica = read_replicas.get(session, region, read_replica_id, caller.principal)
        statuses.require(replica, PromoteReadReplica.replica_request)
        instance = session.get_one(Instance, replica.instance_id)
        instance_statuses.require(instance, InstanceRequest.REMOVE_READ_REPLICA)
        if instance.status != InstanceStatus.ERROR:
            # Of one in error nobody follows; then a replica may be all that there is.
            read_replicas.require_following(replica)
        source = _promoted(source_of(session, instance), replica)
        name = f"promoted - {instance.name}"[:_LONGEST_NAME]
        made = add_copy(session, source, name, instance.node_type, caller.principal, backend)
        instances.move(made, instances.pool_of(instance))
        made.acl_rules = [
            AclRule(ip=rule.ip, description=rule.description) for rule in instance.acl_rules
        ]
        followed.append(instance.id)
        return made

    followed: list[UUID] = []
    begun = backend.begin(
        caller,
        add,
        None,
        lambda _, made: PromoteReadReplica(made.id, read_replica_id, followed[0]),
    )
    return show_instance(begun.subject, backend.offers)


def _promoted(source: Source, replica: ReadReplica) -> Source:
    """Return what a replica hands on: what its instance does, and endpoints as its own."""
    present = [one for one in replica.endpoints if not one.leaving]
    networks = [one.private_network_id for one in present if one.private_network_id]
    origin = dataclasses.replace(
        source.origin,
        load_balancer=any(one.kind == "direct_access" for one in present),
        private_network_id=networks[0] if networks else None,
    )
    return dataclasses.replace(source, origin=origin)
