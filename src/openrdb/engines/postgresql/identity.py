"""A new system identifier for a copied data directory, and no replication slots.

`pg_resetwal` does not give one (and takes a second). The identifier is the first eight bytes of
`global/pg_control`, covered by that file's CRC-32C, and stands in the long header of each WAL
segment's first page at byte 24 (src/include/catalog/pg_control.h, access/xlog_internal.h; the same
from 11 to 18).
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import time
from pathlib import Path

import google_crc32c

from openrdb.engines.postgresql import wal
from openrdb.system import files

_SEGMENT_IDENTIFIER = 24
_FIRST_CRC, _LAST_CRC = 200, 512
"""Where in pg_control the CRC can stand: 280 in 11, 288 to 292 later."""


def renew_system_identifier(data: Path) -> int:
    """Put a fresh identifier into a stopped server's directory, durably, and return it.

    Raises:
        ValueError: this is no `pg_control` that we know.
    """
    identifier = struct.pack("<Q", _fresh_identifier())
    for segment in (data / "pg_wal").iterdir():
        if wal.is_segment(segment.name):
            _overwrite(segment, _SEGMENT_IDENTIFIER, identifier)
    change_control(data, 0, identifier)
    return int(struct.unpack("<Q", identifier)[0])


def change_control(data: Path, offset: int, field: bytes) -> None:
    """Put a field into the `pg_control` of a stopped server, durably.

    Raises:
        ValueError: this is no `pg_control` that we know.
    """
    control = data / "global" / "pg_control"
    content = bytearray(control.read_bytes())
    crc_at = find_crc(content)
    content[offset : offset + len(field)] = field
    content[crc_at : crc_at + 4] = struct.pack("<I", google_crc32c.value(bytes(content[:crc_at])))
    _overwrite(control, 0, bytes(content))


def forget_slots(data: Path) -> None:
    """Remove the replication slots of a stopped server: those of a copy's source would keep WAL for
    ever, as nobody comes for it."""
    slots = data / "pg_replslot"
    for slot in slots.iterdir():
        shutil.rmtree(slot)
    files.sync_directory(slots)


def system_identifier(data: Path) -> int:
    with (data / "global" / "pg_control").open("rb") as control:
        return int(struct.unpack("<Q", control.read(8))[0])


def _fresh_identifier() -> int:
    # initdb's form: seconds in the upper half; ours are made many a second, so the rest is random.
    return (int(time.time()) << 32) | secrets.randbits(32)


def find_crc(content: bytes | bytearray) -> int:
    """Return where the checksum of a `pg_control` is.

    Raises:
        ValueError: it is not whole, or none that we know.
    """
    for offset in range(_FIRST_CRC, _LAST_CRC, 4):
        (stored,) = struct.unpack_from("<I", content, offset)
        if stored and stored == google_crc32c.value(bytes(content[:offset])):
            return offset
    raise ValueError("pg_control holds no checksum where one is expected")


def _overwrite(path: Path, offset: int, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, content, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
