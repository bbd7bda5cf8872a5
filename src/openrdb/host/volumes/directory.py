"""Volumes as plain directories: rootless, on any file system."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes.base import Prepare, Volume
from openrdb.system import accounts, files
from openrdb.system.accounts import Uid

log = logging.getLogger(__name__)


class DirectoryPool:
    """Volumes below a directory that one process at a time opens as a pool.

    `making` and `removed` in it are the pool's own. What is in them is no volume: the names are
    random, and nobody but the invoking user can write there.
    """

    atomic: ClassVar[bool] = False
    quota: ClassVar[bool] = False

    def __init__(self, root: Path, name: str = "default") -> None:
        self.name = name
        self._root = root
        self._making, self._removed = root / "making", root / "removed"
        accounts.passable_directory(self._making)  # engines' programs make templates in it
        self._removed.mkdir(mode=0o700, exist_ok=True)
        for left in self._making.iterdir():
            left.rename(self._removed / str(uuid4()))
        self._copying = threading.Semaphore(os.cpu_count() or 1)
        self._removing = threading.Lock()

    # -- which there are -----------------------------------------------------------------------

    def volume(self, path: Path) -> Volume:
        return Volume(self.name, str(path.relative_to(self._root)))

    def path(self, volume: Volume) -> Path:
        if volume.pool != self.name:
            raise ValueError(f"volume {volume.key} is of pool {volume.pool}, not {self.name}")
        return self._root / volume.key

    def exists(self, volume: Volume) -> bool:
        return self.path(volume).exists()

    # -- making and removing -------------------------------------------------------------------

    def create(self, volume: Volume, make: Callable[[Path], None]) -> None:
        with self._place() as work:
            accounts.passable_directory(work.parent)
            make(work)
            accounts.take_over(work)
            files.sync_file_system(work)
            self._name(work, volume)

    def clone(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> None:
        with self._place() as work:
            # As many at once as there are processors: more would all end together, late.
            with self._copying:
                files.copy_tree(self.path(source), work, uid)
            # One call for a thousand files; fsync of each takes three times as long.
            files.sync_file_system(work)
            if prepare is not None:
                prepare(work)
            self._name(work, target)

    def take(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> bool:
        with self._place() as work:
            try:
                self.path(source).rename(work)
            except FileNotFoundError:
                return False
            files.give_tree(work, uid)
            if prepare is not None:
                prepare(work)
            self._name(work, target)
        return True

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """Yield where a volume is made, out of every account's reach; remove what is left there."""
        place = self._making / str(uuid4())
        place.mkdir(mode=0o700)
        try:
            yield place / "data"
        finally:
            shutil.rmtree(place, ignore_errors=True)

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
            for path in self._removed.iterdir():
                try:
                    files.remove_entry(path)
                except OSError as error:
                    log.warning("%s is removed later: %s", path, error)

    # -- room ----------------------------------------------------------------------------------

    def usage(self, volume: Volume) -> int:
        return files.tree_size(self.path(volume))

    def free(self) -> int:
        return files.free_bytes(self._root)

    def has_room(self, size: int = 0) -> bool:
        return self.free() >= LEAST_FREE + size
