"""Endpoints: get, create, migrate, delete."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session

from openrdb.api import wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import PREFIX, CurrentBackend, the_instance
from openrdb.api.instance_creation import add_endpoints
from openrdb.api.replica_endpoints import (
    check_taker,
    delete_of_replica,
    migrate_of_replica,
    of_replica,
)
from openrdb.config import Region
from openrdb.errors import InvalidArguments
from openrdb.operations.endpoints.create import CreateEndpoint
from openrdb.operations.endpoints.delete import DeleteEndpoint
from openrdb.operations.endpoints.migrate import MigrateEndpoint
from openrdb.state import endpoints, instances
from openrdb.state.models import Endpoint, Instance
from openrdb.state.statuses.instance import InstanceStatus

router = APIRouter(prefix=PREFIX)


def show(endpoint: Endpoint) -> wire.Endpoint:
    if endpoint.kind == "direct_access":
        return wire.DirectAccessEndpoint(id=endpoint.id, ip=endpoint.ip, port=endpoint.port)
    if endpoint.private_network_id is None:
        return wire.LoadBalancerEndpoint(id=endpoint.id, ip=endpoint.ip, port=endpoint.port)
    details = wire.PrivateNetworkDetails(
        private_network_id=endpoint.private_network_id,
        provisioning_mode=cast(Literal["static", "ipam"], endpoint.provisioning_mode),
        service_ip=endpoint.service_ip or "",
        zone=endpoint.zone or "",
    )
    return wire.PrivateNetworkEndpoint(
        id=endpoint.id, ip=endpoint.ip, port=endpoint.port, private_network=details
    )


def show_all(rows: Iterable[Endpoint]) -> list[wire.Endpoint]:
    """Return those of an instance's or replica's endpoints that are shown."""
    return [show(one) for one in rows if one.published and not one.leaving]


@router.get("/endpoints/{endpoint_id}")
def get_endpoint(
    region: Region, endpoint_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.Endpoint:
    """Return an endpoint."""
    with backend.database.read() as session:
        return show(endpoints.get(session, region, endpoint_id, principal))


@router.post("/instances/{instance_id}/endpoints")
def create_endpoint(
    region: Region,
    instance_id: UUID,
    body: wire.CreateEndpoint,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Endpoint | wire.ComingEndpoint:
    """Create endpoints of one kind or both; of both, the answer is the private one.

    A private one is shown at once, a load balancer once it works. A load balancer that the instance
    has already is replaced, as the reference says: another id and port.
    """
    added: list[Endpoint] = []
    spec = body.endpoint_spec

    def prepare(session: Session, instance: Instance) -> CreateEndpoint:
        if spec.load_balancer is not None:
            endpoints.replace_load_balancer(instance)
        added.extend(
            add_endpoints(
                session, instance, spec, "endpoint_spec", caller.principal, backend.settings
            )
        )
        return CreateEndpoint(instance.id, added[0].id)

    find = the_instance(region, instance_id, caller)
    backend.begin(caller, find, CreateEndpoint.request, prepare)
    answered = added[0]
    return show(answered) if answered.published else wire.ComingEndpoint()


@router.post("/endpoints/{endpoint_id}/migrate")
def migrate_endpoint(
    region: Region,
    endpoint_id: UUID,
    body: wire.MigrateEndpoint,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Endpoint:
    """Move an endpoint with its address and port to another instance, its rules and certificate."""
    principal = caller.principal
    if (replica_id := of_replica(backend, region, endpoint_id, principal)) is not None:
        return show(migrate_of_replica(backend, caller, region, endpoint_id, replica_id, body))

    def find(session: Session) -> Instance:
        endpoint = endpoints.get(session, region, endpoint_id, principal)
        instance = instances.get(session, region, endpoint.instance_id, principal)
        other = instances.get(session, region, body.instance_id, principal)
        if instance.id == other.id:
            help_message = "the endpoint is this instance's already"
            raise InvalidArguments(("instance_id", "constraint", help_message))
        check_taker(endpoint, instance, other)
        return instance

    def prepare(session: Session, instance: Instance) -> MigrateEndpoint:
        endpoint = session.get_one(Endpoint, endpoint_id)
        other = session.get_one(Instance, body.instance_id)
        endpoints.move(endpoint, instance, other)
        moved.append(endpoint)
        return MigrateEndpoint(instance.id, endpoint_id, other.id)

    moved: list[Endpoint] = []
    backend.begin(caller, find, MigrateEndpoint.request, prepare)
    return show(moved[0])


@router.delete("/endpoints/{endpoint_id}", status_code=204)
def delete_endpoint(
    region: Region, endpoint_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> None:
    """Delete an endpoint; its sessions end."""
    principal = caller.principal
    if (replica_id := of_replica(backend, region, endpoint_id, principal)) is not None:
        delete_of_replica(backend, caller, region, endpoint_id, replica_id)
        return

    def find(session: Session) -> Instance:
        endpoint = endpoints.get(session, region, endpoint_id, principal)
        return instances.get(session, region, endpoint.instance_id, principal)

    def prepare(session: Session, instance: Instance) -> DeleteEndpoint | None:
        session.get_one(Endpoint, endpoint_id).leaving = True
        if instance.status == InstanceStatus.ERROR and instance.is_unmade:
            return None  # it never worked; what there is of it goes with the instance
        return DeleteEndpoint(instance.id, endpoint_id)

    backend.begin(caller, find, DeleteEndpoint.request, prepare)
