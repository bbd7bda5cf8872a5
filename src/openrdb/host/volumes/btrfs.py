"""Volumes as subvolumes of btrfs: snapshots in an instant, of servers at work; rootless too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from openrdb.host.volumes.base import Prepare, Volume
from openrdb.host.volumes.directory import DirectoryPool
from openrdb.spec import DEFAULT_POOL
from openrdb.system import btrfs, copying, files
from openrdb.system.accounts import Uid

_DEPTH = 6
"""How many directories below one that is deleted its volumes lie at most."""


class BtrfsPool(DirectoryPool):
    """Volumes below a directory of a btrfs; all else is as in a pool of plain directories.

    What is moved is a subvolume, or a directory with subvolumes in it: both are renamed like any
    other, as the whole pool lies on one file system. Volumes that an earlier version or a copy of
    the data directory left as plain directories are used as they are, and not `is_atomic`.
    """

    _reserves = False
    """Room that is allotted to a hole is of no use as soon as a snapshot shares it."""

    def __init__(
        self,
        root: Path,
        file_system: UUID,
        name: str = DEFAULT_POOL,
        *,
        give_up: Callable[[UUID], None] | None = None,
        no_cow: bool = True,
    ) -> None:
        """Open a directory as a pool.

        Args:
            give_up: see `DirectoryPool`.
            no_cow: let engines overwrite their pages in place, except after a snapshot: btrfs then
                keeps no checksums of them, as the engines do, and does not scatter their files.
        """
        self._no_cow = no_cow
        self._file_system = file_system
        super().__init__(root, name, give_up=give_up)

    @property
    def quota(self) -> bool:
        return btrfs.has_simple_quotas(self._file_system) and btrfs.may_limit(self._making)

    def is_outdated(self, volume: Volume) -> bool:
        return not self.is_atomic(volume)

    # -- making and removing -------------------------------------------------------------------

    def is_atomic(self, volume: Volume) -> bool:
        return btrfs.is_subvolume(self.path(volume))

    def snapshot(self, source: Volume, target: Volume, complete: Prepare | None = None) -> None:
        if complete is not None or not self.is_atomic(source):
            super().snapshot(source, target, complete)
            return
        path = self.path(target)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _snapshot(self.path(source), path, read_only=True)

    def _copy(self, source: Volume, work: Path, uid: Uid, *, in_use: bool = False) -> None:
        if not self.is_atomic(source):
            self._fill(self.path(source), work, uid, in_use=in_use)
            return
        _snapshot(self.path(source), work)
        owner = os.geteuid() if uid is None else uid
        if work.stat().st_uid != owner:
            # Durable with the name: the file system writes changes in their order.
            files.give_tree(work, owner)

    @contextmanager
    def _place(self) -> Iterator[Path]:
        with super()._place() as work:
            # Files of one kind cannot share their bytes with those of the other.
            self._choose_cow(work.parent)
            yield work

    def _convert(self, work: Path) -> None:
        if not btrfs.is_subvolume(work):
            plain = work.with_name("plain")
            work.rename(plain)
            self._fill(plain, work, None)

    def _fill(self, source: Path, work: Path, uid: Uid, *, in_use: bool = False) -> None:
        """Make a subvolume with a copy of a directory."""
        self._make_directory(work)
        with self._copying:
            copying.copy_tree(source, work, uid, in_use=in_use, reserve=self._reserves, exists=True)
        files.sync_file_system(work)

    def _make_directory(self, work: Path) -> None:
        btrfs.create_subvolume(work)
        self._choose_cow(work)

    def _choose_cow(self, directory: Path) -> None:
        if self._no_cow:
            btrfs.set_no_cow(directory)

    def delete(self, volume: Volume) -> None:
        path = self.path(volume)
        if path.exists() and self.is_atomic(volume):
            btrfs.make_writable(path)  # a snapshot could not be moved
        super().delete(volume)

    def _remove(self, path: Path) -> None:
        # Not by the call that destroys a subvolume: its space comes back half a minute later, and
        # `ensure_free` would empty the whole trash meanwhile.
        btrfs.make_writable_below(path, _DEPTH)
        super()._remove(path)

    # -- room ----------------------------------------------------------------------------------

    def free(self) -> int:
        return max(super().free() - btrfs.promised(self._file_system), 0)

    def limit(self, volume: Volume, size: int | None) -> None:
        # A plain directory would pass the limit on to all that lies around it.
        if self.quota and self.is_atomic(volume):
            btrfs.limit(self.path(volume), size)

    def charged(self, volume: Volume) -> int | None:
        if self.quota and self.is_atomic(volume):
            return btrfs.charged(self._file_system, self.path(volume))
        return None


def _snapshot(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Make a snapshot that stops writers shortly: the sync does most of its work, without stopping
    them."""
    files.sync_file_system(source)
    btrfs.snapshot(source, target, read_only=read_only)
