"""ipam/v1: the addresses of private networks; Terraform and the CLI look up an instance's here."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy import false, select
from sqlalchemy.orm import Session

from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import CurrentBackend, CurrentPage, OptionalId, OptionalText
from openrdb.api.companions import wire
from openrdb.config import Region
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.state import access, events, listing, networks
from openrdb.state.listing import Holder, of_endpoint
from openrdb.state.models import Ip, PrivateNetwork, Subnet, now
from openrdb.state.scope import Condition, Principal, visible

router = APIRouter(prefix="/ipam/v1/regions/{region}")

_UNKNOWN = "unknown_type"
"""What clients send for no type at all."""
_INSTANCE = "rdb_instance"
"""Recorded of read replicas' addresses as well, whose instance they name."""
_READ_REPLICA = "rdb_read_replica"


def show(session: Session, ips: list[Ip]) -> list[wire.IP]:
    lengths = _lengths(session, ips)
    holders = listing.holders(session, ips)
    return [_show(ip, lengths[ip.subnet_id], holders.get(ip.id)) for ip in ips]


def _of_types(types: Collection[str]) -> Condition:
    if _INSTANCE in types:
        return of_endpoint()
    return listing.of_replicas() if _READ_REPLICA in types else false()


def _lengths(session: Session, ips: list[Ip]) -> dict[UUID, str]:
    of_ips = select(Subnet.id, Subnet.subnet).where(Subnet.id.in_({ip.subnet_id for ip in ips}))
    return {row.id: row.subnet.rpartition("/")[2] for row in session.execute(of_ips)}


def _show(ip: Ip, length: str, holder: Holder | None) -> wire.IP:
    resource = None
    if holder is not None:
        resource = wire.IPResource(
            id=holder.instance_id, mac_address=ip.mac_address or "", name=holder.name
        )
    return wire.IP(
        id=ip.id,
        address=f"{ip.address}/{length}",
        project_id=ip.project_id,
        is_ipv6=ip.is_ipv6,
        created_at=ip.created_at,
        updated_at=ip.updated_at,
        source=wire.IPSource(subnet_id=ip.subnet_id),
        resource=resource,
        tags=ip.tags,
        reverses=[],
        region=cast(Region, ip.region),
    )


@router.get("/ips")
def list_ips(
    backend: CurrentBackend,
    scope: wire.CurrentScope,
    page: CurrentPage,
    private_network_id: OptionalId = None,
    subnet_id: OptionalId = None,
    vpc_id: OptionalId = None,
    attached: bool | None = None,
    resource_id: OptionalId = None,
    resource_ids: wire.Ids = None,
    resource_name: OptionalText = None,
    resource_type: OptionalText = None,
    resource_types: wire.Texts = None,
    mac_address: OptionalText = None,
    is_ipv6: bool | None = None,
    ip_ids: wire.Ids = None,
    zonal: OptionalText = None,
    order_by: Annotated[wire.IPsOrder, Query()] = "created_at_desc",
) -> wire.IPs:
    """Return a page of addresses. None is zonal, and all attached ones are instances', among them
    those of their read replicas."""
    types = {one for one in (resource_type, *(resource_types or [])) if one} - {_UNKNOWN}
    resources = {one for one in (resource_id, *(resource_ids or [])) if one}
    conditions: list[Condition] = []
    if private_network_id is not None:
        conditions.append(Ip.private_network_id == private_network_id)
    if subnet_id is not None:
        conditions.append(Ip.subnet_id == subnet_id)
    if vpc_id is not None:
        of_vpc = select(PrivateNetwork.id).where(PrivateNetwork.vpc_id == vpc_id)
        conditions.append(Ip.private_network_id.in_(of_vpc))
    if attached is not None:
        conditions.append(Ip.endpoint_id.is_not(None) if attached else Ip.endpoint_id.is_(None))
    if resources:
        conditions.append(listing.of_resources(resources))
    if types:
        conditions.append(_of_types(types))
    if mac_address:
        conditions.append(Ip.mac_address == mac_address.upper())
    if is_ipv6 is not None:
        conditions.append(Ip.is_ipv6.is_(is_ipv6))
    if ip_ids:
        conditions.append(Ip.id.in_(ip_ids))
    if zonal:
        conditions.append(false())
    # An attached one was made for its endpoint.
    by = order_by.replace("attached_at", "created_at")
    with backend.database.read() as session:
        if resource_name:
            conditions.append(listing.of_named(session, resource_name))
        found, total = listing.page(session, Ip, scope, by, page, conditions)
        return wire.IPs(ips=show(session, found), total_count=total)


@router.post("/ips")
def book_ip(
    region: Region, body: wire.BookIP, backend: CurrentBackend, caller: CurrentCaller
) -> wire.IP:
    """Take an address of a private network for later: the one asked for, or the lowest free."""
    _check_available(body)
    with backend.database.write() as session:
        project = access.project_for_creation(
            session, caller.principal, body.project_id, "create", "ip"
        )
        network = _source(session, region, body.source, caller.principal)
        if network.project_id != project.id:
            help_message = "is not the private network's project"
            raise InvalidArguments(("project_id", "constraint", help_message))
        ip = networks.book(
            session,
            network,
            body.address,
            tags=body.tags or [],
            public_address=backend.settings.public_address,
        )
        events.accepted(session, caller, "ip", ip.id)
        return show(session, [ip])[0]


def _check_available(body: wire.BookIP) -> None:
    if body.is_ipv6:
        raise InvalidArguments(("is_ipv6", "constraint", "IPv6 is not available here"))
    if body.resource is not None:
        help_message = "custom resources are not available here"
        raise InvalidArguments(("resource", "constraint", help_message))


def _source(
    session: Session, region: Region, source: wire.IPSourceRequest, principal: Principal
) -> PrivateNetwork:
    if (source.private_network_id is None) == (source.subnet_id is None):
        help_message = "must be either private_network_id or subnet_id"
        raise InvalidArguments(("source", "constraint", help_message))
    if source.private_network_id is not None:
        return networks.get_private_network(session, region, source.private_network_id, principal)
    subnet = session.get(Subnet, source.subnet_id)
    refused = NotFound("subnet", str(source.subnet_id))
    if subnet is None:
        raise refused
    try:
        network = networks.get_private_network(
            session, region, subnet.private_network_id, principal
        )
    except NotFound:
        raise refused from None
    if ":" in subnet.subnet:
        raise InvalidArguments(("source.subnet_id", "constraint", "IPv6 is not available here"))
    return network


def _get(session: Session, region: Region, ip_id: UUID, principal: Principal) -> Ip:
    return visible(session.get(Ip, ip_id), region, principal, "ip", ip_id)


@router.get("/ips/{ip_id}")
def get_ip(
    region: Region, ip_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.IP:
    """Return an address."""
    with backend.database.read() as session:
        return show(session, [_get(session, region, ip_id, principal)])[0]


@router.patch("/ips/{ip_id}")
def update_ip(
    region: Region,
    ip_id: UUID,
    body: wire.UpdateIP,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.IP:
    """Change an address's tags."""
    if body.reverses:
        help_message = "reverse names are not available here"
        raise InvalidArguments(("reverses", "constraint", help_message))
    with backend.database.write() as session:
        ip = _get(session, region, ip_id, caller.principal)
        if body.tags is not None:
            ip.tags = body.tags
        if session.is_modified(ip):
            ip.updated_at = now()
        events.accepted(session, caller, "ip", ip.id)
        return show(session, [ip])[0]


@router.delete("/ips/{ip_id}", status_code=204)
def release_ip(region: Region, ip_id: UUID, backend: CurrentBackend, caller: CurrentCaller) -> None:
    """Release an address that was booked and is not in use."""
    with backend.database.write() as session:
        ip = _get(session, region, ip_id, caller.principal)
        if ip.endpoint_id is not None:
            help_message = (
                "the address is attached to an instance or read replica; delete its endpoint first"
            )
            raise PreconditionFailed("resource_still_in_use", help_message)
        session.delete(ip)
        events.accepted(session, caller, "ip", ip.id)
