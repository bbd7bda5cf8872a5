"""This machine's pairs: nodes that protect each other, each pair with its keeper."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from openrdb.engines import replication_of, templates_of
from openrdb.engines.base import EngineNode, Server
from openrdb.engines.replication import Upstream
from openrdb.errors import HostError, PreconditionFailed, StartFailed
from openrdb.host.local_nodes import (
    HEAL_TIMEOUT,
    LocalNodes,
    healing,
    not_starting,
    program_name,
)
from openrdb.host.pairs import PairKeeper, planned
from openrdb.host.processes import Program
from openrdb.host.records import NodeRecord, PairRecord
from openrdb.spec import NodeSpec
from openrdb.system import files, processes
from openrdb.system.processes import Identity

log = logging.getLogger(__name__)

_OPEN_TIMEOUT = 300.0
_LOWERED = 10.0
"""Seconds in which a follower has received which settings were lowered."""
_NEARLY_FULL = 64 * 2**20
"""Free bytes of a pool with which no server that has broken off would come up again."""


class LocalPairs(LocalNodes):
    """The part of `LocalHost` that keeps pairs."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self._keepers: dict[UUID, PairKeeper] = {}
        """By instance."""
        self._followed: dict[UUID, Mapping[str, int]] = {}
        """What no follower of a node may have lower, by the node, as it was last asked."""
        self._ground = LocalGround(self)
        self._note_lost_pairs()

    # -- keepers -------------------------------------------------------------------------------

    def _note_lost_pairs(self) -> None:
        """Note the pairs whose record is gone: both nodes have data, one of them from the other."""
        nodes = [one for one in self._records.nodes.values() if one.spec.role != "replica"]
        paired = [one for one in nodes if one.spec.is_paired]
        alone = [one for one in paired if self._records.pair_of(one) is None]
        made = Counter(one.spec.instance_id for one in alone if self._has_data(one))
        for instance_id, count in made.items():
            if count > 1 and instance_id not in self._records.lost_pairs:
                self._records.lose_pair(instance_id, f"{self._layout.pair(instance_id)} is gone")

    def _has_data(self, record: NodeRecord) -> bool:
        try:
            return self._pools.exists(self._pools.volume_of(record))
        except HostError:
            return True  # as far as is known, while its pool is away

    def _keep_pairs(self) -> None:
        for instance_id in list(self._records.pairs):
            self._keep_pair(instance_id)

    def _keep_pair(self, instance_id: UUID) -> PairKeeper:
        """Return the keeper of a pair, which works from now on."""
        with self._guards[instance_id]:
            keeper = self._keepers.get(instance_id)
            if keeper is None:
                keeper = PairKeeper(self._ground, self._records.pairs[instance_id])
                self._keepers[instance_id] = keeper
                keeper.start()
            return keeper

    def _leave_pair(self, instance_id: UUID) -> None:
        """Let nobody look after a pair any more; its servers run on."""
        with self._guards[instance_id]:
            keeper = self._keepers.pop(instance_id, None)
        if keeper is not None:
            keeper.close()

    def _leave_pairs(self) -> None:
        for instance_id in list(self._keepers):
            self._leave_pair(instance_id)

    def _keeper_of(self, spec: NodeSpec) -> PairKeeper | None:
        """Return the keeper of the pair that a node is one of; None if it is alone, or not known."""
        record = self._records.nodes.get(spec.node_id)
        if record is None or self._records.pair_of(record) is None:
            return None
        return self._keep_pair(spec.instance_id)

    # -- what nodes are ------------------------------------------------------------------------

    def _leading(self, spec: NodeSpec) -> NodeRecord:
        record = self._record(spec.node_id)
        pair = self._records.pair_of(record)
        return record if pair is None else self._record(pair.primary)

    def _members(self, node_id: UUID) -> list[UUID]:
        """Return the nodes of a node's pair, or itself."""
        record = self._records.nodes.get(node_id)
        pair = self._records.pair_of(record) if record is not None else None
        return [node_id] if pair is None else list(pair.members)

    def _engine_node(self, record: NodeRecord) -> EngineNode:
        if (why := self._records.why_lost(record)) is not None:
            raise HostError(why)
        # First: it ends after the record says that commits wait, and with neither none would.
        keeper = self._keepers.get(record.spec.instance_id)
        arming = keeper is not None and keeper.arming
        node, pair = super()._engine_node(record), self._records.pair_of(record)
        if pair is None:
            return node
        if pair.primary == record.spec.node_id:
            waits = pair.is_armed or arming
            return replace(node, is_inert=True, synchronous=pair.standby if waits else None)
        return self._as_follower(node, pair.primary)

    def _as_follower(self, node: EngineNode, upstream: UUID) -> EngineNode:
        record = self._record(upstream)
        source, paths = record.spec, self._paths(record)
        place = Upstream(upstream, source.address, source.port, source.replication_secret, paths)
        least = self._followed.get(upstream, {})
        return replace(node, is_inert=True, upstream=place, at_least=least)

    def _note_followed(self, upstream: UUID) -> None:
        """Ask a node what its followers may not have lower; as it was, where it does not say."""
        with contextlib.suppress(Exception):
            self._followed[upstream] = self._server(self._record(upstream)).followed_settings()

    def _wait_lowered(self, follower: UUID, upstream: UUID) -> None:
        """Wait until a follower may be started again with what its upstream has lowered.

        One that does not receive now would keep it waiting without end, and starts with what it has.
        """
        self._note_followed(upstream)
        if not replication_of(self._server(self._record(follower))).wait_lowered(_LOWERED):
            log.warning("node %s is started without what node %s has lowered", follower, upstream)

    def _program_to_end(self, spec: NodeSpec) -> Program:
        program, record = super()._program_to_end(spec), self._records.nodes.get(spec.node_id)
        is_paired = record is not None and self._records.pair_of(record) is not None
        return replace(program, is_restarted=not is_paired)

    def _set_held(self, node_id: UUID, mark: str | None) -> None:
        for each in self._members(node_id):
            super()._set_held(each, mark)
        keeper = self._keepers.get(self._record(node_id).spec.instance_id)
        if keeper is not None:
            with keeper.planned():
                keeper.drop_probe()  # the next one writes nothing where writes are held

    def _set_followed(self, node_id: UUID, *, followed: bool) -> None:
        for each in self._members(node_id):
            super()._set_followed(each, followed=followed)

    def _pair_state(self, record: NodeRecord) -> tuple[int, str | None]:
        """Return `NodeState.epoch` and `NodeState.unprotected` of a node.

        Both nodes of a pair say the same: which of them is the primary is not heard at once of both.
        """
        if (why := self._records.why_lost(record)) is not None:
            return 0, why
        if (pair := self._records.pair_of(record)) is None:
            return 0, None
        keeper = self._keepers.get(pair.instance_id)
        return pair.epoch, keeper.unprotected() if keeper is not None else "it is being started"

    # -- verbs of nodes, for pairs -------------------------------------------------------------

    def ensure_running(self, spec: NodeSpec) -> None:
        self._accept(spec, "running")
        if (keeper := self._keeper_of(spec)) is None:
            super().ensure_running(spec)
        else:
            keeper.wake()

    def ensure_accepting(self, spec: NodeSpec) -> None:
        self._accept(spec, "running")
        if (keeper := self._keeper_of(spec)) is None:
            super().ensure_accepting(spec)
        else:
            keeper.wake()
            keeper.wait_open(_OPEN_TIMEOUT)

    def ensure_restarted(self, spec: NodeSpec) -> None:
        self._accept(spec, "running")
        if (keeper := self._keeper_of(spec)) is None:
            super().ensure_restarted(spec)
        else:
            self._set_held(spec.node_id, None)
            planned.restart(keeper)

    def ensure_stopped(self, spec: NodeSpec) -> None:
        self._accept(spec, "stopped")
        self._leave_pair(spec.instance_id)  # it is kept again as soon as a node is to run
        super().ensure_stopped(spec)

    def ensure_reloaded(self, spec: NodeSpec) -> bool:
        if self._keeper_of(spec) is None:
            return super().ensure_reloaded(spec)
        record = self._accept(spec, "running")
        if self._records.role_of(record) == "primary":
            self.ensure_accepting(spec)
        elif not self._accepts(record):
            return False  # its files say it to its next start
        return self._server(record).reload()

    def _accepting_server(self, spec: NodeSpec) -> Server:
        if (keeper := self._keeper_of(spec)) is None:
            return super()._accepting_server(spec)
        try:
            primary = keeper.wait_open(HEAL_TIMEOUT)
        except StartFailed:
            raise not_starting() from None
        except HostError:
            raise healing(spec) from None
        return self._server(self._record(primary))

    def _replace(self, spec: NodeSpec) -> None:
        if (keeper := self._keeper_of(spec)) is None:
            super()._replace(spec)
        else:
            keeper.kill(spec.node_id)
            keeper.wake()

    def _keep_later(self, spec: NodeSpec) -> None:
        if (keeper := self._keeper_of(spec)) is None:
            super()._keep_later(spec)
        else:
            keeper.wake()

    def _renew(self, spec: NodeSpec) -> None:
        record = self._record(spec.node_id)
        if self._records.role_of(record) == "primary":
            super()._renew(spec)
            return
        # What its server lacks comes from the primary.
        self._write_configuration(record)
        if self._accepts(record):
            self._server(record).reload()
        with self._guards[spec.node_id]:
            self._records.save_node(replace(self._record(spec.node_id), build=self._build))

    # -- verbs of pairs ------------------------------------------------------------------------

    def pair_obstacles(self, spec: NodeSpec) -> list[str]:
        if spec.node_id not in self._records.nodes:
            return []
        replication = self._accepting_server(spec).replication()
        if replication is None:
            return [f"{spec.engine} has no high availability here"]
        return replication.obstacles()

    def pair_warnings(self, spec: NodeSpec) -> list[str]:
        replication = self._accepting_server(spec).replication()
        return replication.warnings() if replication is not None else []

    def ensure_pair(self, primary: NodeSpec, standby: NodeSpec, timeout: float) -> bool:
        self._records.require_pair(primary.instance_id)
        self._accept(primary, "running")
        self._accept(standby, "running")
        if primary.instance_id not in self._records.pairs:
            self._begin_pair(primary, standby)
        keeper = self._keep_pair(primary.instance_id)
        keeper.wake()
        if not keeper.ensure_armed(timeout):
            return False
        start = partial(planned.start_for_pair, keeper)
        try:
            is_over = self._underway.ensure(f"pair {primary.instance_id}", start, timeout)
            return is_over and keeper.is_protected and planned.is_started_for_pair(keeper)
        except (
            HostError
        ) as error:  # whatever it is, its keeper brings it back to be protected first
            log.warning("instance %s: %s", primary.instance_id, error.explanation)
            return False

    def _begin_pair(self, primary: NodeSpec, standby: NodeSpec) -> None:
        if obstacles := self.pair_obstacles(primary):
            raise PreconditionFailed("resource_not_usable", "; ".join(obstacles))
        first = self._record(primary.node_id)
        self._take_after(standby, first, writes=first.writes)
        members = (primary.node_id, standby.node_id)
        pair = PairRecord(primary.instance_id, members, primary.node_id, unusable=True)
        self._records.save_pair(pair)
        # From here on only the keeper starts either.
        self._healer.adopt(self._program(primary))
        self._write_configuration(first)
        self._server(self._record(primary.node_id)).reload()

    def _take_after(self, spec: NodeSpec, source: NodeRecord, **also: Any) -> None:  # noqa: ANN401
        """Write down that a node has the same data and binaries as another one."""
        with self._guards[spec.node_id]:
            record, versions = self._record(spec.node_id), source.data_versions
            record = replace(record, bundle=source.bundle, data_versions=versions, **also)
            self._records.save_node(record)

    def ensure_no_pair(self, spec: NodeSpec, standby: UUID) -> UUID:
        self._records.require_pair(spec.instance_id)
        pair = self._records.pairs.get(spec.instance_id)
        if pair is None:
            if spec.node_id not in self._records.nodes and standby in self._records.nodes:
                return self._leave_alone(standby)  # an earlier call has kept it, as the primary
            self._accept(spec)
            if standby not in self._records.nodes:
                return self._leave_alone(spec.node_id)
            self._remove_node(standby)
            return spec.node_id
        if spec.node_id in self._records.nodes:
            self._accept(spec)
        keeper = self._keep_pair(spec.instance_id)
        keeper.wake()
        keeper.wait_open(_OPEN_TIMEOUT)  # it is to hear that nothing waits, and to drop a slot
        with keeper.planned():
            pair = self._records.pairs[spec.instance_id]
            keeper.disarm()
            keeper.replication(pair.primary).dismiss(pair.standby)
            if (record := self._records.nodes.get(pair.standby)) is not None:
                self._accept(record.spec, "stopped")  # nobody brings it back
        self._leave_pair(spec.instance_id)
        # The record goes last: by it alone whoever calls again knows which node has the data.
        self._remove_node(pair.standby)
        self._records.remove_pair(spec.instance_id)
        self._leave_pair(spec.instance_id)  # somebody may have asked for its keeper meanwhile
        return self._leave_alone(pair.primary)

    def _leave_alone(self, node_id: UUID) -> UUID:
        """Let a node take writes from its start on, and commits wait for nobody; return it."""
        with self._guards[node_id]:
            kept = self._record(node_id)
            kept = replace(kept, spec=replace(kept.spec, is_paired=False))
            self._records.save_node(kept)
        self._write_configuration(kept)
        self._healer.keep(self._program(kept.spec))
        self._server(kept).reload()
        return node_id

    def _remove_node(self, node_id: UUID) -> None:
        """End one of an instance's nodes, and remove all that there is of it."""
        if (record := self._records.nodes.get(node_id)) is None:
            return
        self._underway.wait_out(f"volume {node_id}")
        self._remove_program(record)
        volume = self._pools.volume_of(record)
        self._pools.named(volume.pool).delete(volume)
        self._pools.tidy(volume.pool, record.spec.instance_id, node_id)
        with self._guards[node_id]:  # its files are not being written
            self._records.forget_node(node_id)
        self._ports_guard.forget([node_id])
        self._forget(node_id)
        self._healer.in_background(self._pools.remove_deleted)

    def _forget(self, owner: UUID) -> None:
        """Drop what is kept of a node that is gone, or of an instance, besides its record."""
        files.remove_tree(self._layout.sockets(owner))
        self._guards.pop(owner, None)
        self._configuring.pop(owner, None)
        self._filling.pop(owner, None)
        self._changes.forget(owner)
        self._data_versions.forget(owner)


class LocalGround:
    """This machine, as keepers of pairs see it."""

    def __init__(self, host: LocalPairs) -> None:
        self._host = host

    def _record(self, node_id: UUID) -> NodeRecord:
        return self._host._record(node_id)

    def _program(self, node_id: UUID) -> Program:
        """Return a node's program; of one whose binaries are gone what is needed to end it."""
        spec = self._record(node_id).spec
        try:
            return self._host._program(spec)
        except HostError:
            return self._host._program_to_end(spec)

    def save_pair(self, record: PairRecord) -> None:
        self._host._records.save_pair(record)
        self.tell(record.instance_id)

    def tell(self, instance_id: UUID) -> None:
        if (pair := self._host._records.pairs.get(instance_id)) is not None:
            for node_id in pair.members:
                self._host._changes.note(node_id)

    def is_wanted(self, node_id: UUID) -> bool:
        record = self._host._records.nodes.get(node_id)
        return record is not None and record.desired == "running"

    def adopt(self, node_id: UUID) -> Identity | None:
        if node_id not in self._host._records.nodes:
            return None
        return self._host._healer.adopt(self._program(node_id))

    def start(self, node_id: UUID, *, forgets_failures: bool = False) -> None:
        pair = self._host._records.pair_of(self._record(node_id))
        if pair is not None and pair.primary != node_id:
            self._host._note_followed(pair.primary)
        program = self._host._program(self._record(node_id).spec)
        self._host._healer.keep(program, forgets_failures=forgets_failures)

    def wait_lowered(self, node_id: UUID) -> None:
        pair = self._host._records.pair_of(self._record(node_id))
        if pair is not None and pair.primary != node_id:
            self._host._wait_lowered(node_id, pair.primary)

    def stop(self, node_id: UUID) -> bool:
        return self._host._healer.release(self._program(node_id))

    def kill(self, node_id: UUID) -> None:
        self._host._healer.kill_all(self._host._program_to_end(self._record(node_id).spec))

    def lost_power(self, node_id: UUID) -> bool:
        program = self._host._program_to_end(self._record(node_id).spec)
        last = processes.saved(program.record)
        return last is not None and last.boot != processes.boot()

    def failure(self, node_id: UUID) -> str | None:
        name = program_name(self._record(node_id).spec)
        healer = self._host._healer
        return (healer.reason(name) or "it ended") if healer.is_failing(name) else None

    def server(self, node_id: UUID) -> Server:
        return self._host._server(self._record(node_id))

    def renew_replication(self, node_id: UUID) -> None:
        secret = self._record(node_id).spec.replication_secret
        self.server(node_id).ensure_replication_ready(secret)

    def engine_node(self, node_id: UUID) -> EngineNode:
        return self._host._engine_node(self._record(node_id))

    def write_configuration(self, node_id: UUID) -> None:
        self._host._write_configuration(self._record(node_id))

    def has_volume(self, node_id: UUID) -> bool:
        return self._host._pools.exists(self._host._pools.volume_of(self._record(node_id)))

    def is_full(self, node_id: UUID) -> bool:
        record = self._record(node_id)
        free = self._host._pools.named(record.pool).free()
        return record.writes != "open" or free < _NEARLY_FULL

    def copy(self, source: UUID, target: UUID) -> None:
        host = self._host
        upstream, record = self._record(source), self._record(target)
        volume = host._pools.volume_of(record)
        make = partial(self._copy, upstream, record)
        host._ensure_places(record)
        host._remove_shared_memory(record)
        host._pools.named(volume.pool).delete(volume)
        host._pools.remove_deleted()
        while not host._underway.ensure(f"volume {target}", make, _OPEN_TIMEOUT):
            pass

    def _copy(self, upstream: NodeRecord, record: NodeRecord) -> None:
        host = self._host
        server = partial(host._accepting_server, upstream.spec)
        prepare = templates_of(record.spec.engine).prepare_follower
        volume = host._pools.volume_of(record)
        host._snapshots.clone(upstream, server, volume, record.spec.uid, prepare)

    def lead(self, instance_id: UUID, node_id: UUID | None) -> None:
        self._host._routes.lead(instance_id, node_id)
