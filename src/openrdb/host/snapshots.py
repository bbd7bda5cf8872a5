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
from openrdb.errors import DiskFull, HostError
from openrdb.host.records import NodeRecord
from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes import Pool, Volume
from openrdb.host.volumes.base import Prepare
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
    """The snapshots of a host."""

    def __init__(self, layout: Layout, pool: Pool) -> None:
        self._layout = layout
        self._pool = pool
        layout.snapshots.mkdir(mode=0o700, exist_ok=True)
        for left in layout.snapshots.glob(f"{PASSING}*"):
            pool.delete_below(left)

    def take(self, snapshot_id: UUID, node: NodeRecord, server: Callable[[], Server]) -> None:
        """Make a snapshot of a node's volume; a no-op if there is one of that id.

        Args:
            server: returns the node's server as soon as it accepts connections.
        """
        self._take(self._layout.snapshot(snapshot_id), node, server, _nothing)

    def _take(
        self,
        place: Path,
        node: NodeRecord,
        server: Callable[[], Server],
        hold: Callable[[], None],
    ) -> None:
        target = self._volume(place)
        if not self._pool.exists(target):
            paths = self._layout.node(node.spec.instance_id, node.spec.node_id)
            source = self._pool.volume(paths.data)
            self._require_room(source)
            place.mkdir(mode=0o700, exist_ok=True)
            record = SnapshotRecord(node.bundle, node.data_versions)
            files.write_private(place / _RECORD, _RECORDS.dump_json(record).decode())
            if self._pool.is_atomic(source):
                hold()
                self._pool.snapshot(source, target)
            else:
                server().copy_data(Copier(self._pool, source, target, hold))
        self._pool.settle(target)

    def make_volume(self, snapshot_id: UUID, target: Volume, uid: Uid, maker: Templates) -> None:
        """Make a volume of a snapshot, with an identity of its own; a no-op if it is there.

        Raises:
            HostError: there is no such snapshot.
        """
        source = self._volume(self._layout.snapshot(snapshot_id))
        if not self._pool.exists(target):
            if not self._pool.exists(source):
                raise HostError(f"there is no snapshot {snapshot_id} on this host")
            self._require_room(source)
            self._pool.clone(source, target, uid, maker.renew_identity)
        self._pool.settle(target)

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
        if not self._pool.exists(target):
            place = self._layout.snapshots / f"{PASSING}{Path(target.key).parent.name}"
            source = self._volume(place)
            try:
                self._take(place, node, server, hold)
                if self._pool.is_atomic(source):  # which cannot be renamed, and costs nothing
                    self._pool.clone(source, target, uid, prepare)
                else:
                    self._pool.take(source, target, uid, prepare)
            finally:
                self._pool.delete_below(place)
        self._pool.settle(target)

    def data_versions(self, snapshot_id: UUID) -> Mapping[str, str] | None:
        """Return what the data of a snapshot depends on; None if that is not known."""
        with contextlib.suppress(FileNotFoundError, ValidationError):
            path = self._layout.snapshot(snapshot_id) / _RECORD
            return _RECORDS.validate_json(path.read_bytes()).data_versions
        return None

    def remove(self, snapshot_id: UUID) -> None:
        """Remove a snapshot; a no-op if there is none."""
        place = self._layout.snapshot(snapshot_id)
        self._pool.delete(self._volume(place))
        self._pool.delete_below(place)

    def _volume(self, place: Path) -> Volume:
        return self._pool.volume(place / "data")

    def _require_room(self, source: Volume) -> None:
        """Raise DiskFull if a copy of a volume has no room; what was deleted gives way to it."""
        shared = self._pool.reflink or self._pool.is_atomic(source)
        size = LEAST_FREE // 2 + (0 if shared else self._pool.usage(source))
        if not self._pool.ensure_free(size):
            raise DiskFull(f"no space is left in {self._layout.root}")
