"""Addresses of private networks: assigned by us, booked by users, or chosen by them."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    ip_interface,
)
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.errors import InvalidArguments, QuotasExceeded, Reason
from openrdb.state.models import Endpoint, Ip, PrivateNetwork, Subnet
from openrdb.state.subnets import is_private

IPAddress = IPv4Address | IPv6Address

_FIRST = 2
"""Position of the first address given out, as recorded: 172.27.20.2 of 172.27.20.0/22."""


def ipv4_subnet(network: PrivateNetwork) -> tuple[UUID, IPv4Network]:
    """Return the id and the range of a network's subnet for IPv4."""
    row = next(subnet for subnet in network.subnets if ":" not in subnet.subnet)
    return row.id, IPv4Network(row.subnet)


def ipv4_subnets(session: Session) -> list[IPv4Network]:
    """Return the IPv4 subnets of all networks of the deployment."""
    texts = session.scalars(select(Subnet.subnet).where(Subnet.subnet.not_like("%:%")))
    return [IPv4Network(text) for text in texts]


def lowest_free(subnet: IPv4Network, taken: Collection[IPAddress]) -> IPv4Address | None:
    """Return the lowest address to give out, if there is one."""
    hosts = (subnet[position] for position in range(_FIRST, subnet.num_addresses - 1))
    return next((address for address in hosts if address not in taken), None)


def free_address(
    session: Session,
    network: PrivateNetwork,
    own_addresses: Collection[IPAddress],
    port: int | None = None,
    wanted: str | None = None,
) -> IPv4Address:
    """Return a network's lowest address that is neither booked nor an endpoint's, `port` on which is
    free if that is given; or the one that is wanted, if it is such an address.

    Raises:
        QuotasExceeded: there is none left.
    """
    _, subnet = ipv4_subnet(network)
    booked = session.scalars(select(Ip.address).where(Ip.private_network_id == network.id))
    of_endpoints = select(Endpoint.ip).where(Endpoint.private_network_id == network.id)
    texts = {*booked, *session.scalars(of_endpoints)}
    taken = {IPv4Address(text) for text in texts} | set(own_addresses)
    address = IPv4Address(wanted) if wanted else None
    if address is None or address not in subnet or address in taken:
        address = lowest_free(subnet, taken)
    while address is not None:
        # One of another network may be there since before this network was made.
        if port is None or not _used(session, address, port):
            return address
        taken.add(address)
        address = lowest_free(subnet, taken)
    total = subnet.num_addresses - _FIRST - 1
    raise QuotasExceeded("private_network_ips", total, total)


def _used(session: Session, address: IPv4Address, port: int) -> bool:
    used = select(Endpoint.id).where(Endpoint.port == port, Endpoint.ip == str(address))
    return session.scalars(used).first() is not None


def check_bookable(session: Session, network: PrivateNetwork, text: str) -> IPv4Address:
    """Return the address that a user wants to book, without its length as the SDK says.

    Raises:
        InvalidArguments: it is none of the network's, or not free.
    """
    _, subnet = ipv4_subnet(network)
    try:
        address = IPv4Address(text)
    except ValueError:
        help_message = "must be an IPv4 address without a length, as 10.0.0.10"
        raise InvalidArguments(("address", "format", help_message)) from None
    if address not in subnet:
        raise InvalidArguments(("address", "constraint", f"is not in the network's {subnet}"))
    if address in (subnet.network_address, subnet.broadcast_address):
        raise InvalidArguments(("address", "constraint", "is not a host's address"))
    of_network = (Ip.private_network_id == network.id, Ip.address == text)
    booked = session.scalars(select(Ip.id).where(*of_network)).first()
    attached = (Endpoint.private_network_id == network.id, Endpoint.ip == text)
    endpoint = session.scalars(select(Endpoint.id).where(*attached)).first()
    if booked is not None or endpoint is not None:
        raise InvalidArguments(("address", "constraint", "is in use"))
    return address


def check_static(
    session: Session,
    network: PrivateNetwork,
    service_ip: str,
    *,
    port: int,
    public_address: str,
    own_addresses: Collection[IPv4Address],
) -> IPv4Interface:
    """Return the address that a user chose for an endpoint.

    As in the reference service it may be outside the network's subnet, but it must not catch the
    traffic of anybody else.

    Raises:
        InvalidArguments: of the argument `service_ip`.
    """
    chosen = _parsed(service_ip)
    address = chosen.ip
    _, subnet = ipv4_subnet(network)
    ends = {subnet.network_address, subnet.broadcast_address}
    if chosen.network.prefixlen < 31:
        ends |= {chosen.network.network_address, chosen.network.broadcast_address}
    if address in ends:
        raise _refused("constraint", "is not a host's address")
    if str(address) == public_address:
        raise _refused("constraint", "is the deployment's public address")
    if address not in subnet:
        if not is_private(address):
            raise _refused("constraint", "is not a private address of the network")
        if address in own_addresses:
            raise _refused("constraint", "is an address of the deployment's own machine")
        if any(address in other for other in ipv4_subnets(session)):
            raise _refused("constraint", "is in use")
    # One that a user booked and that is no endpoint's is the user's to take, as recorded.
    of_network = (Ip.private_network_id == network.id, Ip.address == str(address))
    given = select(Ip.id).where(*of_network, Ip.endpoint_id.is_not(None))
    if session.scalars(given).first() is not None or _used(session, address, port):
        raise _refused("constraint", "is in use")
    return chosen


def _parsed(service_ip: str) -> IPv4Interface:
    _, _, length = service_ip.partition("/")
    wrong_form = _refused("format", "must be an address in CIDR form, as 192.168.1.42/24")
    if not length.isdecimal():
        raise wrong_form
    try:
        interface = ip_interface(service_ip)
    except ValueError:
        raise wrong_form from None
    if isinstance(interface, IPv6Interface):
        raise _refused("constraint", "IPv6 is not available here")
    return interface


def _refused(reason: Reason, help_message: str) -> InvalidArguments:
    return InvalidArguments(("service_ip", reason, help_message))


def random_mac() -> str:
    """Return a MAC address of the recorded form: `02:00:00:16:82:7E`."""
    return ":".join(f"{octet:02X}" for octet in (2, 0, 0, *secrets.token_bytes(3)))
