"""What an agent keeps on disk: what should run here, so that it heals without the control plane."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from openrdb.errors import HostError
from openrdb.spec import (
    DEFAULT_POOL,
    Desired,
    KnownInstance,
    KnownNode,
    NodeSpec,
    Role,
    Route,
    Writes,
)
from openrdb.system import files
from openrdb.system.layout import Layout

T = TypeVar("T")

log = logging.getLogger(__name__)

FORMAT = 1
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMOVALS = 100
"""Removed endpoints that are remembered of an instance: far more than calls can be late for."""


@dataclass(frozen=True)
class NodeRecord:
    """A node as it should be, and what only this host decides."""

    spec: NodeSpec
    bundle: str
    """The binaries that it runs; newer ones are a maintenance's matter."""
    desired: Desired = "stopped"
    data_versions: Mapping[str, str] | None = None
    """Versions of collations and time zones when the data was first written; None: not known yet."""
    renewed_for: str = ""
    """What its databases were renewed for, as `data_versions.renewal` says it; empty: not known."""
    build: str = ""
    """The code that last brought the server to what servers are born with; empty: older code."""
    held: str | None = None
    """The mark of what had been written when writes were held, empty until there is one; None: they
    are not."""
    pool: str = DEFAULT_POOL
    """The pool that its volume is in, whatever is wished for."""
    writes: Writes = "open"
    """What its users may write: in force from the next start on, whatever it is now."""
    are_writes_in_force: bool = True
    """Whether the running server was brought to it; if not, it is as soon as possible."""
    closed_for_others: bool = False
    """Whether its writes are closed because the pool, not the volume, is nearly full."""
    followed: bool = False
    """Whether changes are kept for an upgraded copy."""
    promoting: bool = False
    """Whether a read replica's volume becomes another instance's. Once it is to be `stopped` it has
    all that it received, and is not started again."""
    format: int = FORMAT


@dataclass(frozen=True)
class PairRecord:
    """Two nodes of an instance, one of which takes writes; on disk before anything follows from it."""

    instance_id: UUID
    members: tuple[UUID, UUID]
    primary: UUID
    """The only node that is ever opened."""
    epoch: int = 1
    """Raised with each change of the primary."""
    is_armed: bool = False
    """Whether the standby has all that the primary ever acknowledged: only then may it be promoted."""
    is_opened: bool = True
    """Whether the primary has been open since it was made it, or since it was started again with all
    that was acknowledged on both: until then nobody wrote."""
    may_go_back: bool = False
    """Whether the standby has all that was acknowledged, too, as long as the primary is not opened."""
    is_restart: bool = False
    """Whether a primary that is not open yet was it before: it has what it may take long to replay."""
    unusable: bool = False
    """Whether the standby's data is to be copied again before it is started."""
    format: int = FORMAT

    @property
    def is_reversible(self) -> bool:
        """Whether the standby could be the primary instead, and nothing acknowledged would be lost."""
        return self.may_go_back and not self.is_opened

    @property
    def standby(self) -> UUID:
        return self.members[1] if self.primary == self.members[0] else self.members[0]


@dataclass(frozen=True)
class RouteRecord:
    """An endpoint as it should be."""

    route: Route
    format: int = FORMAT


_NODE = TypeAdapter(NodeRecord)
_ROUTE = TypeAdapter(RouteRecord)
_PAIR = TypeAdapter(PairRecord)


class Records:
    """The records of a host's nodes and routes; each change is on disk when its method returns."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.nodes: dict[UUID, NodeRecord] = {}
        self.routes: dict[UUID, RouteRecord] = {}
        self.pairs: dict[UUID, PairRecord] = {}
        """By instance."""
        self.lost_pairs: dict[UUID, str] = {}
        """Why it is not known which node of an instance takes writes. Without its pair's record both
        would, so neither is started, or changed."""
        self._load_nodes("*")
        for path in layout.root.glob("instances/*/routes/*.json"):
            if (route := _read(_ROUTE, path)) is not None:
                self.routes[route.route.endpoint_id] = route

    def _load_nodes(self, instance: str) -> None:
        # Pairs before their nodes: others look at them at the same time. What is known is newer.
        for path in self._layout.instances.glob(f"{instance}/pair.json"):
            with contextlib.suppress(ValueError):  # nothing of ours
                self._load_pair(UUID(path.parent.name))
        for path in self._layout.instances.glob(f"{instance}/nodes/*/node.json"):
            if (node := _read(_NODE, path)) is not None:
                self.nodes.setdefault(node.spec.node_id, node)

    def _load_pair(self, instance_id: UUID) -> None:
        path = self._layout.pair(instance_id)
        try:
            pair = _parse(_PAIR, path)
        except HostError as error:
            self.lose_pair(instance_id, error.explanation)
            return
        if pair is not None:
            self.pairs.setdefault(instance_id, pair)
            self.lost_pairs.pop(instance_id, None)

    def _write(self, path: Path, content: str) -> None:
        """Write a record; on a full disk with what is kept aside for that, which serves no longer
        then: a record that cannot be written keeps a pair whose volumes have room from failing over.
        """
        try:
            files.write_private(path, content)
        except OSError as error:
            if error.errno not in _FULL or not self._layout.reserve.exists():
                raise
            log.warning("no space is left in %s: gave back what is kept aside", self._layout.root)
            files.remove_file(self._layout.reserve)
            files.write_private(path, content)

    def load_instance(self, instance_id: UUID) -> None:
        """Read what is written down of an instance whose files were brought back."""
        self._load_nodes(str(instance_id))

    def lose_pair(self, instance_id: UUID, why: str) -> None:
        """Note that it is not known which node of an instance takes writes."""
        why = f"which node takes writes is not known: {why}"
        if self.lost_pairs.get(instance_id) != why:
            log.error("pair %s: %s", instance_id, why)
        self.lost_pairs[instance_id] = why

    def find_pairs(self) -> bool:
        """Look for the records of pairs that could not be read; return whether one is there by now."""
        lost = list(self.lost_pairs)
        for instance_id in lost:
            self._load_pair(instance_id)
        return len(self.lost_pairs) < len(lost)

    def why_lost(self, node: NodeRecord) -> str | None:
        """Return why it is not known whether a node takes writes; None if it is."""
        is_replica = node.spec.role == "replica"
        return None if is_replica else self.lost_pairs.get(node.spec.instance_id)

    def require_pair(self, instance_id: UUID) -> None:
        """Raise HostError if it is not known which node of an instance takes writes."""
        if (why := self.lost_pairs.get(instance_id)) is not None:
            raise HostError(why)

    def save_node(self, record: NodeRecord) -> None:
        if self.nodes.get(record.spec.node_id) != record:
            path = self._layout.node(record.spec.instance_id, record.spec.node_id).record
            self._write(path, _NODE.dump_json(record).decode())
            self.nodes[record.spec.node_id] = record

    def save_pair(self, record: PairRecord) -> None:
        if self.pairs.get(record.instance_id) != record:
            path = self._layout.pair(record.instance_id)
            self._write(path, _PAIR.dump_json(record).decode())
            self.pairs[record.instance_id] = record

    def remove_pair(self, instance_id: UUID) -> None:
        files.remove_file(self._layout.pair(instance_id))
        self.pairs.pop(instance_id, None)

    def forget_node(self, node_id: UUID) -> None:
        """Drop one node of an instance that stays, with all but its volume."""
        if (record := self.nodes.pop(node_id, None)) is not None:
            files.remove_tree(self._layout.node(record.spec.instance_id, node_id).root)

    def pair_of(self, node: NodeRecord) -> PairRecord | None:
        """Return the pair that a node is one of; None if it is none's."""
        pair = self.pairs.get(node.spec.instance_id)
        return pair if pair is not None and node.spec.node_id in pair.members else None

    def role_of(self, node: NodeRecord) -> Role:
        """Return what a node is now: of a pair that cannot be read, nobody takes writes."""
        if self.why_lost(node) is not None:
            return "standby"
        if (pair := self.pair_of(node)) is not None:
            return "primary" if pair.primary == node.spec.node_id else "standby"
        return "replica" if node.spec.role == "replica" else "primary"

    def save_route(self, record: RouteRecord) -> None:
        route = record.route
        if self.routes.get(route.endpoint_id) != record:
            directory = self._layout.routes(route.instance_id)
            directory.mkdir(mode=0o700, exist_ok=True)
            path = directory / f"{route.endpoint_id}.json"
            self._write(path, _ROUTE.dump_json(record).decode())
            self.routes[route.endpoint_id] = record
            files.remove_file(self._removal(route))

    def removed_in(self, route: Route) -> int | None:
        """Return the generation in which an instance lost an endpoint; None: it did not, or that is
        long ago."""
        try:
            return int(self._removal(route).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def note_removal(self, route: Route) -> None:
        """Remember that an instance loses an endpoint, in this generation or the one that is known."""
        known = self.routes.get(route.endpoint_id)
        is_same = known is not None and known.route.instance_id == route.instance_id
        latest = known.route.generation if known is not None and is_same else 0
        latest = max(latest, route.generation, self.removed_in(route) or 0)
        directory = self._layout.routes(route.instance_id)
        if not directory.parent.exists():
            return  # the whole instance is gone
        directory.mkdir(mode=0o700, exist_ok=True)
        files.write_private(self._removal(route), str(latest))
        removals = sorted(directory.glob("*.removed"), key=lambda path: path.stat().st_mtime_ns)
        for path in removals[:-_REMOVALS]:
            files.remove_file(path)

    def require_own_account(self, spec: NodeSpec) -> None:
        """Raise HostError if the account of a new node is another instance's, whose data it could
        read: a restored state may not know that one."""
        others = [one.spec for one in list(self.nodes.values()) if one.spec.uid is not None]
        for other in others:
            if other.uid == spec.uid and other.instance_id != spec.instance_id:
                raise HostError(f"the account {spec.uid} is that of instance {other.instance_id}")

    def known_instances(self) -> list[KnownInstance]:
        """Return what is written down of all instances; see `Host`."""
        nodes = list(self.nodes.values())
        generations = [(one.spec.instance_id, one.spec.generation) for one in nodes]
        routes = [one.route for one in list(self.routes.values())]
        generations += [(one.instance_id, one.generation) for one in routes]
        latest: dict[UUID, int] = {}
        for instance_id, generation in generations:
            latest[instance_id] = max(latest.get(instance_id, 0), generation)
        engines = {one.spec.instance_id: one.spec.engine for one in nodes}
        found: dict[UUID, set[UUID]] = {}
        for path in self._layout.instances.glob("*/nodes/*"):
            # A record that is damaged is there as well.
            if (path / "node.json").exists() or (path / "data").exists():
                with contextlib.suppress(ValueError):  # nothing of ours
                    found.setdefault(UUID(path.parts[-3]), set()).add(UUID(path.name))
        return [
            KnownInstance(
                instance_id=instance_id,
                engine=engines.get(instance_id, ""),
                generation=max(latest.get(instance_id, 0), self._latest_removal(instance_id)),
                nodes=tuple(sorted(ids)),
                pair=self._known_pair(instance_id),
            )
            for instance_id, ids in sorted(found.items())
        ]

    def _known_pair(self, instance_id: UUID) -> tuple[KnownNode, ...]:
        """Return both nodes of an instance's pair; none if it is none, or not all of it is known."""
        pair = self.pairs.get(instance_id)
        if pair is None or not self.nodes.keys() >= set(pair.members):
            return ()
        nodes = [self.nodes[one] for one in pair.members]
        return tuple(
            KnownNode(
                *(one.spec.node_id, one.spec.address, one.spec.port, one.spec.pool),
                role=self.role_of(one),
                epoch=pair.epoch,
            )
            for one in nodes
        )

    def _latest_removal(self, instance_id: UUID) -> int:
        """Return the generation in which an instance last lost an endpoint of a replica."""
        texts = [path.read_text() for path in self._layout.routes(instance_id).glob("*.removed")]
        return max((int(text) for text in texts if text.isdecimal()), default=0)

    def _removal(self, route: Route) -> Path:
        return self._layout.routes(route.instance_id) / f"{route.endpoint_id}.removed"

    def remove_route(self, route: Route) -> None:
        self.routes.pop(route.endpoint_id, None)
        files.remove_file(self._layout.routes(route.instance_id) / f"{route.endpoint_id}.json")

    def forget_instance(self, instance_id: UUID) -> None:
        """Drop what is known of an instance whose files are being removed."""
        for node_id in [n for n, one in self.nodes.items() if one.spec.instance_id == instance_id]:
            del self.nodes[node_id]
        for key in [k for k, one in self.routes.items() if one.route.instance_id == instance_id]:
            del self.routes[key]
        self.pairs.pop(instance_id, None)
        self.lost_pairs.pop(instance_id, None)


def _read(adapter: TypeAdapter[T], path: Path) -> T | None:
    try:
        return _parse(adapter, path)
    except HostError as error:
        log.error("left alone: %s", error.explanation)
        return None


def _parse(adapter: TypeAdapter[T], path: Path) -> T | None:
    """Return what a file says; None if there is none.

    Raises:
        HostError: it cannot be read, or is damaged.
    """
    try:
        return adapter.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise HostError(f"{path} is damaged: {complaint(error)}") from None


def complaint(error: ValidationError) -> str:
    """Return what is wrong with some data without a word of the data: secrets are among it."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{first['type']} at {place or 'its beginning'}"
