"""nftables, the driver for hosts with root: the kernel itself leads sessions to their nodes.

Each change is one transaction of the kernel's (ruleset.py) and touches no session that it still
allows; those that it does not are cut (sessions.py).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

from openrdb.errors import HostError
from openrdb.host.balancer import ruleset, sessions, tools
from openrdb.host.balancer.base import Place, Target, Terms, nobody_listens
from openrdb.host.balancer.table import Table, alarm, digest
from openrdb.host.processes import Program
from openrdb.system.layout import Layout

_ROUTE_LOCALNET = Path("/proc/sys/net/ipv4/conf/all/route_localnet")
"""Whether the kernel leads anybody from outside to 127.0.0.0/8, where the nodes listen."""


class Nftables:
    name: ClassVar[str] = "nftables"

    def __init__(self, layout: Layout) -> None:
        self.table = ruleset.PREFIX + digest(layout)
        self._table = Table(self.table)
        self._opened = layout.run / "route_localnet"
        """There while it is us who turned it on."""
        self._terms = Terms()
        self._changing = threading.Lock()

    @staticmethod
    def takes(target: Target) -> bool:
        """Return whether the kernel can forward an endpoint's clients: it does not translate IPv6
        to IPv4, and leads nobody from outside to ::1."""
        listen, nodes = ip_address(target.listen[0]), [ip_address(ip) for ip, _ in target.nodes]
        inward = any(node.is_loopback for node in nodes) and not listen.is_loopback
        same = all(node.version == listen.version for node in nodes)
        return same and not (inward and listen.version == 6)

    def ensure(self, target: Target) -> None:
        self._write([target], whole=False)

    def lead(self, target: Target) -> None:
        self._write([target], whole=False)

    def ensure_all(self, targets: Collection[Target]) -> None:
        self._write(targets, whole=True)

    def _write(self, targets: Collection[Target], *, whole: bool) -> None:
        with self._changing:
            targets = [self._terms.newest(target) for target in targets]
            here = self._present({ruleset.family_of(target).version for target in targets})
            guarded = any(map(_serves_others, targets))
            script, abandoned = ruleset.frame(self.table, guarded=guarded), set[Place]()
            for target in targets:
                forgotten = _led_to(target, here) - {target.listen}
                if here.get(target.listen, ruleset.chain(target)) != ruleset.chain(target):
                    forgotten.add(target.listen)
                script += ruleset.endpoint(self.table, target, forgotten)
                here = {listen: to for listen, to in here.items() if listen not in forgotten}
                here[target.listen] = ruleset.chain(target)
                abandoned |= forgotten
            self._table.commit(script, whole=whole)
            if guarded:
                self._open()
            _cut_strangers(targets, abandoned - set(here))

    def remove(self, target: Target) -> None:
        with self._changing:
            mine = _led_to(target, self._present({ruleset.family_of(target).version}))
            if mine:
                self._table.commit(ruleset.no_endpoint(self.table, target, mine))
            sessions.cut(sessions.led_from({*mine, target.listen}))
            self._terms.forget(target)

    def clear(self) -> None:
        """Take the table away, and end the sessions that it led; harmless when there is none."""
        with self._changing:
            if not self._table.exists():
                return
            mine = self._present({4, 6})
            if self._opened.exists():
                _ROUTE_LOCALNET.write_text("0")
                self._opened.unlink()
            # The clients hear of their sessions' end only while the kernel still translates.
            self._table.commit(ruleset.no_endpoints(self.table))
            sessions.cut(sessions.led_from(mine))
            self._table.remove()

    def program(self, target: Target) -> Program | None:
        return None

    def missing(self, targets: Collection[Target]) -> Collection[Target]:
        """Return all endpoints or none: it is known only whether somebody touched the table."""
        with self._changing:
            closed = any(map(_serves_others, targets)) and not _is_open()
            if closed or not self._table.is_untouched():
                return targets
            self._table.remember()
            return ()

    def alarm(self) -> socket.socket:
        """Return a socket that tells of each table's change: a firewall's reload may flush all."""
        return alarm()

    def most_connections(self) -> None:
        """Return None: the kernel keeps no descriptors for them."""

    def is_free(self, listen: Place) -> bool:
        """Return whether nothing listens there, other deployments on this machine included."""
        led = ruleset.led_from(tools.run("nft", "-j", "list", "maps", "inet"))
        return listen not in led and nobody_listens(listen)

    def _present(self, versions: Collection[int]) -> dict[Place, str]:
        """Return the endpoints' chains by what the table leads to them."""
        here: dict[Place, str] = {}
        for version in versions:
            listed = self._table.listed(
                "-j", "list", "map", "inet", self.table, f"endpoints{version}"
            )
            here |= ruleset.led_from(listed) if listed else {}
        return here

    def _open(self) -> None:
        """Let the kernel forward clients from outside to the loopback, now that the guard is there."""
        if not _is_open():
            self._opened.touch()
            try:
                _ROUTE_LOCALNET.write_text("1")
            except OSError as error:
                raise HostError(f"cannot write to {_ROUTE_LOCALNET}: {error}") from error


def why_unusable(public_address: str) -> str | None:
    """Return why nftables cannot serve this host's endpoints, found by trying; None where it can."""
    if os.geteuid() != 0:
        return "it needs root"
    address = ip_address(public_address)
    if not address.is_loopback and address.version == 4 and not os.access(_ROUTE_LOCALNET, os.W_OK):
        return f"{_ROUTE_LOCALNET} is not writable"
    try:
        tools.find("ss")
        tools.run("conntrack", "-C")
        # A rehearsal by the kernel itself, which ends without a trace.
        trial = ruleset.frame(ruleset.PREFIX + "trial", guarded=True)
        tools.run("nft", "-j", "--check", "-f", "-", text=trial)
    except HostError as error:
        return str(error)
    return None


def _serves_others(target: Target) -> bool:
    """Return whether clients of other machines are led to this machine's loopback."""
    inward = any(ip_address(node).is_loopback for node, _ in target.nodes)
    return inward and not ip_address(target.listen[0]).is_loopback


def _is_open() -> bool:
    return _ROUTE_LOCALNET.read_text().strip() == "1"


def _led_to(target: Target, here: dict[Place, str]) -> set[Place]:
    """Return what the table leads to an endpoint's chain."""
    return {listen for listen, chain in here.items() if chain == ruleset.chain(target)}


def _cut_strangers(targets: Collection[Target], abandoned: Collection[Place]) -> None:
    """End the sessions that endpoints would not lead where they are led, or at all any more."""
    by_listen = {target.listen: target for target in targets}
    allowed = {target.listen: target.networks for target in targets}

    def is_strange(session: sessions.Session) -> bool:
        target = by_listen.get(session.listen)
        if target is None or session.node != target.leads:
            return True
        networks, source = allowed[session.listen], ip_address(session.client[0])
        return networks is not None and not any(source in network for network in networks)

    led = sessions.led_from({*by_listen, *abandoned})
    sessions.cut([session for session in led if is_strange(session)])
