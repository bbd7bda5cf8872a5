"""This machine's upgrades to another major version."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from openrdb.engines import templates_of
from openrdb.errors import DiskFull, HostError
from openrdb.host import processes
from openrdb.host.local_data import LocalData
from openrdb.host.records import NodeRecord
from openrdb.spec import NodeSpec
from openrdb.system import accounts, files
from openrdb.system.layout import UPGRADE

log = logging.getLogger(__name__)


class LocalUpgrades(LocalData):
    """The part of `LocalHost` that brings data to newer major versions."""

    def ensure_upgraded_volume(
        self, spec: NodeSpec, source: NodeSpec, hold: bool, timeout: float
    ) -> bool:
        self._accept(spec)
        make = partial(self._make_upgraded_volume, spec, source, hold=hold)
        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def _make_upgraded_volume(self, spec: NodeSpec, source: NodeSpec, *, hold: bool) -> None:
        record, there, here = self._accept(source), self._volume_of(source), self._volume_of(spec)
        if not self._pool.exists(here):
            upgrade = partial(self._upgrade, record, spec)
            if record.desired == "stopped":
                if not self._pool.has_room(0 if self._pool.reflink else self._pool.usage(there)):
                    raise DiskFull(f"no space is left in {self._layout.root}")
                self._pool.clone(there, here, spec.uid, upgrade)
            else:
                server = partial(self._accepting_server, source)
                holds = partial(self._hold, source) if hold else lambda: None
                self._snapshots.clone(record, server, here, spec.uid, upgrade, holds)
        self._pool.settle(here)

    def _upgrade(self, former: NodeRecord, spec: NodeSpec, data: Path) -> None:
        """Bring a copy of a node's files to the version of another node."""
        old, new = self._bundle(former), self._bundle(self._record(spec.node_id))
        sockets = self._layout.sockets(spec.node_id)
        lock = self._layout.upgrade_lock(spec.instance_id, spec.node_id)
        with processes.holding(lock, f"the upgrade of node {former.spec.node_id}") as held:
            files.remove_tree(sockets)
            accounts.ensure_directory(sockets, spec.uid)
            templates_of(spec.engine).upgrade(old, new, data, spec.uid, sockets, held)

    def _end_upgrades(self) -> None:
        """End what upgrades of an agent that was killed have left: servers that pg_upgrade started."""
        for lock in self._layout.instances.glob(f"*/{UPGRADE}*.lock"):
            try:
                processes.end_holders(lock, lock.stem)
            except HostError as error:
                log.error("%s", error)

    # -- writes --------------------------------------------------------------------------------

    def _hold(self, spec: NodeSpec) -> None:
        """Hold a node's writes, and note what has been written by then."""
        self._set_held(spec.node_id, "")
        self._put_in_force(spec)
        self._set_held(spec.node_id, self._accepting_server(spec).end_writers())

    def ensure_nothing_written(self, spec: NodeSpec) -> bool:
        before = self._accept(spec).held
        server = self._accepting_server(spec)
        mark = server.end_writers()
        if before is None or not server.is_next_mark(before, mark):
            return False
        self._set_held(spec.node_id, mark)  # for a repetition
        return True

    def ensure_writable(self, spec: NodeSpec) -> None:
        self._accept(spec, "running")
        self._set_held(spec.node_id, None)
        self._put_in_force(spec)

    def _put_in_force(self, spec: NodeSpec) -> None:
        self._write_configuration(self._record(spec.node_id))
        self.ensure_reloaded(spec)

    # -- what an upgraded copy lacks -----------------------------------------------------------

    def ensure_upgrade_completed(self, spec: NodeSpec) -> None:
        self.ensure_accepting(spec)
        self._server(self._record(spec.node_id)).complete_upgrade()

    def ensure_analyzed(self, spec: NodeSpec, timeout: float) -> bool:
        self._accept(spec)

        def analyze() -> None:
            self._accepting_server(spec).analyze()

        return self._underway.ensure(f"statistics {spec.node_id}", analyze, timeout)
