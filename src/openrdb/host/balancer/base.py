"""What a load balancer does for an endpoint: the `Balancer` interface.

TCP is passed through: TLS ends in the engine. A silent session lives six hours, as the reference
service documents it.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
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

    @property
    def networks(self) -> list[Network] | None:
        """Those of `allowed` that its clients can be of, as few as say the same."""
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
        """Have an endpoint forward, to clients of the allowed networks only.

        Returns when it accepts and the networks are in force: sessions from others have been cut by
        then, and no other session was touched.
        """

    def remove(self, target: Target) -> None:
        """End an endpoint's forwarding and its sessions; harmless when there is none."""

    def program(self, target: Target) -> Program | None:
        """The process to keep running for an endpoint; None where the kernel does the work."""

    def missing(self, targets: Collection[Target]) -> Collection[Target]:
        """Those of which something is lost, by a reboot or by somebody's hand.

        Asked at each round of healing: cheap where nothing is.
        """

    def ensure_all(self, targets: Collection[Target]) -> None:
        """Put back what was lost of those that are to be there."""

    def alarm(self) -> socket.socket | None:
        """What becomes readable as soon as something may be missing, where the kernel says so."""

    def clear(self) -> None:
        """Take away what the kernel does for endpoints; a no-op where processes do the work."""

    def is_free(self, listen: Place) -> bool:
        """Whether nobody listens there, nor is led elsewhere from there."""


def place(address: Place) -> str:
    """As configurations have it: "192.0.2.1:5432", "[2001:db8::1]:5432"."""
    ip, port = address
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def nobody_listens(listen: Place) -> bool:
    """Whether no socket is bound there, be the address this machine's or not."""
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
