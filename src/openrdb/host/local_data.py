"""This machine's volumes: made, copied, dumped, restored and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

from openrdb.engines import templates_of
from openrdb.errors import HostError
from openrdb.host import backups
from openrdb.host.local_nodes import program_name
from openrdb.host.local_pairs import LocalPairs
from openrdb.host.pairs import PairKeeper, planned
from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes import Volume
from openrdb.spec import (
    DumpSpec,
    NodeSpec,
    RestoreSpec,
    TransferState,
)

_LOOK = 10.0
"""Seconds after which it is looked whether a standby could not be made."""


class LocalData(LocalPairs):
    """The part of `LocalHost` that cares for what servers keep."""

    # -- volumes -------------------------------------------------------------------------------

    def ensure_volume(self, spec: NodeSpec) -> None:
        record = self._accept(spec)
        volume, pool = self._pools.volume_of(record), self._pools.named(record.pool)
        with self._filling[spec.node_id]:  # an earlier call may not have ended with who sent it
            if not pool.exists(volume):
                # Less than at the request: what was accepted is not refused because of others.
                self._pools.require_free(pool.name, LEAST_FREE // 2)
                bundle, maker = self._bundle(record), templates_of(spec.engine)
                if pool is self._pool:
                    self._templates.take(bundle, maker, spec.init_settings, volume, spec.uid)
                else:
                    self._templates.copy(bundle, maker, spec.init_settings, pool, volume, spec.uid)
            pool.settle(volume)

    def prepare_spare(self, spec: NodeSpec) -> None:
        bundle = self._bundles.find(spec.engine)
        self._templates.prepare(bundle, templates_of(spec.engine), spec.init_settings)

    def ensure_no_volume(self, spec: NodeSpec) -> None:
        self._underway.wait_out(f"volume {spec.node_id}")
        self.ensure_stopped(spec)
        volume = self._pools.volume_of(self._record(spec.node_id))
        self._pools.named(volume.pool).delete(volume)
        self._healer.in_background(self._pools.remove_deleted)

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID], keep: bool) -> None:
        self._leave_pair(instance_id)
        nodes = [self._records.nodes[one] for one in node_ids if one in self._records.nodes]
        for node in nodes:
            self._pools.named(node.pool)  # else some of it would stay there
            self._underway.wait_out(f"volume {node.spec.node_id}")
            self._remove_program(node)
        self._records.forget_instance(instance_id)
        self._ports_guard.forget(node_ids)
        self._changing.pop(instance_id, None)
        self._pruning.pop(instance_id, None)
        # Gone at once; what takes time is done when nobody waits for it any more.
        self._pools.stop_return(instance_id)
        if keep and self._keep_trash and self._pools.has_data(instance_id):
            self._pools.put_aside(instance_id)
        else:
            self._pools.delete(instance_id)
            self._healer.in_background(self._pools.remove_deleted)
        for owner in (instance_id, *node_ids):
            self._forget(owner)

    def ensure_restored(self, instance_id: UUID) -> bool:
        if not self._pools.put_back(instance_id):
            return False
        self._records.load_instance(instance_id)
        nodes = [one for one in self._records.nodes.values() if one.spec.instance_id == instance_id]
        return all(self._pools.exists(self._pools.volume_of(node)) for node in nodes)

    def trashed(self) -> list[UUID]:
        return list(self._pool.put_aside_since())

    def ensure_room(self, pool: str) -> bool:
        # One waits for what is removed; the others are refused meanwhile.
        if not self._making_room.acquire(blocking=False):
            return False
        try:
            return self._pools.named(pool).has_room()
        finally:
            self._making_room.release()

    # -- dumps and restores --------------------------------------------------------------------

    def start_dump(self, spec: NodeSpec, dump: DumpSpec) -> None:
        if not self._backups.started(dump.job_id):
            self._accepting_server(spec)
            record = self._leading(spec)
            self._backups.start(record.spec, self._bundle(record), self._paths(record), dump)

    def start_restore(self, spec: NodeSpec, restore: RestoreSpec) -> None:
        if self._backups.started(restore.job_id):
            return
        server, record = self._accepting_server(spec), self._leading(spec)
        # A server of older code lets the role that loads dumps in from now on.
        self._write_configuration(record)
        server.reload()
        self._backups.start(record.spec, self._bundle(record), self._paths(record), restore)

    def check_restore(self, spec: NodeSpec, database: str, description: str) -> TransferState:
        return backups.check(self._accepting_server(spec), database, description)

    def wait_for_transfer(self, job_id: UUID, timeout: float) -> TransferState:
        return self._backups.wait(job_id, timeout, self._settle_restore)

    # -- snapshots -----------------------------------------------------------------------------

    def obstacle_to_copying(self, spec: NodeSpec) -> str | None:
        if spec.node_id not in self._records.nodes:
            return None
        record = self._leading(spec)
        volume = self._pools.volume_of(record)
        if self._pools.named(volume.pool).is_atomic(volume):
            return None
        return self._accepting_server(spec).obstacle_to_copying()

    def ensure_snapshot(self, spec: NodeSpec, snapshot_id: UUID, timeout: float) -> bool:
        self._accept(spec)

        def take() -> None:
            server = partial(self._accepting_server, spec)
            self._snapshots.take(snapshot_id, self._leading(spec), server)

        return self._underway.ensure(f"snapshot {snapshot_id}", take, timeout)

    def ensure_volume_of_snapshot(self, spec: NodeSpec, snapshot_id: UUID, timeout: float) -> bool:
        volume = self._accept_copy(spec, self._snapshots.data_versions(snapshot_id))

        def make() -> None:
            self._snapshots.make_volume(snapshot_id, volume, spec.uid, templates_of(spec.engine))

        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def ensure_volume_of_node(self, spec: NodeSpec, source: NodeSpec, timeout: float) -> bool:
        self._accept(source)
        record = self._leading(source)
        volume = self._accept_copy(spec, record.data_versions)

        def make() -> None:
            server = partial(self._accepting_server, source)
            renew = templates_of(spec.engine).renew_identity
            self._snapshots.clone(record, server, volume, spec.uid, renew)

        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def _accept_copy(self, spec: NodeSpec, data_versions: Mapping[str, str] | None) -> Volume:
        """Write down a node whose data was another's, with what the data depends on."""
        with self._guards[spec.node_id]:
            record = self._accept(spec)
            if record.data_versions is None:
                copied = replace(record, data_versions=data_versions, renewed_for="")
                self._records.save_node(copied)
            return self._pools.volume_of(self._record(spec.node_id))

    def ensure_no_snapshot(self, snapshot_id: UUID) -> None:
        self._underway.wait_out(f"snapshot {snapshot_id}")
        self._snapshots.remove(snapshot_id)
        self._healer.in_background(self._pools.remove_deleted)

    # -- moving --------------------------------------------------------------------------------

    def ensure_moved(self, spec: NodeSpec, timeout: float) -> bool:
        self._accept(spec)
        if (keeper := self._keeper_of(spec)) is not None:
            # Not as the volume's own change, which its keeper makes meanwhile.
            move = partial(self._move_member, spec, keeper)
            return self._underway.ensure(f"move {spec.node_id}", move, timeout)
        return self._underway.ensure(f"volume {spec.node_id}", partial(self._move, spec), timeout)

    def _move(self, spec: NodeSpec) -> None:
        """Copy a node's volume to the spec's pool, where its server starts from then on.

        The record of the node says where its volume is; until that has changed, the server starts
        from the volume that it had, and what there is of the other one is nothing.
        """
        record = self._record(spec.node_id)
        if record.pool == spec.pool:
            return
        source, pool = self._pools.volume_of(record), self._pools.named(spec.pool)
        target = replace(source, pool=spec.pool)
        self._pools.require_free(pool.name, LEAST_FREE // 2 + self._pools.usage(source))
        self._pools.ensure_passage(spec.pool, spec.instance_id, spec.node_id, spec.uid)
        try:
            pool.bring(
                self._pools.named(source.pool).path(source),
                target,
                spec.uid,
                # What an earlier move left may be older than what it was copied from.
                lambda _: pool.delete(target),
                hold=partial(self._release, spec.node_id),
            )
            pool.settle(target)
            self._set_pool(spec)
        finally:
            record = self._record(spec.node_id)
            if record.desired == "running":
                self._healer.keep_later(self._program(record.spec))

    def _move_member(self, spec: NodeSpec, keeper: PairKeeper) -> None:
        """Make the volume of one of a pair's nodes again in the spec's pool, of the other node's, which
        takes the writes meanwhile; return when the pair is protected."""
        if self._record(spec.node_id).pool != spec.pool:
            self._begin_move_of_member(spec, keeper)
        while not keeper.ensure_armed(_LOOK):
            pass

    def _begin_move_of_member(self, spec: NodeSpec, keeper: PairKeeper) -> None:
        """Let a node be the standby of its pair, without data, and its volume in the spec's pool."""
        usage = self._pools.usage(self._pools.volume_of(self._record(spec.node_id)))
        self._pools.require_free(spec.pool, LEAST_FREE // 2 + usage)
        self._pools.ensure_passage(spec.pool, spec.instance_id, spec.node_id, spec.uid)
        if keeper.record.primary == spec.node_id and not planned.switch_over(keeper):
            raise HostError("the instance is not protected by its other node at the moment")
        with keeper.planned() as pair:
            if pair.standby != spec.node_id:
                raise HostError("the instance's primary was replaced meanwhile")
            keeper.disarm()
            keeper.update(unusable=True)
            keeper.kill(spec.node_id)
            self._set_pool(spec)

    def _release(self, node_id: UUID) -> None:
        self._healer.release(self._program(self._record(node_id).spec))

    def _set_pool(self, spec: NodeSpec) -> None:
        """Write down that a node's volume is in the spec's pool.

        Raises:
            HostError: its server was started since it was copied.
        """
        with self._guards[spec.node_id]:
            if self._healer.pid(program_name(spec)) is not None:
                raise HostError("the server was started while its volume moved")
            record = replace(self._record(spec.node_id), pool=spec.pool)
            self._records.save_node(record)
        self._changes.note(spec.node_id)

    def ensure_only_volume(self, spec: NodeSpec) -> None:
        record = self._accept(spec)
        self._underway.wait_out(f"volume {spec.node_id}")
        there = self._pools.volume_of(record)
        if not self._pools.exists(there):
            raise HostError(f"the data directory {self._paths(record).data} is gone")
        for pool in self._pools:
            if pool.name != record.pool:
                pool.delete(replace(there, pool=pool.name))
                self._pools.tidy(pool.name, spec.instance_id, spec.node_id)
        self._healer.in_background(self._pools.remove_deleted)
