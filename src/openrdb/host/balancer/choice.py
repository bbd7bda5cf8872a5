"""Choose the driver that serves endpoints, by the operator's wish and by what this host can do."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

from openrdb.config import BalancerWish
from openrdb.errors import HostError
from openrdb.host.balancer.base import Balancer, Place, Target
from openrdb.host.balancer.haproxy import HAProxy
from openrdb.host.balancer.nftables import Nftables, why_unusable
from openrdb.host.cgroups import Cgroups
from openrdb.host.healing import Healer
from openrdb.host.processes import Program
from openrdb.system.bundle import Bundle
from openrdb.system.layout import Layout


@dataclass(frozen=True)
class Choice:
    driver: Literal["haproxy", "nftables"]
    why: str


def choose(wish: BalancerWish, public_address: str) -> Choice:
    """Return the driver to use, and why; `auto` is HAProxy (docs/decisions.md, "Load balancer").

    Raises:
        HostError: nftables is wished for and does not work here.
    """
    if wish == "haproxy":
        return Choice("haproxy", "as configured")
    unusable = why_unusable(public_address)
    if wish == "nftables":
        if unusable:
            raise HostError(f"the load balancer nftables cannot be used: {unusable}")
        return Choice("nftables", "as configured")
    other = f"cannot be used: {unusable}" if unusable else 'is there for balancer = "nftables"'
    return Choice("haproxy", f"clients wait for a restarting engine; nftables {other}")


def balancer(
    choice: Choice, layout: Layout, bundle: Bundle, healer: Healer, cgroups: Cgroups | None
) -> Balancer:
    """Return the chosen driver; remove nftables' rules if it is not the one."""
    haproxy, nftables = HAProxy(layout, bundle, healer, cgroups), Nftables(layout)
    if choice.driver == "nftables":
        return NftablesFirst(nftables, haproxy)
    nftables.clear()
    return haproxy


class NftablesFirst:
    """nftables, and HAProxy for the endpoints that the kernel cannot forward."""

    name: ClassVar[str] = "nftables"

    def __init__(self, nftables: Nftables, haproxy: HAProxy) -> None:
        self._nftables = nftables
        self._haproxy = haproxy

    def _driver(self, target: Target) -> Balancer:
        return self._nftables if self._nftables.takes(target) else self._haproxy

    def ensure(self, target: Target) -> None:
        self._driver(target).ensure(target)
        self._leave(target)

    def _leave(self, target: Target) -> None:
        """Remove HAProxy's process of an endpoint that nftables serves now."""
        if self._nftables.takes(target) and self._haproxy.has(target):
            self._haproxy.remove(target)

    def lead(self, target: Target) -> None:
        self._driver(target).lead(target)

    def remove(self, target: Target) -> None:
        self._driver(target).remove(target)
        self._leave(target)

    def program(self, target: Target) -> Program | None:
        return self._driver(target).program(target)

    def missing(self, targets: Collection[Target]) -> Collection[Target]:
        mine, others = self._shared(targets)
        left = [target for target in mine if self._haproxy.has(target)]
        return {*self._nftables.missing(mine), *self._haproxy.missing(others), *left}

    def ensure_all(self, targets: Collection[Target]) -> None:
        mine, others = self._shared(targets)
        self._nftables.ensure_all(mine)
        self._haproxy.ensure_all(others)
        for target in mine:
            self._leave(target)

    def alarm(self) -> socket.socket:
        return self._nftables.alarm()

    def clear(self) -> None:
        self._nftables.clear()

    def is_free(self, listen: Place) -> bool:
        return self._nftables.is_free(listen)

    def most_connections(self) -> int | None:
        """Return what HAProxy can serve: which driver an endpoint gets depends on its address."""
        return self._haproxy.most_connections()

    def _shared(self, targets: Collection[Target]) -> tuple[list[Target], list[Target]]:
        """Return the endpoints that nftables serves, and those that HAProxy does."""
        mine = [target for target in targets if self._nftables.takes(target)]
        return mine, [target for target in targets if not self._nftables.takes(target)]
