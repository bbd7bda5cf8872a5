"""What a load balancer does for an endpoint: the `Balancer` interface (DESIGN section 8).

TCP is passed through: TLS ends in the engine. A silent session lives six hours, as the document says
("Endpoints").
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Protocol
from uuid import UUID

from openrdb.host.accounts import Uid
from openrdb.host.processes import Program


@dataclass(frozen=True)
class Target:
    """One endpoint: listens on an address and forwards to a node."""

    endpoint_id: UUID
    instance_id: UUID
    listen: tuple[str, int]
    node: tuple[str, int]
    connections: int
    """As many as the engine takes at once."""
    uid: Uid
    allowed: tuple[str, ...] | None = None
    """The networks (CIDR, IPv4 and IPv6) whose clients are let in; None: everybody's."""


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

    def ensure_all(self, targets: Collection[Target]) -> None:
        """Put back what was lost of those that are to be there, by a reboot or by somebody's hand.

        Called at each round of healing: cheap where nothing is missing.
        """
