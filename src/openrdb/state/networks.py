"""Private networks and the VPCs that they are in: the state behind `vpc/v2`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address
from uuid import UUID, uuid4

from sqlalchemy import delete as delete_from
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from openrdb.errors import InvalidArguments, PreconditionFailed
from openrdb.state import addresses, scope, subnets
from openrdb.state.models import (
    Endpoint,
    Instance,
    Ip,
    PrivateNetwork,
    Project,
    ReadReplica,
    Subnet,
    Vpc,
    now,
)
from openrdb.state.scope import Principal
from openrdb.system.addresses import of_interfaces

_TAGS_OF_ENDPOINTS = ["managed", "scwdbaas"]
"""Of an address that an instance got, as recorded."""


# -- endpoints --------------------------------------------------------------------------------------


def get_private_network(
    session: Session, region: str, network_id: UUID, principal: Principal
) -> PrivateNetwork:
    """Return one private network.

    Raises:
        NotFound: there is none, or it is another project's.
    """
    row = session.get(PrivateNetwork, network_id)
    return scope.visible(row, region, principal, "private_network", network_id)


def attach(
    session: Session,
    network: PrivateNetwork,
    endpoint: Endpoint,
    owner: Instance | ReadReplica,
    *,
    service_ip: str | None,
    port: int,
    public_address: str,
    wanted: str | None = None,
) -> None:
    """Make an endpoint of an instance or replica one of a private network: at a static address of
    the user's, or at the lowest free one, which is booked for it. A static one is never booked, as
    recorded.

    Args:
        wanted: the address to book, if it is free.

    Raises:
        InvalidArguments: the static address is not available; the argument is `service_ip`.
        QuotasExceeded: the network has no free address left.
    """
    # The endpoint may be the owner's already, and not yet fit for being written.
    with session.no_autoflush:
        if service_ip is None:
            own = _own_addresses(public_address)
            address = addresses.free_address(session, network, own, port, wanted)
            _, subnet = addresses.ipv4_subnet(network)
            cidr = f"{address}/{subnet.prefixlen}"
        else:
            chosen = addresses.check_static(
                session,
                network,
                service_ip,
                port=port,
                public_address=public_address,
                own_addresses=of_interfaces(),
            )
            address, cidr = chosen.ip, chosen.with_prefixlen
        endpoint.id = endpoint.id or uuid4()
        endpoint.kind = "private_network"
        endpoint.ip, endpoint.port = str(address), port
        endpoint.private_network_id = network.id
        endpoint.service_ip = cidr
        endpoint.provisioning_mode = "ipam" if service_ip is None else "static"
        endpoint.zone = f"{network.region}-1"
        if endpoint not in owner.endpoints:
            owner.endpoints.append(endpoint)
    session.flush()  # the address's row refers to the endpoint's
    if service_ip is None:
        ip = _booked(network, address, _TAGS_OF_ENDPOINTS)
        ip.endpoint_id, ip.mac_address = endpoint.id, addresses.random_mac()
        session.add(ip)
        session.flush()


def book(
    session: Session,
    network: PrivateNetwork,
    asked: str | None,
    *,
    tags: Sequence[str],
    public_address: str,
) -> Ip:
    """Take an address for a user: the one asked for, or the lowest free.

    Raises:
        InvalidArguments: the requested address is not available; the argument is `address`.
        QuotasExceeded: the network has no free address left.
    """
    if asked:
        address = addresses.check_bookable(session, network, asked)
    else:
        address = addresses.free_address(session, network, _own_addresses(public_address))
    ip = _booked(network, address, tags)
    session.add(ip)
    session.flush()
    return ip


def _own_addresses(public_address: str) -> set[addresses.IPAddress]:
    return {*of_interfaces(), ip_address(public_address)}


def _booked(network: PrivateNetwork, address: IPv4Address, tags: Sequence[str]) -> Ip:
    subnet_id, _ = addresses.ipv4_subnet(network)
    moment = now()
    return Ip(
        id=uuid4(),
        region=network.region,
        organization_id=network.organization_id,
        project_id=network.project_id,
        private_network_id=network.id,
        subnet_id=subnet_id,
        address=str(address),
        is_ipv6=False,
        tags=list(tags),
        created_at=moment,
        updated_at=moment,
    )


# -- private networks -------------------------------------------------------------------------------


def create_private_network(
    session: Session,
    region: str,
    project: Project,
    *,
    private_range: IPv4Network,
    name: str | None = None,
    tags: Sequence[str] = (),
    asked_subnets: Sequence[str] = (),
    vpc: Vpc | None = None,
    default_route_propagation_enabled: bool = False,
) -> PrivateNetwork:
    """Create a network in a VPC of its project, the default one if none is given.

    Raises:
        InvalidArguments: the VPC is another project's, or the subnets are not available.
        QuotasExceeded: the deployment's range is used up.
    """
    vpc = vpc or default_vpc(session, region, project)
    if vpc.project_id != project.id:
        raise InvalidArguments(("vpc_id", "constraint", "is a VPC of another project"))
    taken = addresses.ipv4_subnets(session)
    if asked_subnets:
        ipv4 = subnets.asked(
            asked_subnets, taken, private_range=private_range, own_addresses=of_interfaces()
        )
    else:
        ipv4 = subnets.choose(private_range, taken)
    moment = now()
    network = PrivateNetwork(
        id=uuid4(),
        region=region,
        organization_id=project.organization_id,
        project_id=project.id,
        vpc_id=vpc.id,
        name=name or f"pn-{secrets.token_hex(4)}",
        tags=list(tags),
        dhcp_enabled=True,
        default_route_propagation_enabled=default_route_propagation_enabled,
        created_at=moment,
        updated_at=moment,
    )
    network.subnets = [
        Subnet(
            id=uuid4(), position=position, subnet=str(subnet), created_at=moment, updated_at=moment
        )
        for position, subnet in enumerate((ipv4, subnets.choose_ipv6()))
    ]
    session.add(network)
    session.flush()
    return network


def delete_private_network(session: Session, network: PrivateNetwork) -> None:
    """Forget a network, and the addresses that users booked of it.

    Raises:
        PreconditionFailed: instances have endpoints in it.
    """
    attached = select(Endpoint.id).where(Endpoint.private_network_id == network.id)
    if session.scalars(attached.limit(1)).first() is not None:
        help_message = (
            "instances or read replicas are attached to the private network; delete their endpoints "
            "first"
        )
        raise PreconditionFailed("resource_still_in_use", help_message)
    session.execute(delete_from(Ip).where(Ip.private_network_id == network.id))
    session.delete(network)


# -- VPCs -------------------------------------------------------------------------------------------


def get_vpc(session: Session, region: str, vpc_id: UUID, principal: Principal) -> Vpc:
    """Return one VPC.

    Raises:
        NotFound: there is none, or it is another project's.
    """
    return scope.visible(session.get(Vpc, vpc_id), region, principal, "vpc", vpc_id)


def create_vpc(
    session: Session,
    region: str,
    project: Project,
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    is_default: bool = False,
) -> Vpc:
    """Create a VPC. It routes between its networks whatever is asked, as recorded."""
    moment = now()
    vpc = Vpc(
        id=uuid4(),
        region=region,
        organization_id=project.organization_id,
        project_id=project.id,
        name=name or f"vpc-{secrets.token_hex(4)}",
        tags=list(tags),
        is_default=is_default,
        routing_enabled=True,
        custom_routes_propagation_enabled=True,
        created_at=moment,
        updated_at=moment,
    )
    session.add(vpc)
    session.flush()
    return vpc


def find_default_vpc(session: Session, region: str, project_id: UUID) -> Vpc | None:
    conditions = (Vpc.region == region, Vpc.project_id == project_id, Vpc.is_default)
    return session.scalars(select(Vpc).where(*conditions)).first()


def default_vpc(session: Session, region: str, project: Project) -> Vpc:
    """Return the project's default VPC in a region, made when it is first needed."""
    found = find_default_vpc(session, region, project.id)
    return found or create_vpc(session, region, project, name="default", is_default=True)


def network_counts(session: Session, vpc_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many networks each of these VPCs has; those without any are left out."""
    counted = select(PrivateNetwork.vpc_id, func.count()).where(PrivateNetwork.vpc_id.in_(vpc_ids))
    return dict(session.execute(counted.group_by(PrivateNetwork.vpc_id)).all())


def delete_vpc(session: Session, vpc: Vpc) -> None:
    """Forget a VPC.

    Raises:
        PreconditionFailed: it has private networks.
    """
    if network_counts(session, [vpc.id]):
        help_message = "the VPC has private networks; delete them first"
        raise PreconditionFailed("resource_still_in_use", help_message)
    session.delete(vpc)
