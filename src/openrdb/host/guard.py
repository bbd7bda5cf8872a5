"""The guard of the nodes' ports: local processes come to a node by its endpoints, or not at all.

Engines listen on the loopback, where anybody on the machine could pass by the endpoints' allowed
networks. A table of nftables of our own lets the instance's account start sessions there, as its load
balancer does, and resets all others. It sees a packet before any translation, so that sessions that
the kernel leads from an endpoint to its node are none of its concern.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import NamedTuple
from uuid import UUID

from openrdb.errors import HostError
from openrdb.host.balancer import tools
from openrdb.host.balancer.table import Table, digest
from openrdb.spec import NodeSpec
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)

PREFIX = "openrdb_guard_"
_TABLE = """\
add table inet {table}
add set inet {table} nodes {{ type ipv4_addr . inet_service; }}
add set inet {table} allowed {{ type ipv4_addr . inet_service . uid; }}
add chain inet {table} starting {{ type filter hook output priority -150; }}
flush chain inet {table} starting
add rule inet {table} starting tcp flags & (syn | ack) == syn \
ip daddr . tcp dport . meta skuid @allowed accept
add rule inet {table} starting tcp flags & (syn | ack) == syn \
ip daddr . tcp dport @nodes reject with tcp reset
"""
_EMPTY = "flush set inet {table} nodes\nflush set inet {table} allowed\n"
_BATCH = 500
"""Elements in one line."""


class _Node(NamedTuple):
    address: str
    port: int
    uid: int


class Guard:
    """The guard of one deployment; a no-op where `why_unusable` says why."""

    def __init__(self, layout: Layout) -> None:
        self._table = Table(PREFIX + digest(layout))
        self.is_there = why_unusable() is None
        self._changing = threading.Lock()
        self._nodes: dict[UUID, _Node] = {}

    def ensure(self, specs: Collection[NodeSpec]) -> None:
        """Guard some nodes' ports; a no-op where they are guarded.

        What fails is logged, and tried again by `heal`.
        """
        wanted = {spec.node_id: node for spec in specs if (node := _guarded(spec)) is not None}
        with self._changing:
            if any(self._nodes.get(key) != node for key, node in wanted.items()):
                gone = [self._nodes[key] for key in wanted if key in self._nodes]
                self._nodes |= wanted
                self._change(gone, wanted.values())

    def forget(self, node_ids: Iterable[UUID]) -> None:
        """Stop guarding some nodes' ports, which other programs may take from now on."""
        with self._changing:
            gone = [node for one in node_ids if (node := self._nodes.pop(one, None)) is not None]
            if gone:
                self._change(gone, ())

    def heal(self) -> None:
        """Put the table back where somebody touched it; cheap where nobody did."""
        if not self.is_there:
            return
        with self._changing:
            if self._table.is_untouched():
                self._table.remember()
            elif self._nodes:
                self._write_all()

    def clear(self) -> None:
        """Guard nothing any more, and take the table away; a no-op where there is none."""
        with self._changing:
            self._nodes.clear()  # else `heal`, which hears of the removal, puts it back
            if self.is_there:
                self._table.remove()

    def _change(self, gone: Iterable[_Node], new: Iterable[_Node]) -> None:
        if not self.is_there:
            return
        if not self._table.is_untouched():
            self._write_all()
            return
        frame = _TABLE.format(table=self._table.name)
        script = frame + self._elements("delete", gone) + self._elements("add", new)
        self._commit(script, whole=False)

    def _write_all(self) -> None:
        script = (_TABLE + _EMPTY).format(table=self._table.name)
        self._commit(script + self._elements("add", self._nodes.values()), whole=True)

    def _commit(self, script: str, *, whole: bool) -> None:
        try:
            self._table.commit(script, whole=whole)
        except HostError as error:
            log.warning("nodes' ports are not guarded from local processes: %s", error)

    def _elements(self, verb: str, nodes: Iterable[_Node]) -> str:
        listed, script = sorted(set(nodes)), ""
        for first in range(0, len(listed), _BATCH):
            some = listed[first : first + _BATCH]
            places = ", ".join(f"{one.address} . {one.port}" for one in some)
            allowed = ", ".join(f"{one.address} . {one.port} . {one.uid}" for one in some)
            script += f"{verb} element inet {self._table.name} nodes {{ {places} }}\n"
            script += f"{verb} element inet {self._table.name} allowed {{ {allowed} }}\n"
        return script


def why_unusable() -> str | None:
    """Return why local processes cannot be kept from nodes' ports, found by trying; None if they
    can."""
    if os.geteuid() != 0:
        return "it needs root"
    try:
        # A rehearsal by the kernel itself, which ends without a trace.
        tools.run("nft", "--check", "-f", "-", text=_TABLE.format(table=f"{PREFIX}trial"))
    except HostError as error:
        return str(error)
    return None


def _guarded(spec: NodeSpec) -> _Node | None:
    if spec.uid is None or ip_address(spec.address).version != 4:
        return None
    return _Node(spec.address, spec.port, spec.uid)
