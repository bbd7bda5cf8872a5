"""This machine's upgrades to another major version."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from openrdb.engines import templates_of
from openrdb.engines.base import Upgrade
from openrdb.errors import HostError
from openrdb.host import processes
from openrdb.host.base import Copied
from openrdb.host.local_data import LocalData
from openrdb.host.records import NodeRecord
from openrdb.host.snapshots import PASSING
from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes import Pool
from openrdb.spec import NodeSpec
from openrdb.system import accounts, files
from openrdb.system.layout import UPGRADE

log = logging.getLogger(__name__)


class LocalUpgrades(LocalData):
    """The part of `LocalHost` that brings data to newer major versions."""

    def ensure_upgraded_volume(
        self, spec: NodeSpec, source: NodeSpec, copied: Copied, timeout: float
    ) -> bool:
        self._accept(source)
        # What depends on the earlier binaries is renewed for those of the newer version.
        self._accept_copy(spec, self._leading(source).data_versions)
        make = partial(self._make_upgraded_volume, spec, source, copied)
        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def _make_upgraded_volume(self, spec: NodeSpec, source: NodeSpec, copied: Copied) -> None:
        record = self._leading(source)
        there, here = (
            self._pools.volume_of(record),
            self._pools.volume_of(self._record(spec.node_id)),
        )
        pool = self._pools.named(here.pool)
        if not pool.exists(here):
            with self._empty_volume(spec, pool) as empty:  # before anybody has to wait for it
                query = self._begin_followed(source) if copied == "followed" else None
                upgrade = partial(self._upgrade, record, spec, empty, query)
                if record.desired == "stopped":
                    is_shared = self._pools.shares(there, here)
                    size = 0 if is_shared else self._pools.usage(there)
                    self._pools.require_free(pool.name, LEAST_FREE + size)
                    self._pools.clone(there, here, spec.uid, upgrade)
                else:
                    server = partial(self._accepting_server, source)
                    holds = partial(self._hold, source) if copied == "held" else lambda: None
                    self._snapshots.clone(record, server, here, spec.uid, upgrade, holds)
        pool.settle(here)

    @contextmanager
    def _empty_volume(self, spec: NodeSpec, pool: Pool) -> Iterator[Path]:
        """Make a volume of a version that nobody has written to, for as long as it is needed, where
        the files of another one can be linked."""
        place = self._pools.layout(pool.name).snapshots / f"{PASSING}empty-{spec.node_id}"
        place.parent.mkdir(mode=0o700, exist_ok=True)
        volume = pool.volume(place / "data")
        bundle, maker = self._bundle(self._record(spec.node_id)), templates_of(spec.engine)
        make = partial(maker.make_empty, bundle, account=accounts.template_account())
        try:
            pool.create(volume, make)
            yield pool.path(volume)
        finally:
            pool.delete_below(place)
            self._healer.in_background(self._pools.remove_deleted)

    def _upgrade(
        self, former: NodeRecord, spec: NodeSpec, empty: Path, query: str | None, data: Path
    ) -> None:
        """Bring a copy of a node's files to the version of another node."""
        old, new = self._bundle(former), self._bundle(self._record(spec.node_id))
        sockets = self._layout.sockets(spec.node_id)
        lock = self._layout.upgrade_lock(spec.instance_id, spec.node_id)
        with processes.holding(lock, f"the upgrade of node {former.spec.node_id}") as held:
            files.remove_tree(sockets)
            accounts.ensure_directory(sockets, spec.uid)
            work = Upgrade(old, new, data, empty, spec.uid, sockets, held, query)
            position = templates_of(spec.engine).upgrade(work)
            if position is None:
                files.remove_file(self._position(spec))
            else:
                files.write_private(self._position(spec), position)

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
        spec = self._leading(spec).spec
        self._set_held(spec.node_id, "")
        self._put_in_force(spec)
        self._set_held(spec.node_id, self._accepting_server(spec).end_writers())

    # -- catching up with writes ---------------------------------------------------------------

    def obstacle_to_following(self, spec: NodeSpec, version: str) -> str | None:
        self._accept(spec)
        return self._accepting_server(spec).obstacle_to_following(version)

    def _position(self, spec: NodeSpec) -> Path:
        """Where it is written what a node's data had of its source's, empty when it has all."""
        return self._layout.node(spec.instance_id, spec.node_id).root / "position.json"

    def _begin_followed(self, source: NodeSpec) -> str:
        source = self._leading(source).spec
        self._set_followed(source.node_id, followed=True)
        self._put_in_force(source)
        return self._accepting_server(source).begin_followed()

    def ensure_caught_up(self, spec: NodeSpec, source: NodeSpec, timeout: float) -> bool:
        self._accept(source)
        self._accept(spec)

        def catch_up() -> None:
            server, path = self._accepting_server(spec), self._position(spec)
            node = self._engine_node(self._leading(source))
            self._accepting_server(source)
            if position := path.read_text():
                server.catch_up(node, position, partial(self._hold, source))
                # From here on it could not go on catching up.
                files.write_private(path, "")
            server.settle(node)

        return self._underway.ensure(f"catching up {spec.node_id}", catch_up, timeout)

    def _end_followed(self, spec: NodeSpec) -> None:
        """Let no copy read changes any more, and keep none."""
        spec = self._leading(spec).spec
        with self._guards[spec.node_id]:
            self._write_files(replace(self._record(spec.node_id), followed=False))
        self.ensure_reloaded(spec)
        self._accepting_server(spec).end_followed()
        self._set_followed(spec.node_id, followed=False)

    def ensure_nothing_written(self, spec: NodeSpec) -> bool:
        before = self._accept(spec).held
        server = self._accepting_server(spec)
        mark = server.end_writers()
        if before is None or not server.is_next_mark(before, mark):
            return False
        self._set_held(spec.node_id, mark)  # for a repetition
        return True

    def ensure_writable(self, spec: NodeSpec) -> None:
        if self._accept(spec, "running").followed:
            self._end_followed(spec)
        self._set_held(spec.node_id, None)
        self._put_in_force(spec)

    def _put_in_force(self, spec: NodeSpec) -> None:
        spec = self._leading(spec).spec
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
