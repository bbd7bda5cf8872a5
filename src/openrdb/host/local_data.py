"""This machine's volumes: made, copied, dumped, restored and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID

from openrdb.engines import templates_of
from openrdb.errors import (
    DiskFull,
)
from openrdb.host import backups
from openrdb.host.local_nodes import LocalNodes
from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes import Volume
from openrdb.spec import (
    DumpSpec,
    NodeSpec,
    RestoreSpec,
    TransferState,
)
from openrdb.system import files


class LocalData(LocalNodes):
    """The part of `LocalHost` that cares for what servers keep."""

    # -- volumes -------------------------------------------------------------------------------

    def ensure_volume(self, spec: NodeSpec) -> None:
        paths = self._layout.node(spec.instance_id, spec.node_id)
        record = self._accept(spec)
        volume = self._pool.volume(paths.data)
        if not self._pool.exists(volume):
            # Less than at the request: what was accepted is not refused because of others.
            if not self._pool.ensure_free(LEAST_FREE // 2):
                raise DiskFull(f"no space is left in {self._layout.root}")
            bundle, maker = self._bundle(record), templates_of(spec.engine)
            self._templates.take(bundle, maker, spec.init_settings, volume, spec.uid)
        self._pool.settle(volume)

    def prepare_spare(self, spec: NodeSpec) -> None:
        bundle = self._bundles.find(spec.engine)
        self._templates.prepare(bundle, templates_of(spec.engine), spec.init_settings)

    def ensure_no_volume(self, spec: NodeSpec) -> None:
        self._underway.wait_out(f"volume {spec.node_id}")
        self.ensure_stopped(spec)
        self._pool.delete(self._volume_of(spec))
        self._healer.in_background(self._pool.remove_deleted)

    def _volume_of(self, spec: NodeSpec) -> Volume:
        return self._pool.volume(self._layout.node(spec.instance_id, spec.node_id).data)

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID], keep: bool) -> None:
        for node in [self._records.nodes[one] for one in node_ids if one in self._records.nodes]:
            self._healer.remove(self._program_to_end(node.spec))
        self._records.forget_instance(instance_id)
        self._ports_guard.forget(node_ids)
        self._changing.pop(instance_id, None)
        self._pruning.pop(instance_id, None)
        # Gone at once; what takes time is done when nobody waits for it any more.
        directory = self._layout.instance(instance_id)
        self._pool.stop_return(instance_id)
        if keep and self._keep_trash and _has_data(directory):
            self._pool.put_aside(directory, instance_id)
        else:
            self._pool.delete_below(directory)
            self._healer.in_background(self._pool.remove_deleted)
        for owner in (instance_id, *node_ids):
            files.remove_tree(self._layout.sockets(owner))
            self._guards.pop(owner, None)
            self._changes.forget(owner)
            self._data_versions.forget(owner)

    def ensure_restored(self, instance_id: UUID) -> bool:
        if not self._pool.put_back(instance_id, self._layout.instance(instance_id)):
            return False
        self._records.load_instance(instance_id)
        return True

    def trashed(self) -> list[UUID]:
        return list(self._pool.put_aside_since())

    def ensure_room(self) -> bool:
        # One waits for what is removed; the others are refused meanwhile.
        if not self._making_room.acquire(blocking=False):
            return False
        try:
            return self._pool.has_room()
        finally:
            self._making_room.release()

    # -- dumps and restores --------------------------------------------------------------------

    def start_dump(self, spec: NodeSpec, dump: DumpSpec) -> None:
        if not self._backups.started(dump.job_id):
            self._accepting_server(spec)
            record = self._record(spec.node_id)
            self._backups.start(record.spec, self._bundle(record), dump)

    def start_restore(self, spec: NodeSpec, restore: RestoreSpec) -> None:
        if self._backups.started(restore.job_id):
            return
        server, record = self._accepting_server(spec), self._record(spec.node_id)
        # A server of older code lets the role that loads dumps in from now on.
        self._write_configuration(record)
        server.reload()
        self._backups.start(record.spec, self._bundle(record), restore)

    def check_restore(self, spec: NodeSpec, database: str, description: str) -> TransferState:
        return backups.check(self._accepting_server(spec), database, description)

    def wait_for_transfer(self, job_id: UUID, timeout: float) -> TransferState:
        return self._backups.wait(job_id, timeout, self._settle_restore)

    # -- snapshots -----------------------------------------------------------------------------

    def ensure_snapshot(self, spec: NodeSpec, snapshot_id: UUID, timeout: float) -> bool:
        record = self._accept(spec)

        def take() -> None:
            self._snapshots.take(snapshot_id, record, partial(self._accepting_server, spec))

        return self._underway.ensure(f"snapshot {snapshot_id}", take, timeout)

    def ensure_volume_of_snapshot(self, spec: NodeSpec, snapshot_id: UUID, timeout: float) -> bool:
        volume = self._accept_copy(spec, self._snapshots.data_versions(snapshot_id))

        def make() -> None:
            self._snapshots.make_volume(snapshot_id, volume, spec.uid, templates_of(spec.engine))

        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def ensure_volume_of_node(self, spec: NodeSpec, source: NodeSpec, timeout: float) -> bool:
        record = self._accept(source)
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
                self._records.save_node(replace(record, data_versions=data_versions))
        return self._volume_of(spec)

    def ensure_no_snapshot(self, snapshot_id: UUID) -> None:
        self._underway.wait_out(f"snapshot {snapshot_id}")
        self._snapshots.remove(snapshot_id)
        self._healer.in_background(self._pool.remove_deleted)


def _has_data(directory: Path) -> bool:
    """Return whether there is anything of an instance's that could be brought back."""
    return any(directory.glob("nodes/*/data"))
