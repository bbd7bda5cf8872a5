"""Copying a directory while it is written to, and once more what has changed when that has ended.

Of a file that has changed since it was copied only the differences are written: reading it takes a
fraction of what writing does, and next to nothing is left to be synced.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path, PurePath

from openrdb.system import files
from openrdb.system.accounts import Uid
from openrdb.system.copying import Copier, open_directory

_IN_FLIGHT = 60.0
"""Seconds for which a file's times may lie before one of its bytes is written: the kernel sets them
when a write begins."""


@dataclass(frozen=True)
class _Seen:
    """A file as it was before it was copied."""

    inode: int
    size: int
    modified: int
    changed: int
    is_settled: bool
    """Whether nothing that had begun to write to it could still be under way."""


class Mirror:
    """A copy of a directory: as often as it is made, only what has changed is copied again.

    That nothing of a file has changed is told by its times, which no engine sets. No symbolic link is
    followed in either directory.
    """

    def __init__(self, source: Path, target: Path, uid: Uid, *, share: bool, reserve: bool) -> None:
        """Copy nothing yet.

        Args:
            target: a directory that nobody else can reach.
            share: see `copy_tree`.
            reserve: see `copy_tree`.
        """
        self._source, self._target = source, target
        self._uid, self._share, self._reserve = uid, share, reserve
        self._seen: dict[PurePath, _Seen] = {}

    def update(self, *, in_use: bool) -> None:
        """Make the copy what the directory is.

        Args:
            in_use: see `copy_tree`; the copy is one of a moment only if this is false.
        """
        copier = Copier(self._uid, self._share, in_use, self._reserve)
        with open_directory(self._source) as reading, open_directory(self._target) as writing:
            self._directory(copier, PurePath(), reading, writing)

    def _directory(self, copier: Copier, place: PurePath, source: int, target: int) -> None:
        names = os.listdir(source)
        for name in set(os.listdir(target)).difference(names):
            self._remove(place / name)
        for name in names:
            try:
                self._entry(copier, place / name, source, target)
            except FileNotFoundError:
                if not copier.in_use:
                    raise
        if copier.uid is not None:
            os.fchown(target, copier.uid, copier.uid)

    def _entry(self, copier: Copier, path: PurePath, source: int, target: int) -> None:
        found = os.stat(path.name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            if not (self._target / path).is_dir() or (self._target / path).is_symlink():
                self._remove(path)
                os.mkdir(path.name, 0o700, dir_fd=target)
            with (
                open_directory(path.name, source) as reading,
                open_directory(path.name, target) as writing,
            ):
                self._directory(copier, path, reading, writing)
        elif stat.S_ISLNK(found.st_mode):
            self._remove(path)
            copier.link(path.name, source, target)
        elif self._seen.get(path) != _seen(found, is_settled=True):
            is_there = path in self._seen
            if not is_there:
                self._remove(path)
            began = time.time()
            copied = (copier.refresh if is_there else copier.file)(path.name, source, target)
            latest = max(copied.st_mtime, copied.st_ctime)
            self._seen[path] = _seen(copied, is_settled=latest < began - _IN_FLIGHT)

    def _remove(self, path: PurePath) -> None:
        self._seen.pop(path, None)
        files.remove_entry(self._target / path)


def _seen(found: os.stat_result, *, is_settled: bool) -> _Seen:
    return _Seen(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, is_settled)
