"""What a load balancer does for an endpoint: the `Balancer` interface.

TCP is passed through: TLS ends in the engine. A silent session lives six hours, as the reference
service documents it.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import ClassVar, Protocol
from uuid import UUID

from openrdb.host.processes import Program
from openrdb.system.accounts import Uid

Network = IPv4Network | IPv6Network
Place = tuple[str, int]
"""An address, without brackets, and a port."""


@dataclass(frozen=True)
class Target:
    """One endpoint: listens on an address and forwards to a node."""

    endpoint_id: UUID
    instance_id: UUID
    listen: Place
    node: Place
    connections: int
    """As many as the engine takes at once."""
    uid: Uid
    allowed: tuple[str, ...] | None = None
    """The networks (CIDR, IPv4 and IPv6) whose clients are let in; None: everybody's."""

    @cached_property
    def networks(self) -> list[Network] | None:
        """The allowed networks of the endpoint's IP version, collapsed."""
        if self.allowed is None:
            return None
        version = ip_address(self.listen[0]).version
        networks = [ip_network(network) for network in self.allowed]
        if version == 4:
            return [*collapse_addresses(one for one in networks if isinstance(one, IPv4Network))]
        return [*collapse_addresses(one for one in networks if isinstance(one, IPv6Network))]


class Balancer(Protocol):
    name: ClassVar[str]

    def ensure(self, target: Target) -> None:
        """Make an endpoint forward, for clients of the allowed networks only.

        Returns when it accepts and the networks are in force: sessions from others have been cut by
        then, and no other session was touched.
        """

    def remove(self, target: Target) -> None:
        """End an endpoint's forwarding and its sessions; a no-op if there is none."""

    def program(self, target: Target) -> Program | None:
        """Return the process to keep running for an endpoint; None if the kernel does the work."""

    def missing(self, targets: Collection[Target]) -> Collection[Target]:
        """Return the endpoints of which something is lost, by a reboot or by somebody's hand.

        Called in each round of healing, so it is cheap if nothing is lost.
        """

    def ensure_all(self, targets: Collection[Target]) -> None:
        """Put back what was lost of these endpoints."""

    def alarm(self) -> socket.socket | None:
        """Return a socket that becomes readable when something may be missing, if the kernel tells."""

    def clear(self) -> None:
        """Remove what the kernel does for endpoints; a no-op if processes do the work."""

    def most_connections(self) -> int | None:
        """Return how many connections an endpoint can serve at once here; None: any number."""

    def is_free(self, listen: Place) -> bool:
        """Return whether nothing listens there and nothing is forwarded from there."""


def address_text(address: Place) -> str:
    """Return an address as configurations have it: "192.0.2.1:5432", "[2001:db8::1]:5432"."""
    ip, port = address
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def nobody_listens(listen: Place) -> bool:
    """Return whether no socket is bound there; the address need not be this machine's."""
    family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        try:
            probe.bind(listen)
        except OSError:
            return False
    return True


_FREEBIND = 15
"""IP_FREEBIND of linux/in.h, which Python's socket module lacks: also for IPv6."""
