"""Volumes as plain directories: rootless, on any file system."""

from __future__ import annotations

import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes.base import Prepare, Volume
from openrdb.spec import DEFAULT_POOL
from openrdb.system import accounts, copying, files
from openrdb.system.accounts import Uid
from openrdb.system.mirror import Mirror

log = logging.getLogger(__name__)

TRASH = "trash"
_RETURNING = "returning"
"""Replaces the time in an entry's name while it is brought back, so that it is not emptied."""
_MOST_PASSES = 6
"""Of copying a volume that is in use."""
_FREEING = 0.5
"""Seconds without newly freed bytes after which waiting for space ends."""


class DirectoryPool:
    """Volumes below a directory that one process at a time opens as a pool.

    `making`, `removed` and `trash` in it are the pool's own. What is in them is no volume: nobody
    but the invoking user can write there, and names are random or tell whose it was and since when.
    """

    def __init__(
        self,
        root: Path,
        name: str = DEFAULT_POOL,
        *,
        give_up: Callable[[UUID], None] | None = None,
    ) -> None:
        """Open a directory as a pool.

        Args:
            give_up: is told an owner before what the trash has of it is deleted, as it has more
                elsewhere.
        """
        self.name = name
        self._give_up = give_up
        self._root = root
        self._making, self._removed = root / "making", root / "removed"
        accounts.passable_directory(self._making)  # engines' programs make templates in it
        self._trash = root / TRASH
        for directory in (self._removed, self._trash):
            directory.mkdir(mode=0o700, exist_ok=True)
        for left in self._making.iterdir():
            left.rename(self._removed / str(uuid4()))
        self._places: set[str] = set()
        """Names of those in which volumes are being made."""
        self.reflink = copying.can_share(self._making)
        self._copying = threading.Semaphore(os.cpu_count() or 1)
        self._removing = threading.Lock()
        self._emptying = threading.Lock()
        self._freeing = False
        """Whether something was removed whose space may not be counted as free yet."""

    _reserves = True
    """Whether copies allot room to holes, so that they can be filled on a full disk."""

    @property
    def quota(self) -> bool:
        return False

    # -- which there are -----------------------------------------------------------------------

    def volume(self, path: Path) -> Volume:
        return Volume(self.name, str(path.relative_to(self._root)))

    def path(self, volume: Volume) -> Path:
        if volume.pool != self.name:
            raise ValueError(f"volume {volume.key} is of pool {volume.pool}, not {self.name}")
        return self._root / volume.key

    def exists(self, volume: Volume) -> bool:
        return self.path(volume).exists()

    def is_outdated(self, volume: Volume) -> bool:
        return False

    # -- making and removing -------------------------------------------------------------------

    def create(self, volume: Volume, make: Callable[[Path], None]) -> None:
        with self._place() as work:
            accounts.passable_directory(work.parent)
            make(work)
            accounts.take_over(work)
            self._convert(work)
            files.sync_file_system(work)
            self._name(work, volume)

    def clone(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> None:
        with self._place() as work:
            self._copy(source, work, uid)
            if prepare is not None:
                prepare(work)
            self._name(work, target)

    def is_atomic(self, volume: Volume) -> bool:
        return False

    def snapshot(self, source: Volume, target: Volume, complete: Prepare | None = None) -> None:
        with self._place() as work:
            self._copy(source, work, None, in_use=True)
            if complete is not None:
                complete(work)
            self._name(work, target)

    def _copy(self, source: Volume, work: Path, uid: Uid, *, in_use: bool = False) -> None:
        # As many at once as there are processors: more would all end together, late.
        with self._copying:
            copying.copy_tree(self.path(source), work, uid, share=self.reflink, in_use=in_use)
        # One call for a thousand files; fsync of each takes three times as long.
        files.sync_file_system(work)

    def take(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> bool:
        with self._place() as work:
            try:
                self.path(source).rename(work)
            except FileNotFoundError:
                return False
            self._convert(work)
            files.give_tree(work, uid)
            if prepare is not None:
                prepare(work)
            self._name(work, target)
        return True

    def rename(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> bool:
        path = self.path(source)
        try:
            path.chmod(0o700)
            os.chown(path, os.geteuid(), os.getegid())  # out of every account's reach
        except FileNotFoundError:
            return False
        files.give_tree(path, uid)
        if prepare is not None:
            prepare(path)
        self._name(path, target)
        return True

    def bring(
        self,
        source: Path,
        target: Volume,
        uid: Uid,
        prepare: Prepare | None = None,
        *,
        hold: Callable[[], None] | None = None,
    ) -> None:
        with self._place() as work:
            self._make_directory(work)
            mirror = Mirror(source, work, uid, share=self.reflink, reserve=self._reserves)
            if hold is not None:
                self._follow(mirror, work)
                hold()
            self._update(mirror, work, in_use=False)
            if prepare is not None:
                prepare(work)
            self._name(work, target)

    def _follow(self, mirror: Mirror, work: Path) -> None:
        """Copy a volume in use, until what is left to do when it ends does not become less."""
        former = math.inf
        for _ in range(_MOST_PASSES):
            began = time.monotonic()
            self._update(mirror, work, in_use=True)
            took = time.monotonic() - began
            if took > former / 2:
                break
            former = took

    def _update(self, mirror: Mirror, work: Path, *, in_use: bool) -> None:
        with self._copying:
            mirror.update(in_use=in_use)
        files.sync_file_system(work)

    def _make_directory(self, work: Path) -> None:
        """Make an empty directory that is to become a volume."""
        work.mkdir(mode=0o700)

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """Yield where a volume is made, out of every account's reach; remove what is left there."""
        place = self._making / str(uuid4())
        self._places.add(place.name)
        place.mkdir(mode=0o700)
        try:
            yield place / "data"
        finally:
            shutil.rmtree(place, ignore_errors=True)
            # A server whose copy was broken off may have written there until now.
            with suppress(FileNotFoundError):
                place.rename(self._removed / place.name)
            self._places.discard(place.name)

    def _convert(self, work: Path) -> None:
        """Make a directory durably what the pool's volumes are: here, what it is."""

    def _name(self, work: Path, volume: Volume) -> None:
        path = self.path(volume)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        work.rename(path)

    def settle(self, volume: Volume) -> None:
        for directory in self.path(volume).parents:
            if directory == self._root:
                return
            files.sync_directory(directory)

    def delete(self, volume: Volume) -> None:
        self.delete_below(self.path(volume))

    def delete_below(self, directory: Path) -> None:
        try:
            directory.rename(self._removed / str(uuid4()))
        except FileNotFoundError:
            return
        files.sync_directory(directory.parent)

    def remove_deleted(self) -> None:
        with self._removing:
            for place in self._making.iterdir():
                if place.name not in self._places:  # such a server makes it again, until it notices
                    with suppress(FileNotFoundError):
                        place.rename(self._removed / str(uuid4()))
            for path in self._removed.iterdir():
                self._freeing = True
                try:
                    self._remove(path)
                except OSError as error:
                    log.warning("%s is removed later: %s", path, error)

    def _remove(self, path: Path) -> None:
        files.remove_entry(path)

    # -- the trash -----------------------------------------------------------------------------

    def put_aside(self, directory: Path, owner: UUID) -> None:
        if not directory.exists():
            return
        if self._trashed_of(owner):
            self.delete_below(directory)
            return
        directory.rename(self._trash / f"{int(time.time())}.{owner}")
        files.sync_directory(self._trash)
        files.sync_directory(directory.parent)

    def put_back(self, owner: UUID, directory: Path) -> bool:
        # Not while the same directory is being deleted: it is either here or gone.
        with self._emptying:
            if any(directory.glob("nodes/*/data")):
                return True  # it lives; what is in the trash is no longer its own
            keep_for_return(self._root, owner)
            for found in self._trashed_of(owner):
                self.delete_below(directory)
                found.rename(directory)
                files.sync_directory(directory.parent)
                files.sync_directory(self._trash)
        return directory.exists()

    def stop_return(self, owner: UUID) -> None:
        with self._emptying, suppress(FileNotFoundError):
            self._returning(owner).rename(self._trash / f"{int(time.time())}.{owner}")
            files.sync_directory(self._trash)

    def put_aside_since(self) -> dict[UUID, float]:
        return trashed_since(self._root)

    def _trashed_of(self, owner: UUID) -> list[Path]:
        return sorted(self._trash.glob(f"*.{owner}"))

    def _returning(self, owner: UUID) -> Path:
        return self._trash / f"{_RETURNING}.{owner}"

    def forget(self, is_known: Callable[[UUID], bool]) -> None:
        for path in self._trash.glob("*.*"):
            with suppress(ValueError):  # a stranger's file
                if not is_known(UUID(path.name.partition(".")[2])):
                    self.delete_below(path)

    def empty(self, before: float) -> None:
        for owner, since in self.put_aside_since().items():
            if since < before:
                self.delete_trashed(owner)
        self.remove_deleted()

    def ensure_free(self, size: int) -> bool:
        if self.free() >= size:
            return True
        self._reclaim(size)
        oldest_first = sorted(self.put_aside_since().items(), key=lambda one: one[1])
        for owner, _ in oldest_first:
            if self.free() >= size:
                break
            if self._is_elsewhere(owner):
                continue
            log.warning("space is short: instance %s leaves the trash", owner)
            self.delete_trashed(owner)
            self._reclaim(size)
        return self.free() >= size

    def _reclaim(self, size: int) -> None:
        """Remove what was deleted; wait until so many bytes are free or free space stops growing."""
        self.remove_deleted()
        if not self._freeing:
            return
        self._freeing = False
        files.sync_file_system(self._root)  # btrfs counts it as free only then
        free, since = self.free(), time.monotonic()
        while free < size and time.monotonic() - since < _FREEING:
            time.sleep(0.02)  # xfs frees it some time later, and nothing announces it
            if (now := self.free()) > free:
                free, since = now, time.monotonic()

    def _is_elsewhere(self, owner: UUID) -> bool:
        """Return whether an owner's volumes are of other pools: here is little of it."""
        trashed = self._trashed_of(owner)
        has_nodes = any(any(path.glob("nodes/*")) for path in trashed)
        return has_nodes and not any(any(path.glob("nodes/*/data")) for path in trashed)

    def delete_trashed(self, owner: UUID) -> None:
        with self._emptying:
            if self._give_up is not None:
                self._give_up(owner)
            for path in self._trashed_of(owner):
                if path != self._returning(owner):
                    self.delete_below(path)

    # -- room ----------------------------------------------------------------------------------

    def limit(self, volume: Volume, size: int | None) -> None:
        pass

    def charged(self, volume: Volume) -> int | None:
        return None

    def usage(self, volume: Volume) -> int:
        return files.tree_size(self.path(volume))

    def size(self) -> int:
        return files.used_bytes(self._root)[0]

    def free(self) -> int:
        return files.free_bytes(self._root)

    def has_room(self, size: int = 0) -> bool:
        return self.ensure_free(LEAST_FREE + size)


def keep_for_return(root: Path, owner: UUID) -> None:
    """Keep what the trash of a pool has of an owner until it is put back; a no-op if that is nothing.

    The pool may be another process's. Neither time nor want of space empties it from now on.
    """
    for path in (root / TRASH).glob(f"*.{owner}"):
        with suppress(FileNotFoundError):  # it was emptied just now
            path.rename(path.with_name(f"{_RETURNING}.{owner}"))
            files.sync_directory(path.parent)


def trashed_since(root: Path) -> dict[UUID, float]:
    """Return what is in the trash of a pool, which may be another process's: see `Pool`."""
    found = {}
    for path in (root / TRASH).glob("*.*"):
        since, _, owner = path.name.partition(".")
        with suppress(ValueError):  # a stranger's file, or what is being brought back
            found[UUID(owner)] = float(since)
    return found
