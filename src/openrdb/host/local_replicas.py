"""This machine's read replicas, each with its keeper."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from openrdb.engines import replication_of, templates_of
from openrdb.engines.base import EngineNode, Server
from openrdb.errors import HostError
from openrdb.host.local_nodes import HEAL_TIMEOUT, program_name
from openrdb.host.local_recovery import LocalRecovery
from openrdb.host.processes import Program
from openrdb.host.records import NodeRecord
from openrdb.host.replicas import ReplicaKeeper
from openrdb.host.space import LEAST_FREE
from openrdb.spec import Desired, NodeSpec
from openrdb.system import processes

log = logging.getLogger(__name__)

_TURN = 5.0
"""Seconds that a verb waits for another one that changes the same replica."""


class LocalReplicas(LocalRecovery):
    """The part of `LocalHost` that keeps read replicas."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self._replicas: dict[UUID, ReplicaKeeper] = {}
        self._turns: dict[UUID, threading.RLock] = defaultdict(threading.RLock)
        """By replica: held by each verb for as long as it changes the volume or what is to run. Keepers
        never take one, so that they can be waited for."""
        self._copying: set[UUID] = set()
        """The replicas whose volumes are being made again."""
        self._replica_ground = LocalReplicaGround(self)

    # -- keepers -------------------------------------------------------------------------------

    def _keep_replicas(self) -> None:
        for record in self._wanted_nodes():
            if self._records.role_of(record) == "replica" and not record.promoting:
                self._keep_replica(record.spec.node_id)

    def _keep_replica(self, node_id: UUID) -> ReplicaKeeper:
        with self._guards[node_id]:
            keeper = self._replicas.get(node_id)
            if keeper is None:
                keeper = self._replicas[node_id] = ReplicaKeeper(self._replica_ground, node_id)
                keeper.start()
            return keeper

    def _leave_replica(self, node_id: UUID) -> None:
        with self._guards[node_id]:
            keeper = self._replicas.pop(node_id, None)
        if keeper is not None:
            keeper.close()

    def _leave_pairs(self) -> None:
        for node_id in list(self._replicas):
            self._leave_replica(node_id)
        super()._leave_pairs()

    def _is_replica(self, node_id: UUID) -> bool:
        record = self._records.nodes.get(node_id)
        return record is not None and self._records.role_of(record) == "replica"

    @contextlib.contextmanager
    def _turn(self, node_id: UUID) -> Iterator[None]:
        """Be the only verb that changes a replica.

        Raises:
            HostError: another one takes longer than a moment.
        """
        if not self._turns[node_id].acquire(timeout=_TURN):
            raise HostError(f"the read replica {node_id} is being changed; try again later")
        try:
            yield
        finally:
            self._turns[node_id].release()

    def _prepare(self, node_id: UUID) -> None:
        # The start may have been asked for before the replica was told to stop, or its copy began.
        if self._is_replica(node_id):
            if self._record(node_id).desired != "running":
                raise HostError("the read replica is to be stopped")
            if node_id in self._copying:
                raise HostError("the read replica's data is being copied")
        super()._prepare(node_id)

    # -- what nodes are ------------------------------------------------------------------------

    def _primary_of(self, instance_id: UUID) -> UUID | None:
        """Return the node that takes an instance's writes, whether it does now or not."""
        records = [
            one for one in self._records.nodes.values() if one.spec.instance_id == instance_id
        ]
        primaries = [one for one in records if self._records.role_of(one) == "primary"]
        return primaries[0].spec.node_id if primaries else None

    def _upstream_of(self, replica: UUID) -> UUID | None:
        """Return the node that a replica was told to follow, if it was yet."""
        keeper = self._replicas.get(replica)
        return keeper.upstream if keeper is not None else None

    def _engine_node(self, record: NodeRecord) -> EngineNode:
        node = super()._engine_node(record)
        if self._records.role_of(record) != "replica":
            return node
        upstream = self._upstream_of(record.spec.node_id)
        upstream = upstream or self._primary_of(record.spec.instance_id)
        if upstream is None or upstream not in self._records.nodes:
            return replace(node, is_inert=True)
        return self._as_follower(node, upstream)

    def _replica_state(self, record: NodeRecord) -> tuple[float | None, str]:
        """Return how many seconds a replica is behind, and why it does not follow."""
        keeper = self._replicas.get(record.spec.node_id)
        if keeper is None:
            return None, ""
        with keeper.changed:
            return keeper.lag, keeper.doing

    # -- verbs ---------------------------------------------------------------------------------

    def _accept(
        self, spec: NodeSpec, desired: Desired | None = None, *, earlier: bool = False
    ) -> NodeRecord:
        with self._guards[spec.node_id]:
            self._refuse_promoting(spec.node_id)
            if spec.role == "replica" and not earlier:
                self._require_replica(spec.node_id)
            return super()._accept(spec, desired, earlier=earlier)

    def _require_replica(self, node_id: UUID) -> None:
        """Raise HostError if a replica is not known: only `ensure_replica` makes one, which operations
        on the replica itself call. The others may come late, from one on its instance."""
        if node_id not in self._records.nodes:
            raise HostError(f"there is no read replica {node_id} here")

    def _refuse_promoting(self, node_id: UUID) -> None:
        """Raise HostError if a replica is being promoted, which nothing else may undo."""
        record = self._records.nodes.get(node_id)
        if record is not None and record.promoting:
            raise HostError(f"the read replica {node_id} is being promoted")

    def ensure_configuration(self, spec: NodeSpec) -> None:
        if (upstream := self._upstream_of(spec.node_id)) is not None:
            self._note_followed(upstream)  # it may have lower settings by now
        super().ensure_configuration(spec)

    def _write_configuration(self, record: NodeRecord) -> None:
        with self._guards[record.spec.node_id]:
            if record.spec.role == "replica":
                self._require_replica(record.spec.node_id)
            super()._write_configuration(record)

    def ensure_reloaded(self, spec: NodeSpec) -> bool:
        if spec.role != "replica":
            return super().ensure_reloaded(spec)
        record = self._accept(spec)
        # One that is not there, as its data is being copied, reads its files at its next start.
        return self._accepts(record) and self._server(record).reload()

    def ensure_restarted(self, spec: NodeSpec) -> None:
        if spec.role == "replica":
            record = self._accept(spec)
            if self._healer.pid(program_name(record.spec)) is None:
                return
            if (upstream := self._upstream_of(spec.node_id)) is not None:
                self._wait_lowered(spec.node_id, upstream)
        super().ensure_restarted(spec)

    def _restart(self, spec: NodeSpec) -> Program:
        if spec.role != "replica":
            return super()._restart(spec)
        with self._turn(spec.node_id):
            # It may have ended since it was looked at.
            is_running = self._healer.pid(program_name(spec)) is not None
            if self._accept(spec).desired != "running" or not is_running:
                raise HostError(f"the read replica {spec.node_id} does not run any more")
            return super()._restart(spec)

    def ensure_stopped(self, spec: NodeSpec) -> None:
        if spec.role != "replica":
            super().ensure_stopped(spec)
            return
        with self._turn(spec.node_id):
            self._accept(spec, "stopped")
            self._leave_replica(spec.node_id)
            super().ensure_stopped(spec)

    def ensure_replica(self, spec: NodeSpec, timeout: float) -> bool:
        self._refuse_promoting(spec.node_id)
        if not self._turns[spec.node_id].acquire(timeout=timeout):
            return False
        try:
            keeper = self._begin_replica(spec)
        finally:
            self._turns[spec.node_id].release()
        keeper.wake()
        return keeper.wait_following(timeout)

    def _begin_replica(self, spec: NodeSpec) -> ReplicaKeeper:
        with self._guards[spec.node_id]:
            self._refuse_promoting(spec.node_id)
            record = super()._accept(spec, "running")
        primary = self._primary_of(spec.instance_id)
        if primary is None:
            raise HostError("the instance has no node that takes writes here")
        if not self._pools.exists(self._pools.volume_of(record)):
            self._take_after(spec, self._record(primary))
        return self._keep_replica(spec.node_id)

    def ensure_replica_reset(self, spec: NodeSpec, timeout: float) -> bool:
        reset = partial(self._in_turn, self._reset_replica, spec)
        return self._underway.ensure(f"reset {spec.node_id}", reset, timeout)

    def _in_turn(self, change: Callable[[NodeSpec], None], spec: NodeSpec) -> None:
        """Change a replica, however long others take before; a no-op if there is none."""
        with self._turns[spec.node_id]:
            if self._is_replica(spec.node_id):
                change(spec)

    def _reset_replica(self, spec: NodeSpec) -> None:
        # Of a promotion that failed nothing is left to go on with.
        self._set_promoting(spec, "running", promoting=False)
        self._leave_replica(spec.node_id)
        self._end_replica(spec)
        self._remove_shared_memory(self._record(spec.node_id))
        self._forget_data(spec)

    def _forget_data(self, spec: NodeSpec) -> None:
        """Remove the volume of a replica that does not run; the next one is in the spec's pool."""
        volume = self._pools.volume_of(self._record(spec.node_id))
        self._pools.named(volume.pool).delete(volume)
        if volume.pool != spec.pool:
            self._pools.ensure_passage(spec.pool, spec.instance_id, spec.node_id, spec.uid)
            self._set_pool(spec)
            self._pools.tidy(volume.pool, spec.instance_id, spec.node_id)
        self._healer.in_background(self._pools.remove_deleted)

    def ensure_moved(self, spec: NodeSpec, timeout: float) -> bool:
        if spec.role != "replica":
            return super().ensure_moved(spec, timeout)
        record = self._accept(spec)
        if (keeper := self._replicas.get(spec.node_id)) is not None:
            keeper.wake()
        return record.pool == spec.pool

    def _end_replica(self, spec: NodeSpec) -> None:
        """End a replica's server, and keep nothing for it."""
        self._underway.wait_out(f"volume {spec.node_id}")
        self._healer.release(self._program_to_end(spec))
        for record in list(self._records.nodes.values()):
            is_upstream = self._records.role_of(record) != "replica"
            if record.spec.instance_id == spec.instance_id and is_upstream:
                with contextlib.suppress(Exception):  # one that does not run is told later
                    replication_of(self._server(record)).dismiss(spec.node_id)

    def _dismiss_gone(self) -> None:
        """Let servers keep nothing for nodes that are gone, as one that was down could not be told; nor
        for those that are away, where there is no room for users' writes."""
        for record in self._wanted_nodes():
            if self._records.role_of(record) != "replica" and self._keeps_in_vain(record):
                node_id = record.spec.node_id
                look = partial(self._dismiss_gone_from, node_id)
                self._underway.ensure(f"followers {node_id}", look, 0.0)

    def _keeps_in_vain(self, record: NodeRecord) -> bool:
        kept_for = self._kept_for(record)
        return bool(kept_for) and (record.writes != "open" or bool(self._gone(record, kept_for)))

    def _dismiss_gone_from(self, node_id: UUID) -> None:
        try:
            record = self._record(node_id)
            if self._accepts(record):
                server = self._server(record)
                for follower in self._gone(record, self._kept_for(record)):
                    replication_of(server).dismiss(follower)
                if record.writes != "open":
                    server.release_space()
        except HostError as error:
            log.info("node %s keeps something for who is gone: %s", node_id, error)

    def _kept_for(self, record: NodeRecord) -> set[UUID]:
        try:
            return replication_of(self._server(record)).kept_for()
        except HostError:  # its binaries are not there
            return set()

    def _gone(self, record: NodeRecord, followers: set[UUID]) -> set[UUID]:
        """Return which of some followers are none of the instance's nodes."""
        nodes = self._layout.instance(record.spec.instance_id) / "nodes"
        # By their directories: a node whose record is damaged is there as well.
        return {one for one in followers if not (nodes / str(one)).exists()}

    def ensure_no_replica(self, spec: NodeSpec, timeout: float) -> bool:
        remove = partial(self._in_turn, self._remove_replica, spec)
        return self._underway.ensure(f"removal {spec.node_id}", remove, timeout)

    def _remove_replica(self, spec: NodeSpec) -> None:
        self._set_promoting(spec, "stopped", promoting=False)
        self._leave_replica(spec.node_id)
        self._end_replica(spec)
        self._remove_node(spec.node_id)

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID], keep: bool) -> None:
        # Nothing is left of its replicas, but for what earlier versions made again by late calls.
        for record in list(self._records.nodes.values()):
            if record.spec.instance_id == instance_id and self._is_replica(record.spec.node_id):
                self._in_turn(self._remove_replica, record.spec)
        self._routes.remove_all(instance_id)
        super().ensure_removed(instance_id, node_ids, keep)

    def ensure_volume_of_replica(self, spec: NodeSpec, replica: NodeSpec, timeout: float) -> bool:
        self._accept(spec)
        make = partial(self._take_replica, spec, replica)
        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def _take_replica(self, spec: NodeSpec, replica: NodeSpec) -> None:
        """Make a replica's volume another instance's, with an identity of its own."""
        target = self._pools.volume_of(self._record(spec.node_id))
        with self._turns[replica.node_id]:
            if not self._pools.exists(target):
                if not self._is_replica(replica.node_id):
                    raise HostError("the replica is gone")
                self._take_after(spec, self._record(replica.node_id))
                self._end_for_promotion(replica)
                self._give_volume(replica, spec)
            self._pools.named(target.pool).settle(target)

    def _end_for_promotion(self, replica: NodeSpec) -> None:
        """End a replica when it has brought itself to all that it received, once: what follows changes
        its volume, which is not to be started again."""
        record = self._record(replica.node_id)
        is_open = record.promoting and record.desired == "stopped"
        if not is_open:
            self._free(replica)
            self._set_promoting(replica, "running", promoting=True)
        self._leave_replica(replica.node_id)
        if not is_open:
            self._open_replica(replica)
            self._set_promoting(replica, "stopped", promoting=True)
        self._end_replica(replica)

    def _give_volume(self, replica: NodeSpec, spec: NodeSpec) -> None:
        """Let another node have the volume of a replica that ended; this may be repeated."""
        source, target = (
            self._pools.volume_of(self._record(one.node_id)) for one in (replica, spec)
        )
        renew = templates_of(spec.engine).renew_identity
        if source.pool != target.pool:
            self._pools.clone(source, target, spec.uid, renew)
        elif not self._pools.named(source.pool).rename(source, target, spec.uid, renew):
            raise HostError(f"the data directory of the replica {replica.node_id} is gone")

    def _set_promoting(self, spec: NodeSpec, desired: Desired, *, promoting: bool) -> None:
        """Write down whether a replica is being promoted, and whether it is to run."""
        with self._guards[spec.node_id]:
            record = super()._accept(spec, desired)
            self._records.save_node(replace(record, promoting=promoting))

    def _open_replica(self, replica: NodeSpec) -> None:
        """Let a replica's server bring itself to all that it received, and be nobody's follower."""
        program = self._program(replica)
        self._healer.keep(program)
        self._wait_accepting(replica, program, HEAL_TIMEOUT, patient=True)
        replication_of(self._server(self._record(replica.node_id))).open()

    def _free(self, replica: NodeSpec) -> None:
        """Let users' locks keep a replica from applying nothing any more.

        A transaction that somebody prepared ends with the server alone, which receives again then what
        it has not applied: as long as its upstream is there.
        """
        keeper = self._replicas.get(replica.node_id)
        if keeper is None or keeper.lets_apply():
            return
        keeper.start_again("users' locks keep it from applying")
        keeper.wait_following(HEAL_TIMEOUT)


class LocalReplicaGround:
    """This machine, as keepers of replicas see it."""

    def __init__(self, host: LocalReplicas) -> None:
        self._host = host

    def _record(self, node_id: UUID) -> NodeRecord:
        return self._host._record(node_id)

    def tell(self, node_id: UUID) -> None:
        self._host._changes.note(node_id)

    def primary(self, replica: UUID) -> UUID | None:
        found = self._host._primary_of(self._record(replica).spec.instance_id)
        return found if found is not None and self.accepts(found, 0.0) else None

    def standby(self, replica: UUID) -> UUID | None:
        pair = self._host._records.pairs.get(self._record(replica).spec.instance_id)
        return pair.standby if pair is not None and pair.is_armed else None

    def certain(self, replica: UUID) -> set[UUID]:
        found = (
            self._host._primary_of(self._record(replica).spec.instance_id),
            self.standby(replica),
        )
        return {node_id for node_id in found if node_id is not None}

    def others(self, replica: UUID) -> set[UUID]:
        host, instance_id = self._host, self._record(replica).spec.instance_id
        records = list(host._records.nodes.values())
        found = [one.spec for one in records if one.spec.instance_id == instance_id]
        return {spec.node_id for spec in found if not host._is_replica(spec.node_id)}

    def behind(self, node_id: UUID) -> float:
        keeper = self._host._keepers.get(self._record(node_id).spec.instance_id)
        if keeper is None or keeper.record.standby != node_id or not keeper.behind:
            return 0.0
        return 0.0 if keeper.replication(node_id).passes_on_received else keeper.behind

    def server(self, node_id: UUID) -> Server:
        return self._host._server(self._record(node_id))

    def write_configuration(self, node_id: UUID) -> None:
        self._host._write_configuration(self._record(node_id))

    def accepts(self, node_id: UUID, timeout: float) -> bool:
        return self._host._accepts(self._record(node_id), timeout)

    def has_volume(self, node_id: UUID) -> bool:
        return self._host._pools.exists(self._host._pools.volume_of(self._record(node_id)))

    def is_elsewhere(self, node_id: UUID) -> bool:
        record = self._record(node_id)
        return record.pool != record.spec.pool

    def leave_pool(self, node_id: UUID) -> None:
        host, record = self._host, self._record(node_id)
        volume = host._pools.volume_of(record)
        size = host._pools.usage(volume) if host._pools.exists(volume) else 0
        host._pools.require_free(record.spec.pool, LEAST_FREE // 2 + size)
        with self._stopped(node_id):
            host._remove_shared_memory(record)
            host._forget_data(record.spec)

    @contextlib.contextmanager
    def _stopped(self, node_id: UUID) -> Iterator[None]:
        """End a replica's server, and let nobody start it within the context."""
        host = self._host
        host._copying.add(node_id)
        try:
            host._healer.release(host._program_to_end(self._record(node_id).spec))
            yield
        finally:
            host._copying.discard(node_id)

    def lost_power(self, node_id: UUID) -> bool:
        return self._host._ground.lost_power(node_id)

    def run(self, node_id: UUID) -> None:
        host, record = self._host, self._record(node_id)
        if record.desired == "running" and host._healer.pid(program_name(record.spec)) is None:
            if (upstream := host._upstream_of(node_id)) is not None:
                host._note_followed(upstream)
            host._healer.keep(host._program(record.spec))

    def is_frozen(self, node_id: UUID) -> bool:
        pid = self._host._healer.pid(program_name(self._record(node_id).spec))
        return pid is not None and processes.is_frozen(pid)

    def resume(self, node_id: UUID) -> bool:
        pid = self._host._healer.pid(program_name(self._record(node_id).spec))
        return pid is not None and processes.resume_children(pid)

    def kill(self, node_id: UUID) -> None:
        self._host._healer.kill_all(self._host._program_to_end(self._record(node_id).spec))

    def copy(self, source: UUID, target: UUID) -> None:
        with self._stopped(target):
            self._host._ground.copy(source, target)
