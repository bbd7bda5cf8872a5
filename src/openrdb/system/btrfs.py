"""Subvolumes of btrfs, by the kernel's own calls: the program `btrfs` need not be installed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

_FS_INFO = 0x8400941F
_INO_LOOKUP = 0xD0009412
_SUBVOL_CREATE = 0x5000940E
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_QGROUP_LIMIT = 0x8030942B
_GETFLAGS = 0x80086601
_SETFLAGS = 0x40086602
_READ_ONLY = 2
_COMPRESSED = 4
_NO_COW = 0x00800000
_MAX_REFERENCED = 1
_NO_LIMIT = 2**64 - 1
_CHARGED = ("referenced", "rsv_data", "rsv_meta_pertrans", "rsv_meta_prealloc")
"""What counts towards a limit, in sysfs: what was written lately is only reserved."""
_TOP_INODE = 256
"""The inode of each subvolume's top directory, and of nothing else."""
_FOLLOWING = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""How to open what nobody but us or the operator can have put there."""
_FLAGS = _FOLLOWING | os.O_NOFOLLOW


def file_system(directory: Path) -> UUID | None:
    """Return the id of the btrfs that a directory lies on; None if it lies on something else."""
    found = bytearray(1024)
    try:
        with _open(directory, _FOLLOWING) as descriptor:
            fcntl.ioctl(descriptor, _FS_INFO, found)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EACCES):
            return None
        raise
    return UUID(bytes=bytes(found[16:32]))


def is_subvolume(path: Path) -> bool:
    """Return whether a path of a btrfs is a subvolume's top."""
    return os.lstat(path).st_ino == _TOP_INODE


def create_subvolume(path: Path) -> None:
    """Make an empty subvolume; it is durable when this returns."""
    with _open(path.parent, _FOLLOWING) as parent:
        # Not `bytes`: fcntl takes at most 1,024 of them.
        fields = bytearray(struct.pack("<q4088s", 0, os.fsencode(path.name)))
        fcntl.ioctl(parent, _SUBVOL_CREATE, fields)
    path.chmod(0o700)


def snapshot(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Make a subvolume of what another is at this moment, at once and durably.

    Writers to the file system wait meanwhile; less if it was synced right before.

    Raises:
        OSError: the target exists (EEXIST), or the source is no subvolume (EINVAL).
    """
    flags = _READ_ONLY if read_only else 0
    with _open(source) as descriptor, _open(target.parent, _FOLLOWING) as parent:
        name = os.fsencode(target.name)
        fields = struct.pack("<qQQ4Q4040s", descriptor, 0, flags, 0, 0, 0, 0, name)
        fcntl.ioctl(parent, _SNAP_CREATE_V2, bytearray(fields))


def make_writable(path: Path) -> None:
    """Let a subvolume be written to, moved and removed again."""
    with _open(path) as descriptor:
        _make_writable(descriptor)


def _make_writable(descriptor: int) -> None:
    flags = bytearray(8)
    fcntl.ioctl(descriptor, _SUBVOL_GETFLAGS, flags)
    (found,) = struct.unpack("<Q", flags)
    if found & _READ_ONLY:
        fcntl.ioctl(descriptor, _SUBVOL_SETFLAGS, struct.pack("<Q", found & ~_READ_ONLY))


def make_writable_below(top: Path, depth: int) -> None:
    """Make writable what a directory is or has of subvolumes, not deeper than so many levels.

    Subvolumes can then be removed as directories are, without any privilege.
    """
    with _open(top.parent, _FOLLOWING) as parent:
        _visit(parent, top.name, depth)


def _visit(parent: int, name: str, depth: int) -> None:
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=parent)
    except OSError:  # a file, a link, or nothing any more
        return
    try:
        if os.fstat(descriptor).st_ino == _TOP_INODE:
            _make_writable(descriptor)
        elif depth > 0:
            for entry in os.scandir(descriptor):
                if entry.is_dir(follow_symlinks=False):
                    _visit(descriptor, entry.name, depth - 1)
    finally:
        os.close(descriptor)


def set_no_cow(directory: Path) -> None:
    """Let files that will be made in a directory be overwritten in place, like `chattr +C`.

    What is made in it is born with the same flag, except subvolumes. A no-op where the operator
    wants files compressed, which excludes it.
    """
    with _open(directory) as descriptor:
        flags = bytearray(8)
        fcntl.ioctl(descriptor, _GETFLAGS, flags)
        (found,) = struct.unpack("<Q", flags)
        if not found & (_COMPRESSED | _NO_COW):
            fcntl.ioctl(descriptor, _SETFLAGS, struct.pack("<Q", found | _NO_COW))


def promised(file_system_id: UUID) -> int:
    """Return the bytes that were written and have no place on the device yet.

    `statvfs` counts them as free, for up to half a minute.
    """
    data = Path(f"/sys/fs/btrfs/{file_system_id}/allocation/data")
    found = 0
    for name in ("bytes_may_use", "bytes_reserved"):
        with contextlib.suppress(OSError):
            found += int((data / name).read_text())
    return found


def has_simple_quotas(file_system_id: UUID) -> bool:
    """Return whether simple quotas are on: the only kind whose price does not grow with snapshots."""
    try:
        mode = Path(f"/sys/fs/btrfs/{file_system_id}/qgroups/mode").read_text()
    except OSError:
        return False
    return mode.strip() == "squota"


def may_limit(directory: Path) -> bool:
    """Return whether we may limit subvolumes: quotas are on, and we are root of the whole machine."""
    with _open(directory) as descriptor:
        try:
            fcntl.ioctl(descriptor, _QGROUP_LIMIT, struct.pack("<6Q", 0, 0, 0, 0, 0, 0))
        except OSError:
            return False
    return True


def charged(file_system_id: UUID, path: Path) -> int:
    """Return the bytes that count towards a subvolume's limit; simple quotas must be on."""
    group = Path(f"/sys/fs/btrfs/{file_system_id}/qgroups/0_{_subvolume_id(path)}")
    return sum(int((group / name).read_text()) for name in _CHARGED)


def _subvolume_id(path: Path) -> int:
    with _open(path) as descriptor:
        # Of inode 256 in "tree 0", which is the one that the descriptor lies in.
        fields = bytearray(struct.pack("<QQ4080s", 0, _TOP_INODE, b""))
        fcntl.ioctl(descriptor, _INO_LOOKUP, fields)
    (found,) = struct.unpack_from("<Q", fields)
    return int(found)


def limit(path: Path, size: int | None) -> None:
    """Limit the bytes that are written into a subvolume; None: to what the file system has."""
    most = _NO_LIMIT if size is None else size
    # From outside: within a subvolume that has met its limit not even this could be written.
    with _open(path.parent, _FOLLOWING) as descriptor:
        fields = struct.pack("<6Q", _subvolume_id(path), _MAX_REFERENCED, most, 0, 0, 0)
        fcntl.ioctl(descriptor, _QGROUP_LIMIT, fields)


@contextlib.contextmanager
def _open(path: Path, flags: int = _FLAGS) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
