"""The pools of a host: its data directory, and other directories that its operator names.

Each has the same places: the volume of a node lies at `instances/<instance>/nodes/<node>/data` of its
pool. All else of an instance lies in the data directory, and that decides what becomes of the whole:
it is moved into the trash last, moved back last, and deleted from the trash first.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from pydantic import TypeAdapter

from openrdb.errors import DiskFull, HostError, PoolMissing
from openrdb.host.records import NodeRecord
from openrdb.host.volumes import open_pool
from openrdb.host.volumes.base import Pool, Prepare, Volume
from openrdb.host.volumes.directory import keep_for_return
from openrdb.spec import DEFAULT_POOL
from openrdb.system import accounts, files
from openrdb.system.accounts import Uid
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)

MARK = "openrdb.pool"
"""The file that tells a pool from the empty directory that its file system is mounted on."""


@dataclass(frozen=True)
class KnownPools:
    """What a host knows of its pools, whatever its configuration says now."""

    host: str
    """What the marks of its pools begin with."""
    directories: Mapping[str, Path] = field(default_factory=dict)
    """Where each was last found."""


_KNOWN = TypeAdapter(KnownPools)


def known_pools(layout: Layout) -> KnownPools | None:
    """Return what a host has written down; None: it has had no other pool yet."""
    try:
        return _KNOWN.validate_json(layout.pools.read_bytes())
    except FileNotFoundError:
        return None


def place_of(known: KnownPools | None, name: str, configured: Path | None) -> tuple[Path, bool]:
    """Return where a pool is, and whether it was in use before.

    Args:
        configured: where its operator says that it is; None: they no longer do.

    Raises:
        PoolMissing: there is none; the reason, and the way out.
    """
    wanted = f"{known.host} {name}" if known is not None else None
    former = known.directories.get(name) if known is not None else None
    for place in (configured, former):
        if place is not None and wanted is not None and _mark(place) == wanted:
            return place, True
    directory = configured or former
    if directory is None:
        raise PoolMissing(f"pool {name} is unknown here: it is not among `pools`")
    if not directory.is_dir():
        raise PoolMissing(f"pool {name} is missing: there is no directory {directory}")
    if (mark := _mark(directory)) is not None:
        other = mark.rpartition(" ")[2]
        raise PoolMissing(f"{directory} is no pool {name}: it is pool {other}, of a data directory")
    if former is not None:
        raise PoolMissing(
            f"pool {name} is missing: {directory} lacks the file {MARK}; mount its file system, or "
            f"move to it what was in {former}"
        )
    return directory, False


def _mark(directory: Path) -> str | None:
    try:
        return (directory / MARK).read_text().strip()
    except OSError:
        return None


class Pools:
    """All pools of a host; one that is missing at first is opened as soon as it is there."""

    def __init__(self, layout: Layout, configured: Mapping[str, Path]) -> None:
        self._layout = layout
        self._configured = configured
        self.default = open_pool(layout.root)
        self._others: dict[str, Pool] = {}
        self._layouts = {DEFAULT_POOL: layout}
        self._missing: dict[str, str] = {}
        self._known = known_pools(layout)
        self._moving = threading.Lock()
        """Held while an instance's parts move into the trash or out of it."""
        self.look()

    # -- which there are -----------------------------------------------------------------------

    def look(self) -> set[str]:
        """Open the pools that are there by now, and return which of them were not before."""
        opened = set[str]()
        former = self._known.directories if self._known is not None else {}
        for name in {*self._configured, *former} - self._others.keys():
            try:
                self._open(name)
                opened.add(name)
            except (HostError, OSError) as error:
                if self._missing.get(name) != str(error):
                    log.error("%s; its instances wait for it", error)
                self._missing[name] = str(error)
        return opened

    def _open(self, name: str) -> None:
        directory, was_used = place_of(self._known, name, self._configured.get(name))
        known = self._known or KnownPools(str(uuid4()))
        if not was_used:
            self._save(known)  # so that a mark of ours is known for one
            files.write_private(directory / MARK, f"{known.host} {name}\n")
        self._save(KnownPools(known.host, {**known.directories, name: directory}))
        accounts.passable_directory(directory)
        accounts.passable_directory(directory / "instances")
        pool = open_pool(directory, name, give_up=self.default.delete_trashed)
        self._layouts[name] = Layout(directory)
        self._others[name] = pool
        if self._missing.pop(name, None) is not None:
            log.info("pool %s is there: %s", name, directory)

    def named(self, name: str) -> Pool:
        """Return a pool.

        Raises:
            PoolMissing: it is not there.
        """
        if name == DEFAULT_POOL:
            return self.default
        if name not in self._others:
            self.look()
        if name not in self._others:
            raise PoolMissing(self._missing.get(name) or f"pool {name} is unknown here")
        if not self._is_there(name):
            raise PoolMissing(f"pool {name} is missing: {self._layouts[name].root} has gone")
        return self._others[name]

    def __iter__(self) -> Iterator[Pool]:
        """Return all that are there, the data directory last."""
        yield from (pool for name, pool in self._others.items() if self._is_there(name))
        yield self.default

    def _is_there(self, name: str) -> bool:
        return (self._layouts[name].root / MARK).exists()

    # -- volumes -------------------------------------------------------------------------------

    def layout(self, name: str) -> Layout:
        """Return the places of a pool, which may be missing."""
        if name not in self._layouts:
            former = self._known.directories if self._known is not None else {}
            directory = former.get(name) or self._configured.get(name)
            if directory is None:
                raise PoolMissing(f"pool {name} is unknown here: it is not among `pools`")
            return Layout(directory)
        return self._layouts[name]

    def volume(self, name: str, instance_id: UUID, node_id: UUID) -> Volume:
        """Return the volume that a node has, or may have, in a pool."""
        paths = Layout(Path("/")).node(instance_id, node_id)
        return Volume(name, str(paths.data.relative_to("/")))

    def volume_of(self, record: NodeRecord) -> Volume:
        """Return the volume of a node."""
        return self.volume(record.pool, record.spec.instance_id, record.spec.node_id)

    def require_free(self, name: str, size: int) -> None:
        """Raise DiskFull if a pool cannot take so many bytes; what was deleted gives way to them."""
        if not self.named(name).ensure_free(size):
            raise DiskFull(f"no space is left in {self.layout(name).root}")

    def ensure_passage(self, name: str, instance_id: UUID, node_id: UUID, uid: Uid) -> None:
        """Make the directories that lead to a node's volume."""
        node = self.layout(name).node(instance_id, node_id).root
        for directory in (node.parent.parent, node.parent, node):
            accounts.ensure_passage(directory, uid)

    def tidy(self, name: str, instance_id: UUID, node_id: UUID) -> None:
        """Remove the directories that led to a node's volume, which is gone; a no-op in the data
        directory."""
        node = self.layout(name).node(instance_id, node_id).root
        with contextlib.suppress(OSError):  # something else is in one of them, or it is gone
            for directory in (node, node.parent, node.parent.parent):
                directory.rmdir()

    def exists(self, volume: Volume) -> bool:
        return self.named(volume.pool).exists(volume)

    def usage(self, volume: Volume) -> int:
        return self.named(volume.pool).usage(volume)

    def clone(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> None:
        """Copy a volume at rest, also into another pool; see `Pool.clone`."""
        there, here = self.named(source.pool), self.named(target.pool)
        if there is here:
            here.clone(source, target, uid, prepare)
        else:
            here.bring(there.path(source), target, uid, prepare)

    def shares(self, source: Volume, target: Volume) -> bool:
        """Return whether a clone shares its bytes with its source."""
        pool = self.named(source.pool)
        return source.pool == target.pool and (pool.reflink or pool.is_atomic(source))

    def remove_deleted(self) -> None:
        for pool in self:
            pool.remove_deleted()

    # -- instances as a whole ------------------------------------------------------------------

    def has_data(self, instance_id: UUID) -> bool:
        """Return whether there is a volume of an instance's, here or on its way into the trash."""
        return any(self._lies(pool, instance_id) for pool in self) or any(
            instance_id in pool.put_aside_since() for pool in self._others.values()
        )

    def _lies(self, pool: Pool, instance_id: UUID) -> bool:
        return any(self._directory(pool, instance_id).glob("nodes/*/data"))

    def _directory(self, pool: Pool, instance_id: UUID) -> Path:
        return self._layouts[pool.name].instance(instance_id)

    def delete(self, instance_id: UUID) -> None:
        """Delete all that there is of an instance."""
        for pool in self:
            pool.delete_below(self._directory(pool, instance_id))

    def put_aside(self, instance_id: UUID) -> None:
        """Move an instance into the trash; see `Pool.put_aside`."""
        with self._moving:
            for pool in self:
                pool.put_aside(self._directory(pool, instance_id), instance_id)

    def put_back(self, instance_id: UUID) -> bool:
        """Move back what the trash has of an instance; see `Pool.put_back`."""
        home = self._layout.instance(instance_id)
        with self._moving:
            is_trashed = instance_id in self.default.put_aside_since()
            if is_trashed and home.exists() and any(self._lies(one, instance_id) for one in self):
                return True  # it lives; what is in the trash is no longer its own
            keep_whole_for_return(self._layout, instance_id)
            done = [one.put_back(instance_id, self._directory(one, instance_id)) for one in self]
        return done[-1]

    def stop_return(self, instance_id: UUID) -> None:
        """See `Pool.stop_return`."""
        for pool in self:
            pool.stop_return(instance_id)

    def empty(self, before: float) -> None:
        """Delete what was put into the trash before a moment, and what is left of such instances."""
        self.default.empty(before)
        with self._moving:
            for pool in self._others.values():
                pool.forget(self.is_known)

    def is_known(self, instance_id: UUID) -> bool:
        """Return whether there is an instance, here or in the trash."""
        here = self._layout.instance(instance_id).exists()
        return here or any((self._layout.root / "trash").glob(f"*.{instance_id}"))

    def _save(self, known: KnownPools) -> None:
        if known != self._known:
            files.write_private(self._layout.pools, _KNOWN.dump_json(known).decode())
            self._known = known


def keep_whole_for_return(layout: Layout, instance_id: UUID) -> None:
    """Keep what the trash of all pools has of an instance; see `keep_for_return`."""
    known = known_pools(layout)
    for directory in [*(known.directories.values() if known is not None else ()), layout.root]:
        keep_for_return(directory, instance_id)
