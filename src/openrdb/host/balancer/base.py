"""What a load balancer does for an endpoint: the `Balancer` interface.

TCP is passed through: TLS ends in the engine. A silent session lives six hours, as the reference
service documents it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import ClassVar, Protocol
from uuid import UUID

from openrdb.host.processes import Program
from openrdb.system.accounts import Uid
from openrdb.system.addresses import family_of

Network = IPv4Network | IPv6Network
Place = tuple[str, int]
"""An address, without brackets, and a port."""


@dataclass(frozen=True)
class Target:
    """One endpoint: listens on an address and forwards to one node at a time."""

    endpoint_id: UUID
    instance_id: UUID
    listen: Place
    nodes: tuple[Place, ...]
    """Where it may lead. With one node alone, clients who come while it is down wait for it; with
    several they are refused at once, as another one may take its place."""
    leads: Place | None
    """The node that takes connections now; None: none, and clients are refused at once."""
    connections: int
    """As many as the engine takes at once."""
    uid: Uid
    allowed: tuple[str, ...] | None = None
    """The networks (CIDR, IPv4 and IPv6) whose clients are let in; None: everybody's."""
    term: int = 0
    """Raised whenever another node is to lead, so that nobody goes by an older word."""

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
        then, and no other session was touched. It leads where the newest term says.
        """

    def lead(self, target: Target) -> None:
        """Let an endpoint lead to `target.leads` and nowhere else, at once: sessions that lead
        elsewhere are cut. What does not obey within a second is replaced in the background.

        Raises:
            HostError: it may lead elsewhere still.
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


class Terms:
    """Which node leads each endpoint, by the newest term that anybody has spoken of."""

    def __init__(self) -> None:
        self._newest: dict[UUID, Target] = {}
        self._changing = threading.Lock()

    def newest(self, target: Target) -> Target:
        """Return an endpoint as given, but led as the newest term says."""
        with self._changing:
            known = self._newest.get(target.endpoint_id)
            if known is not None and known.term > target.term:
                target = replace(target, leads=known.leads, term=known.term)
            self._newest[target.endpoint_id] = target
            return target

    def forget(self, target: Target) -> None:
        with self._changing:
            self._newest.pop(target.endpoint_id, None)


def address_text(address: Place) -> str:
    """Return an address as configurations have it: "192.0.2.1:5432", "[2001:db8::1]:5432"."""
    ip, port = address
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def nobody_listens(listen: Place) -> bool:
    """Return whether no socket is bound there; the address need not be this machine's."""
    with socket.socket(family_of(listen[0]), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        try:
            probe.bind(listen)
        except OSError:
            return False
    return True


_FREEBIND = 15
"""IP_FREEBIND of linux/in.h, which Python's socket module lacks: also for IPv6."""
