"""vpc/v2: VPCs and private networks, as Terraform and the CLI make them around an instance."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session

from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import Backend, CurrentBackend, CurrentPage, OptionalId, OptionalText
from openrdb.api.companions import wire
from openrdb.config import Region
from openrdb.state import access, events, listing, models, networks
from openrdb.state.listing import Scope
from openrdb.state.models import now
from openrdb.state.scope import Condition

router = APIRouter(prefix="/vpc/v2/regions/{region}")


def show_vpc(vpc: models.Vpc, private_network_count: int) -> wire.VPC:
    return wire.VPC(
        id=vpc.id,
        name=vpc.name,
        organization_id=vpc.organization_id,
        project_id=vpc.project_id,
        region=cast(Region, vpc.region),
        tags=vpc.tags,
        is_default=vpc.is_default,
        created_at=vpc.created_at,
        updated_at=vpc.updated_at,
        private_network_count=private_network_count,
        routing_enabled=vpc.routing_enabled,
        custom_routes_propagation_enabled=vpc.custom_routes_propagation_enabled,
    )


def show_network(network: models.PrivateNetwork) -> wire.PrivateNetwork:
    subnets = [
        wire.Subnet(
            id=subnet.id,
            created_at=subnet.created_at,
            updated_at=subnet.updated_at,
            subnet=subnet.subnet,
            project_id=network.project_id,
            private_network_id=network.id,
            vpc_id=network.vpc_id,
        )
        for subnet in network.subnets
    ]
    return wire.PrivateNetwork(
        id=network.id,
        name=network.name,
        tags=network.tags,
        organization_id=network.organization_id,
        created_at=network.created_at,
        updated_at=network.updated_at,
        project_id=network.project_id,
        subnets=subnets,
        vpc_id=network.vpc_id,
        dhcp_enabled=network.dhcp_enabled,
        default_route_propagation_enabled=network.default_route_propagation_enabled,
        region=cast(Region, network.region),
    )


# -- VPCs -------------------------------------------------------------------------------------------


@router.post("/vpcs")
def create_vpc(
    region: Region, body: wire.CreateVPC, backend: CurrentBackend, caller: CurrentCaller
) -> wire.VPC:
    """Create a VPC."""
    with backend.database.write() as session:
        project = access.project_for_creation(
            session, caller.principal, body.project_id, "create", "vpc"
        )
        vpc = networks.create_vpc(session, region, project, name=body.name, tags=body.tags or [])
        events.accepted(session, caller, "vpc", vpc.id)
    return show_vpc(vpc, 0)


@router.get("/vpcs")
def list_vpcs(
    region: Region,
    backend: CurrentBackend,
    scope: wire.CurrentScope,
    page: CurrentPage,
    name: OptionalText = None,
    is_default: bool | None = None,
    routing_enabled: bool | None = None,
    order_by: wire.Order = "created_at_asc",
) -> wire.VPCs:
    """Return a page of VPCs; every project has a default one in each region, listed or not."""
    conditions: list[Condition] = []
    if name:
        conditions.append(models.Vpc.name.icontains(name, autoescape=True))
    if is_default is not None:
        conditions.append(models.Vpc.is_default.is_(is_default))
    if routing_enabled is not None:
        conditions.append(models.Vpc.routing_enabled.is_(routing_enabled))
    _ensure_default_vpc(backend, region, scope)
    with backend.database.read() as session:
        found, total = listing.page(session, models.Vpc, scope, order_by, page, conditions)
        counts = networks.network_counts(session, [vpc.id for vpc in found])
    shown = [show_vpc(vpc, counts.get(vpc.id, 0)) for vpc in found]
    return wire.VPCs(vpcs=shown, total_count=total)


def _ensure_default_vpc(backend: Backend, region: Region, scope: Scope) -> None:
    """Of the project asked for, which clients find by this list."""
    project_id = scope.project_id or scope.principal.default_project_id
    with backend.database.read() as session:
        project = access.find_project(session, scope.principal, project_id)
        if project is None or networks.find_default_vpc(session, region, project_id) is not None:
            return
    with backend.database.write() as session:
        project = access.find_project(session, scope.principal, project_id)
        if project is not None:
            networks.default_vpc(session, region, project)


@router.get("/vpcs/{vpc_id}")
def get_vpc(
    region: Region, vpc_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.VPC:
    """Return a VPC."""
    with backend.database.read() as session:
        return _show(session, networks.get_vpc(session, region, vpc_id, principal))


def _show(session: Session, vpc: models.Vpc) -> wire.VPC:
    return show_vpc(vpc, networks.network_counts(session, [vpc.id]).get(vpc.id, 0))


@router.patch("/vpcs/{vpc_id}")
def update_vpc(
    region: Region,
    vpc_id: UUID,
    body: wire.UpdateVPC,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.VPC:
    """Change a VPC's name and tags."""
    with backend.database.write() as session:
        vpc = networks.get_vpc(session, region, vpc_id, caller.principal)
        vpc.name = body.name or vpc.name
        if body.tags is not None:
            vpc.tags = body.tags
        if session.is_modified(vpc):
            vpc.updated_at = now()
        events.accepted(session, caller, "vpc", vpc.id)
        return _show(session, vpc)


@router.delete("/vpcs/{vpc_id}", status_code=204)
def delete_vpc(
    region: Region, vpc_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> None:
    """Delete a VPC without networks."""
    with backend.database.write() as session:
        networks.delete_vpc(session, networks.get_vpc(session, region, vpc_id, caller.principal))
        events.accepted(session, caller, "vpc", vpc_id)


@router.post("/vpcs/{vpc_id}/enable-custom-routes-propagation")
@router.post("/vpcs/{vpc_id}/enable-routing")
def enable(
    region: Region, vpc_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.VPC:
    """Return the VPC unchanged: routing is on from the beginning."""
    with backend.database.write() as session:
        vpc = networks.get_vpc(session, region, vpc_id, caller.principal)
        events.accepted(session, caller, "vpc", vpc.id)
        return _show(session, vpc)


# -- private networks -------------------------------------------------------------------------------


@router.post("/private-networks")
def create_private_network(
    region: Region,
    body: wire.CreatePrivateNetwork,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.PrivateNetwork:
    """Create a private network with its subnets."""
    with backend.database.write() as session:
        project = access.project_for_creation(
            session, caller.principal, body.project_id, "create", "private_network"
        )
        vpc = (
            networks.get_vpc(session, region, body.vpc_id, caller.principal)
            if body.vpc_id
            else None
        )
        network = networks.create_private_network(
            session,
            region,
            project,
            private_range=backend.settings.private_range,
            name=body.name,
            tags=body.tags or [],
            asked_subnets=body.subnets or [],
            vpc=vpc,
            default_route_propagation_enabled=bool(body.default_route_propagation_enabled),
        )
        events.accepted(session, caller, "private_network", network.id)
    return show_network(network)


@router.get("/private-networks")
def list_private_networks(
    backend: CurrentBackend,
    scope: wire.CurrentScope,
    page: CurrentPage,
    name: OptionalText = None,
    private_network_ids: wire.Ids = None,
    vpc_id: OptionalId = None,
    dhcp_enabled: bool | None = None,
    order_by: wire.Order = "created_at_asc",
) -> wire.PrivateNetworks:
    """Return a page of private networks."""
    conditions: list[Condition] = []
    if name:
        conditions.append(models.PrivateNetwork.name.icontains(name, autoescape=True))
    if private_network_ids:
        conditions.append(models.PrivateNetwork.id.in_(private_network_ids))
    if vpc_id is not None:
        conditions.append(models.PrivateNetwork.vpc_id == vpc_id)
    if dhcp_enabled is not None:
        conditions.append(models.PrivateNetwork.dhcp_enabled.is_(dhcp_enabled))
    with backend.database.read() as session:
        found, total = listing.page(
            session, models.PrivateNetwork, scope, order_by, page, conditions
        )
    shown = [show_network(network) for network in found]
    return wire.PrivateNetworks(private_networks=shown, total_count=total)


@router.get("/private-networks/{private_network_id}")
def get_private_network(
    region: Region, private_network_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.PrivateNetwork:
    """Return a private network."""
    with backend.database.read() as session:
        return show_network(
            networks.get_private_network(session, region, private_network_id, principal)
        )


@router.patch("/private-networks/{private_network_id}")
def update_private_network(
    region: Region,
    private_network_id: UUID,
    body: wire.UpdatePrivateNetwork,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.PrivateNetwork:
    """Change a private network's name and tags."""
    with backend.database.write() as session:
        network = networks.get_private_network(
            session, region, private_network_id, caller.principal
        )
        network.name = body.name or network.name
        if body.tags is not None:
            network.tags = body.tags
        if body.default_route_propagation_enabled is not None:
            network.default_route_propagation_enabled = body.default_route_propagation_enabled
        if session.is_modified(network):
            network.updated_at = now()
        events.accepted(session, caller, "private_network", network.id)
    return show_network(network)


@router.delete("/private-networks/{private_network_id}", status_code=204)
def delete_private_network(
    region: Region, private_network_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> None:
    """Delete a private network that no endpoint is in."""
    with backend.database.write() as session:
        network = networks.get_private_network(
            session, region, private_network_id, caller.principal
        )
        networks.delete_private_network(session, network)
        events.accepted(session, caller, "private_network", network.id)


@router.post("/private-networks/{private_network_id}/enable-dhcp")
def enable_dhcp(
    region: Region, private_network_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.PrivateNetwork:
    """Return the network unchanged: DHCP is on from the beginning."""
    with backend.database.write() as session:
        network = networks.get_private_network(
            session, region, private_network_id, caller.principal
        )
        events.accepted(session, caller, "private_network", network.id)
    return show_network(network)
