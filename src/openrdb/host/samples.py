"""What was measured of a node, in a file of a fixed size: the older it is, the coarser it is kept.

The file has a ring of records for each resolution. Each sample is added to the record of its time in
every ring, so a record has the sums of all samples of its time: an average of averages is none of
them. A record that time has come round to is begun again.

Nothing is forced to the disk: what a power cut tears is told by its checksum, and counts as not
measured.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from openrdb.spec import METRICS

log = logging.getLogger(__name__)

_FORMAT = 1
_HEADER = 4096
_SLOTS = 16
"""Metrics that a record has room for: later versions may measure more of them."""
_BODY = struct.Struct(f"<Q{_SLOTS}d{_SLOTS}H")
"""The moment of the last sample, then of each metric the sum of its samples and their number."""
_CHECKSUM = struct.Struct("<I")
_RECORD = _CHECKSUM.size + _BODY.size
_MOST = 2**16 - 1
"""Samples in a record."""
_DAY = 86_400


class Resolution(NamedTuple):
    """A ring: so many records of `step` seconds each."""

    step: int
    length: int

    @property
    def reach(self) -> int:
        """Return how many seconds back everything is there."""
        return self.step * (self.length - 1)


RESOLUTIONS: Final = (
    Resolution(60, _DAY // 60 + 1),
    Resolution(600, 7 * _DAY // 600 + 1),
    Resolution(3600, 30 * _DAY // 3600 + 1),
)
"""A minute for a day, ten minutes for a week, an hour for 30 days."""
SIZE: Final = _HEADER + _RECORD * sum(one.length for one in RESOLUTIONS)

Point = tuple[int, float]
"""Seconds since 1970, and the average of what was measured up to then."""


@dataclass
class _Record:
    at: int
    sums: list[float]
    counts: list[int]

    @classmethod
    def empty(cls) -> _Record:
        return cls(0, [0.0] * _SLOTS, [0] * _SLOTS)

    @classmethod
    def of(cls, data: bytes) -> _Record:
        """Return what was written; an empty record for what was not, or is torn."""
        body = data[_CHECKSUM.size :]
        if data[: _CHECKSUM.size] != _CHECKSUM.pack(zlib.crc32(body)):
            return cls.empty()
        at, *numbers = _BODY.unpack(body)
        return cls(at, numbers[:_SLOTS], numbers[_SLOTS:])

    def data(self) -> bytes:
        body = _BODY.pack(self.at, *self.sums, *self.counts)
        return _CHECKSUM.pack(zlib.crc32(body)) + body


class Samples:
    """One node's file. One of these objects writes it, by any number of threads; others may read it
    meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def add(self, moment: float, values: Mapping[str, float]) -> None:
        """Add what was measured; the file is made at the first time.

        Args:
            moment: seconds since 1970.
            values: by the names of METRICS; what was not measured is left out.
        """
        at = int(moment)
        with self._lock, self._opened(at) as (file, header):
            slots = {header.slots[name]: value for name, value in values.items()}
            for number, resolution in enumerate(RESOLUTIONS):
                place = _place(number, at)
                record = _Record.of(os.pread(file, _RECORD, place))
                if record.at // resolution.step != at // resolution.step:
                    record = _Record.empty()
                record.at = max(record.at, at)
                for slot, value in slots.items():
                    if math.isfinite(value) and record.counts[slot] < _MOST:
                        record.sums[slot] += value
                        record.counts[slot] += 1
                os.pwrite(file, record.data(), place)

    def read(
        self, names: Sequence[str], start: float, end: float, now: float
    ) -> dict[str, list[Point]]:
        """Return what was measured between two moments, in the finest resolution that still has all
        of it; nothing for what is not there."""
        found: dict[str, list[Point]] = {name: [] for name in names}
        with self._lock, contextlib.suppress(FileNotFoundError):
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                header = _Header.of(os.pread(file, _HEADER, 0))
                if header is None:
                    return found
                for record in _between(file, max(start, header.begun), end, now):
                    for name in names:
                        if (slot := header.slots.get(name)) is not None and record.counts[slot]:
                            average = record.sums[slot] / record.counts[slot]
                            found[name].append((record.at, average))
            finally:
                os.close(file)
        return found

    @contextlib.contextmanager
    def _opened(self, now: int) -> Iterator[tuple[int, _Header]]:
        """Yield the file, to be written, with its header; one that cannot be read is put aside."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            header = _Header.of(os.pread(file, _HEADER, 0))
            if header is None:
                if os.fstat(file).st_size:
                    log.warning("%s cannot be read: it is put aside and begun again", self._path)
                    os.close(file)
                    self._path.rename(self._path.with_suffix(".unreadable"))
                    file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                header = _Header(now, {})
            if header.name_all():
                os.pwrite(file, header.data(), 0)
            yield file, header
        finally:
            os.close(file)


@dataclass
class _Header:
    begun: int
    slots: dict[str, int]
    """Where each metric is in a record."""

    @classmethod
    def of(cls, data: bytes) -> _Header | None:
        """Return what a file begins with; None if it is none of ours."""
        try:
            found = json.loads(data.rstrip(b"\0"))
            names = [str(name) for name in found["names"]]
            if found["format"] != _FORMAT or len(names) > _SLOTS:
                return None
            return cls(int(found["begun"]), {name: slot for slot, name in enumerate(names)})
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def data(self) -> bytes:
        text = json.dumps({"format": _FORMAT, "begun": self.begun, "names": list(self.slots)})
        return text.encode().ljust(_HEADER, b"\0")

    def name_all(self) -> bool:
        """Give the metrics a place that have none yet; return whether there were any."""
        new = [name for name in METRICS if name not in self.slots]
        for name in new:
            self.slots[name] = len(self.slots)
        return bool(new)


def _place(number: int, at: int) -> int:
    """Return where in the file the record of a moment is."""
    before = sum(one.length for one in RESOLUTIONS[:number])
    step, length = RESOLUTIONS[number]
    return _HEADER + _RECORD * (before + at // step % length)


def _between(file: int, start: float, end: float, now: float) -> Iterator[_Record]:
    """Yield the records of a time, the earliest first."""
    last = len(RESOLUTIONS) - 1
    number = next((n for n, one in enumerate(RESOLUTIONS) if start >= now - one.reach), last)
    step, length = RESOLUTIONS[number]
    first = max(int(start), int(now) - RESOLUTIONS[number].reach) // step
    final = min(int(end), int(now)) // step
    ring = os.pread(file, _RECORD * length, _place(number, 0))
    for bucket in range(first, final + 1):
        offset = bucket % length * _RECORD
        record = _Record.of(ring[offset : offset + _RECORD].ljust(_RECORD, b"\0"))
        if record.at // step == bucket and int(start) <= record.at <= end:
            yield record
