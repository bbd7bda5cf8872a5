"""Shared memory that a killed server leaves behind.

Its next start on the same data directory finds that by the directory's inode, and removes it. Where the
data is copied again there is no such start: each copy would leave some of it, until the host has no
segment left (SHMMNI). The layouts are those of src/include/storage/pg_shmem.h and
src/backend/storage/ipc/dsm.c, the same from 14 to 18.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import struct
from pathlib import Path

log = logging.getLogger(__name__)

_PLACE = Path("/dev/shm")  # noqa: S108
_HEADER = struct.Struct("<iiQQI4xQQQ")
"""Magic number, creator's pid, sizes, the control segment's handle, -, device and inode of the data."""
_MAGIC = 679834894
_CONTROL, _CONTROL_MAGIC = struct.Struct("<III4x"), 0x9A503D32
_ITEM = struct.Struct("<II32x")
"""A segment's handle, and how often it is in use."""
_RMID, _READ_ONLY = 0, 0o10000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.shmat.restype = ctypes.c_void_p
_libc.shmdt.argtypes = [ctypes.c_void_p]


def remove(data: Path) -> None:
    """Remove the shared memory of a data directory's server, of which no process lives.

    A no-op if there is none.
    """
    try:
        found = data.stat()
    except FileNotFoundError:
        return
    identifier = _libc.shmget(ctypes.c_int(found.st_ino & 0xFFFFFFFF), ctypes.c_size_t(0), 0)
    if identifier < 0:
        return
    header = _read(identifier)
    if header is None or header[0] != _MAGIC or header[-2:] != (found.st_dev, found.st_ino):
        return
    for handle in _segments(header[4]):
        _remove_file(_PLACE / f"PostgreSQL.{handle}", found.st_uid)
    _libc.shmctl(identifier, _RMID, None)


def _remove_file(path: Path, owner: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_uid == owner:
            path.unlink()


def _read(identifier: int) -> tuple[int, ...] | None:
    address = _libc.shmat(identifier, None, _READ_ONLY)
    if address in (None, ctypes.c_void_p(-1).value):
        return None
    try:
        return _HEADER.unpack(ctypes.string_at(address, _HEADER.size))
    finally:
        _libc.shmdt(address)


def _segments(control: int) -> set[int]:
    """Return the handles of a server's dynamic segments, with that of the segment which lists them."""
    content = b""
    with contextlib.suppress(OSError):
        content = (_PLACE / f"PostgreSQL.{control}").read_bytes()
    if len(content) < _CONTROL.size:
        return set()
    magic, count, most = _CONTROL.unpack_from(content)
    if magic != _CONTROL_MAGIC or count > most or len(content) < _CONTROL.size + count * _ITEM.size:
        log.warning("the list of a killed server's shared memory is not known: %s", control)
        return set()
    items = [_ITEM.unpack_from(content, _CONTROL.size + n * _ITEM.size) for n in range(count)]
    # Those in the server's main memory have odd handles, and are no files.
    return {control, *(handle for handle, uses in items if uses > 0)}
