"""Copying directories, also ones that are being written to; bytes are shared where that is possible."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from openrdb.system import comparing
from openrdb.system.accounts import Uid
from openrdb.system.files import OTHERS

_FICLONE = 0x40049409
_COMPARED, _BLOCK = 2**20, comparing.BLOCK
"""Bytes that are compared at once, and of which those are written that differ."""
_CANNOT_SHARE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL)


def can_share(directory: Path) -> bool:
    """Return whether two files of a directory can share their bytes, as on xfs and btrfs."""
    try:
        with (
            tempfile.TemporaryFile(dir=directory, buffering=0) as source,
            tempfile.TemporaryFile(dir=directory, buffering=0) as target,
        ):
            source.write(b"\0" * 4096)
            return _share_extents(source.fileno(), target.fileno())
    except OSError:  # a full disk: copies need their own room then
        return False


def copy_tree(
    source: Path,
    target: Path,
    uid: Uid = None,
    *,
    share: bool = True,
    in_use: bool = False,
    reserve: bool = True,
    exists: bool = False,
) -> None:
    """Copy a directory; no zeros are written where the source has holes.

    No symbolic link is followed, also if an account that may write to the source puts one there
    meanwhile. Modes of files are kept, owners become `uid`.

    Args:
        share: let the files share their bytes where the file system can.
        in_use: files of the source may vanish and become shorter meanwhile; each is copied as it is
            then, one after the other.
        reserve: allot room to holes, so that they can be filled on a full disk.
        exists: the target is an empty directory, which is filled.

    Raises:
        OSError: something is neither a file, a directory nor a link (EINVAL).
    """
    copy = Copier(uid, share, in_use, reserve)
    with open_directory(source) as reading:
        if not exists:
            os.mkdir(target, 0o700)
        with open_directory(target) as writing:
            copy.entries(reading, writing)


def copy_files(source: Path, names: Iterable[str], target: Path) -> None:
    """Copy files of a directory into another one, where they are not; no symbolic link is followed.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    copy = Copier(None, share=True, in_use=True, reserve=True)
    with open_directory(source) as reading, open_directory(target) as writing:
        for name in names:
            copy.file(name, reading, writing)


@contextlib.contextmanager
def open_directory(path: Path | str, within: int | None = None) -> Iterator[int]:
    """Yield a descriptor of a directory; no symbolic link is followed in its place."""
    with _opened(path, OTHERS | os.O_DIRECTORY, within) as descriptor:
        yield descriptor


@contextlib.contextmanager
def _opened(path: Path | str, flags: int, within: int | None, mode: int = 0) -> Iterator[int]:
    descriptor = os.open(path, flags, mode, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _regular(name: str, descriptor: int) -> os.stat_result:
    """Return what a file is, or raise OSError if it is none."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", name)
    return found


@dataclass(frozen=True)
class Copier:
    """Copies what is in one open directory into another one."""

    uid: Uid
    share: bool
    in_use: bool
    reserve: bool

    def entries(self, source: int, target: int) -> None:
        for entry in os.scandir(source):
            try:
                self._entry(entry, source, target)
            except FileNotFoundError:
                if not self.in_use:
                    raise
        self._give(target)

    def _entry(self, entry: os.DirEntry[str], source: int, target: int) -> None:
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            with open_directory(name, source) as reading:
                os.mkdir(name, 0o700, dir_fd=target)
                with open_directory(name, target) as writing:
                    self.entries(reading, writing)
        elif entry.is_symlink():
            self.link(name, source, target)
        else:
            self.file(name, source, target)

    def link(self, name: str, source: int, target: int) -> None:
        """Copy a symbolic link."""
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        if self.uid is not None:
            os.chown(name, self.uid, self.uid, dir_fd=target, follow_symlinks=False)

    def file(self, name: str, source: int, target: int) -> os.stat_result:
        """Copy a file, and return what it was before its first byte was read."""
        with _opened(name, OTHERS, source) as reading:
            found = _regular(name, reading)
            new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with _opened(name, new, target, found.st_mode & 0o777) as writing:
                self._content(reading, writing, found)
                self._give(writing)
        return found

    def refresh(self, name: str, source: int, target: int) -> os.stat_result:
        """Make a copy of a file what the file is now; as `file`, but only differences are written."""
        with _opened(name, OTHERS, source) as reading:
            found = _regular(name, reading)
            with _opened(name, OTHERS | os.O_RDWR, target) as writing:
                size = found.st_size
                done = self.share and _share_extents(reading, writing)
                done = done or (not self.in_use and comparing.equalize(reading, writing, size))
                if not done:
                    self._differences(reading, writing, size)
                os.ftruncate(writing, size)
                os.fchmod(writing, found.st_mode & 0o777)
                self._give(writing)
        return found

    def _give(self, descriptor: int) -> None:
        if self.uid is not None:
            os.fchown(descriptor, self.uid, self.uid)

    def _differences(self, reading: int, writing: int, size: int) -> None:
        new, old = bytearray(_COMPARED), bytearray(_COMPARED)
        offset = 0
        while offset < size:
            count = min(os.preadv(reading, [new], offset), size - offset)
            if count == 0:
                if self.in_use:
                    return
                raise OSError(errno.EIO, "a file became shorter while it was copied")
            there = os.preadv(writing, [old], offset)
            if count < _COMPARED or there < count or new != old:
                for start in range(0, count, _BLOCK):
                    end = min(start + _BLOCK, count)
                    if there < end or new[start:end] != old[start:end]:
                        comparing.write(writing, memoryview(new)[start:end], offset + start)
            offset += count

    def _content(self, reading: int, writing: int, found: os.stat_result) -> None:
        is_sparse = found.st_blocks * 512 < found.st_size
        is_shared = self.share and _share_extents(reading, writing)
        if is_sparse and self.reserve:
            os.posix_fallocate(writing, 0, found.st_size)
        elif is_sparse and not is_shared:
            os.ftruncate(writing, found.st_size)
        if is_shared:
            return
        if is_sparse:
            self._data(reading, writing, found.st_size)
        else:
            self._range(reading, writing, 0, found.st_size)

    def _range(self, reading: int, writing: int, offset: int, end: int) -> None:
        while offset < end:
            copied = _copy_range(reading, writing, end - offset, offset)
            if copied == 0:
                if self.in_use:
                    return
                raise OSError(errno.EIO, "a file became shorter while it was copied")
            offset += copied

    def _data(self, reading: int, writing: int, size: int) -> None:
        """Copy all but the holes."""
        offset = 0
        while offset < size:
            try:
                start = os.lseek(reading, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            offset = os.lseek(reading, start, os.SEEK_HOLE)
            self._range(reading, writing, start, offset)


def _copy_range(reading: int, writing: int, count: int, offset: int) -> int:
    """Copy at most so many bytes; return how many were."""
    try:
        return os.copy_file_range(reading, writing, count, offset, offset)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
    # From one kind of file system to another the kernel copies only by this call.
    os.lseek(writing, offset, os.SEEK_SET)
    return os.sendfile(writing, reading, offset, count)


def _share_extents(reading: int, writing: int) -> bool:
    """Make an empty file one that has another's extents, as btrfs and xfs can.

    Returns:
        False if the file system cannot, or not for these two.
    """
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError as error:
        if error.errno in _CANNOT_SHARE:
            return False
        raise
    return True
