"""Snapshots of nodes' volumes, and volumes made of them.

A snapshot lies outside of its instance's directory, and outlives it: `snapshots/<id>/` has its volume
and a record of what a node that is made of it has to know.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from openrdb.engines.base import Server, Templates
from openrdb.errors import HostError, PreconditionFailed, TransientState
from openrdb.host.records import NodeRecord
from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes import Pool, Volume
from openrdb.host.volumes.base import Prepare
from openrdb.host.volumes.pools import Pools
from openrdb.spec import DEFAULT_POOL
from openrdb.system import files
from openrdb.system.accounts import Uid
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)

FORMAT = 1
PASSING = "passing."
"""What the names of directories begin with that only last for as long as something is made of them."""
_RECORD = "snapshot.json"


@dataclass(frozen=True)
class SnapshotRecord:
    """What is known of a snapshot besides its data."""

    bundle: str
    """The binaries that wrote the data."""
    data_versions: Mapping[str, str] | None = None
    """Versions of collations and time zones that it depends on."""
    pool: str = DEFAULT_POOL
    """The pool that the data is in."""
    format: int = FORMAT


_RECORDS = TypeAdapter(SnapshotRecord)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Copier:
    """Makes a snapshot of a volume that is no atomic one, in the way that its engine chooses."""

    pool: Pool
    source: Volume
    target: Volume
    hold: Callable[[], None] = _nothing
    """Called as late as possible: what is written before is in the copy."""

    def copy_files(self, complete: Callable[[Path], None]) -> None:
        def end(data: Path) -> None:
            self.hold()
            complete(data)

        self.pool.snapshot(self.source, self.target, end)

    def write(self, make: Callable[[Path], None]) -> None:
        self.hold()
        self.pool.create(self.target, make)


class Snapshots:
    """The snapshots of a host: each lies in the pool of the volume that it was made of."""

    def __init__(self, layout: Layout, pools: Pools) -> None:
        self._layout = layout
        self._pools = pools
        layout.snapshots.mkdir(mode=0o700, exist_ok=True)
        for pool in pools:
            for left in pools.layout(pool.name).snapshots.glob(f"{PASSING}*"):
                pool.delete_below(left)

    def take(self, snapshot_id: UUID, node: NodeRecord, server: Callable[[], Server]) -> None:
        """Make a snapshot of a node's volume; a no-op if there is one of that id.

        Args:
            server: returns the node's server as soon as it accepts connections.
        """
        self._take(str(snapshot_id), node, server, _nothing)

    def _take(
        self,
        name: str,
        node: NodeRecord,
        server: Callable[[], Server],
        hold: Callable[[], None],
    ) -> None:
        place = self._layout.snapshots / name
        known = self._record(place)
        # Of a repetition: its node may have moved meanwhile.
        pool = self._pools.named(known.pool if known is not None else node.pool)
        target = self._volume(name, pool.name)
        if not pool.exists(target):
            pool = self._pools.named(node.pool)
            target = self._volume(name, pool.name)
            source = self._pools.volume_of(node)
            self._require_room(source, target)
            place.mkdir(mode=0o700, exist_ok=True)
            pool.path(target).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            record = SnapshotRecord(node.bundle, node.data_versions, node.pool)
            files.write_private(place / _RECORD, _RECORDS.dump_json(record).decode())
            if pool.is_atomic(source):
                # A server that does not accept connections is copied as it is.
                with contextlib.suppress(PreconditionFailed, TransientState):
                    server().checkpoint()
                hold()
                pool.snapshot(source, target)
            else:
                server().copy_data(Copier(pool, source, target, hold))
        pool.settle(target)

    def make_volume(self, snapshot_id: UUID, target: Volume, uid: Uid, maker: Templates) -> None:
        """Make a volume of a snapshot, with an identity of its own; a no-op if it is there.

        Raises:
            HostError: there is no such snapshot.
        """
        if not self._pools.exists(target):
            source = self._volume(str(snapshot_id), self._pool_of(snapshot_id))
            if not self._pools.exists(source):
                raise HostError(f"there is no snapshot {snapshot_id} on this host")
            self._require_room(source, target)
            self._pools.clone(source, target, uid, maker.renew_identity)
        self._pools.named(target.pool).settle(target)

    def clone(
        self,
        node: NodeRecord,
        server: Callable[[], Server],
        target: Volume,
        uid: Uid,
        prepare: Prepare,
        hold: Callable[[], None] = _nothing,
    ) -> None:
        """Make a volume of another node's; a no-op if it is there.

        Args:
            prepare: gives it an identity of its own.
            hold: holds the writes of the other node's server; called just before the copy is whole.
        """
        if not self._pools.exists(target):
            name = f"{PASSING}{Path(target.key).parent.name}"
            source, pool = self._volume(name, node.pool), self._pools.named(node.pool)
            try:
                self._take(name, node, server, hold)
                if target.pool != node.pool or pool.is_atomic(source):
                    # Which cannot be renamed; an atomic one costs nothing.
                    self._pools.clone(source, target, uid, prepare)
                else:
                    pool.take(source, target, uid, prepare)
            finally:
                self._remove(name, node.pool)
        self._pools.named(target.pool).settle(target)

    def data_versions(self, snapshot_id: UUID) -> Mapping[str, str] | None:
        """Return what the data of a snapshot depends on; None if that is not known."""
        record = self._record(self._layout.snapshot(snapshot_id))
        return record.data_versions if record is not None else None

    def remove(self, snapshot_id: UUID) -> None:
        """Remove a snapshot; a no-op if there is none."""
        self._remove(str(snapshot_id), self._pool_of(snapshot_id))

    def _remove(self, name: str, pool_name: str) -> None:
        pool, volume = self._pools.named(pool_name), self._volume(name, pool_name)
        pool.delete(volume)
        # The record last: it tells which pool there is something in.
        for one in dict.fromkeys((pool, self._pools.default)):
            one.delete_below(self._pools.layout(one.name).snapshots / name)

    def _record(self, place: Path) -> SnapshotRecord | None:
        with contextlib.suppress(FileNotFoundError, ValidationError):
            return _RECORDS.validate_json((place / _RECORD).read_bytes())
        return None

    def _pool_of(self, snapshot_id: UUID) -> str:
        record = self._record(self._layout.snapshot(snapshot_id))
        return record.pool if record is not None else DEFAULT_POOL

    def _volume(self, name: str, pool: str) -> Volume:
        return Volume(pool, f"snapshots/{name}/data")

    def _require_room(self, source: Volume, target: Volume) -> None:
        """Raise DiskFull if a copy of a volume has no room; what was deleted gives way to it."""
        usage = 0 if self._pools.shares(source, target) else self._pools.usage(source)
        self._pools.require_free(target.pool, LEAST_FREE // 2 + usage)
