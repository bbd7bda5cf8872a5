"""The binary log's files: their names, and the transactions in them.

Read by their events' headers and GTID events only (libs/mysql/binlog/event, the same from 8.0.2 on);
what transactions do is for the server to read.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID
from zlib import crc32

from openrdb.errors import HostError
from openrdb.system.files import OTHERS

_NAME = re.compile(r"binlog\.([0-9]{6,})")
KEPT = ".kept"
"""The ending of what was received of a file before it is received again from its beginning."""
_MAGIC = b"\xfebin"
_HEADER = struct.Struct("<IBIIIH")
"""Time, type, server, size, position of the next one, flags."""
_QUERY, _XID, _GTID, _TAGGED = 2, 16, 33, 42
_IDENTITY = struct.Struct(">x16s")
_NUMBER = struct.Struct("<q")
_NUMBER_AT, _COMMITTED_AT = 17, 42
"""In a GTID event: after flags and UUID; and after the logical clock's type and its two numbers."""
_MOMENT_BYTES = 7
_BEGIN = struct.pack("<IIBHH", 0, 0, 0, 0, 0) + b"\0BEGIN"
"""Of no thread, time, database, error and variables."""
_SUM_BYTES = 4
_HAS_ORIGINAL = 1 << 55
_LONG = {252: 2, 253: 3, 254: 8}
"""The bytes of a number that does not fit into one, by the first byte."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Transaction:
    begin: int
    end: int
    source: UUID
    number: int
    committed: datetime


def number_of(name: str) -> int | None:
    """Return the number of a file of that name; None if it is no whole name of one."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def received(stream: Path) -> dict[int, Path]:
    """Return what there is of each file, by numbers: the longer one where there are two."""
    found: dict[int, Path] = {}
    for path in stream.iterdir():
        number = number_of(path.name.removesuffix(KEPT))
        if number is None:
            continue
        known = found.get(number)
        # Of two that are as long the one that nothing writes to.
        if known is None or _rank(path) > _rank(known):
            found[number] = path
    return dict(sorted(found.items()))


def _rank(path: Path) -> tuple[int, bool]:
    try:
        return path.lstat().st_size, path.name.endswith(KEPT)
    except FileNotFoundError:
        return -1, False


def transactions(path: Path) -> Iterator[Transaction]:
    """Yield the transactions that a file has as a whole.

    Raises:
        HostError: it is none of the binary log's, or has transactions of another kind.
    """
    descriptor = os.open(path, OTHERS)
    try:
        size = os.fstat(descriptor).st_size
        if size < len(_MAGIC):
            return
        with closing(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)) as content:
            if content[: len(_MAGIC)] != _MAGIC:
                raise HostError(f"{path.name} is damaged: it is no binary log")
            yield from _read(content, size)
    finally:
        os.close(descriptor)


def _read(content: mmap.mmap, size: int) -> Iterator[Transaction]:
    at = len(_MAGIC)
    while at + _HEADER.size <= size:
        _, kind, _, length, _, _ = _HEADER.unpack_from(content, at)
        if length < _HEADER.size or at + length > size:
            return  # it was being written
        if kind == _TAGGED:
            raise HostError("a transaction has a tagged GTID, which cannot be replayed here")
        if kind == _GTID:
            one = _transaction(content, at)
            if one.end > size:
                return
            yield one
        at += length


def _transaction(content: mmap.mmap, at: int) -> Transaction:
    body = at + _HEADER.size
    (source,) = _IDENTITY.unpack_from(content, body)
    (number,) = _NUMBER.unpack_from(content, body + _NUMBER_AT)
    place = body + _COMMITTED_AT
    committed = int.from_bytes(content[place : place + _MOMENT_BYTES], "little")
    place += _MOMENT_BYTES
    if committed & _HAS_ORIGINAL:
        committed ^= _HAS_ORIGINAL
        place += _MOMENT_BYTES
    length, more = content[place], _LONG.get(content[place], 0)
    if more:
        length = int.from_bytes(content[place + 1 : place + 1 + more], "little")
    moment = _EPOCH + timedelta(microseconds=committed)
    return Transaction(at, at + length, UUID(bytes=source), number, moment)


def until(paths: Iterable[Path], moment: datetime | None) -> tuple[list[int], str]:
    """Find what was committed up to a moment (None: all that is whole).

    Returns:
        Up to which byte each file has it, 0 for none; and its set of GTIDs.

    Raises:
        HostError: something is missing, or nothing later is there: then more may be.
    """
    ends, numbers, is_over = list[int](), dict[UUID, tuple[int, int]](), False
    for path in paths:
        end = 0
        for one in () if is_over else transactions(path):
            if moment is not None and one.committed > moment:
                is_over = True
                break
            first, last = numbers.get(one.source, (one.number, one.number - 1))
            if one.number != last + 1:
                raise HostError("a part of what was written since the base backup is missing")
            numbers[one.source] = (first, one.number)
            end = one.end
        ends.append(end)
    if moment is not None and not is_over:
        raise HostError("what was written until then is not there as a whole")
    sets = [f"{source}:{first}-{last}" for source, (first, last) in numbers.items()]
    return ends, ",".join(sets)


def seal(path: Path) -> bytes:
    """Return a file of one whole transaction that does nothing, with the GTID of the first one of
    another file: a server that has applied that passes over it."""
    begin = next(transactions(path)).begin
    with path.open("rb") as file:
        head = file.read(begin + _HEADER.size)
        _, _, server, length, _, _ = _HEADER.unpack_from(head, begin)
        head += file.read(length - _HEADER.size)
    _, _, _, first, _, _ = _HEADER.unpack_from(head, len(_MAGIC))
    # The first event says before its own checksum how events are summed.
    is_summed = bool(head[len(_MAGIC) + first - _SUM_BYTES - 1])
    for kind, body in ((_QUERY, _BEGIN), (_XID, bytes(8))):
        size = _HEADER.size + len(body) + (_SUM_BYTES if is_summed else 0)
        event = _HEADER.pack(0, kind, server, size, 0, 0) + body
        head += event + (crc32(event).to_bytes(_SUM_BYTES, "little") if is_summed else b"")
    return head
