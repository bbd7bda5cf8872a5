"""Ranges of private networks: those that users ask for, and those that we choose.

Endpoints are real addresses of this machine, so no two networks of a deployment may overlap, nor hold
an address that the machine has for something else.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from openrdb.errors import InvalidArguments, QuotasExceeded, Reason

CHOSEN_LENGTH = 22
"""A new network gets an IPv4 /22 and an IPv6 /64."""
_LARGEST, _SMALLEST = 20, 29
_UNIQUE_LOCAL = 0xFD << 120
_THIS_NETWORK = IPv4Network("0.0.0.0/8")


def choose(within: IPv4Network, taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return a free /22, at random: one just freed is seldom given to somebody else at once, and two
    deployments on one machine seldom choose the same.

    Raises:
        QuotasExceeded: the range is used up.
    """
    size = 2 ** (32 - CHOSEN_LENGTH)
    count = within.num_addresses // size
    base = int(within.network_address)
    used = {
        block
        for network in taken
        if network.overlaps(within)
        for block in range(
            (int(network.network_address) - base) // size,
            (int(network.broadcast_address) - base) // size + 1,
        )
    }
    free = [block for block in range(count) if block not in used]
    if not free:
        raise QuotasExceeded("private_networks", count, count)
    block = random.choice(free)  # noqa: S311
    return IPv4Network((base + block * size, CHOSEN_LENGTH))


def choose_ipv6() -> IPv6Network:
    """Return a unique local /64 (RFC 4193); there are 2^56, so no two are the same."""
    return IPv6Network((_UNIQUE_LOCAL | secrets.randbits(56) << 64, 64))


def asked(
    subnets: Sequence[str],
    taken: Iterable[IPv4Network],
    *,
    private_range: IPv4Network,
    own_addresses: Collection[IPv4Address],
) -> IPv4Network:
    """Return the range that a user asks for.

    Raises:
        InvalidArguments: it is not a subnet, or not available here.
    """
    if len(subnets) > 1:
        raise _refused(
            "constraint", "a private network has one IPv4 subnet; that of IPv6 is chosen"
        )
    subnet = _parsed(subnets[0])
    if not _LARGEST <= subnet.prefixlen <= _SMALLEST:
        raise _refused("constraint", f"must be between /{_LARGEST} and /{_SMALLEST}")
    of_deployment = subnet.subnet_of(private_range)
    if subnet.overlaps(private_range) and not of_deployment:
        raise _refused("constraint", f"must be inside or outside of {private_range}")
    if not of_deployment:
        if not is_private(subnet.network_address) or not is_private(subnet.broadcast_address):
            raise _refused("constraint", "must be a range of private addresses")
        if any(address in subnet for address in own_addresses):
            raise _refused("constraint", "holds an address of the deployment's own machine")
    if any(subnet.overlaps(other) for other in taken):
        raise _refused("constraint", "overlaps with another private network")
    return subnet


def is_private(address: IPv4Address) -> bool:
    """Return whether an address is for use in private networks."""
    return address.is_private and not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address in _THIS_NETWORK
    )


def _parsed(text: str) -> IPv4Network:
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise _refused("format", "must be a range in CIDR form, as 10.0.0.0/24") from None
    if isinstance(loose, IPv6Network):
        raise _refused("constraint", "ranges of IPv6 are chosen by the deployment")
    if text != str(loose):
        raise _refused("format", f"has host bits set, or is written unusually; {loose} is a range")
    return loose


def _refused(reason: Reason, help_message: str) -> InvalidArguments:
    return InvalidArguments(("subnets", reason, help_message))
