"""The files that an engine logs to: set aside when they are large or of another day, removed when they
are old or too many, and read by days."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from openrdb.spec import LogFile

_TOTAL = 2**30
"""Bytes in all where the instance's policy has no limit: a tenant can log as fast as the disk takes."""
_SHARE = 16
"""A file is set aside when it has this part of all: what is in use is never removed."""
_MOST_FILES = 10_000
_ASIDE = "-until-"
_DAY = re.compile(r"-\d{4}-\d\d-\d\d$")
_LINE = 2**16
"""Bytes of a line that are read at once."""
_BEGINNING = 2**14
_CHUNK = 2**20

DayOf = Callable[[bytes], bytes | None]
"""As `engines.base.Rules.log_day`."""


def prune(
    directory: Path, days: int | None, size: int | None, day_of: DayOf, reopen: Callable[[], None]
) -> None:
    """Remove logs older than some days, then the oldest beyond some bytes in all; whatever the limits,
    the newest stays.

    A log whose name has no day is set aside at the end of its day.

    Args:
        days: 0 or None: however old they are.
        size: in bytes; 0 or None: 1 GiB.
        reopen: has the engine open its files by their names. What it writes to goes to a new name
            before, so that no removed file is written on, where nobody sees it grow.
    """
    limit = size or _TOTAL
    logs = sorted(_found(directory), key=lambda log: log.changed, reverse=True)
    going = _going(logs, time.time() - timedelta(days=days).total_seconds() if days else 0, limit)
    used = [log for log in logs if not _is_aside(log.path)]
    full = [log for log in used if log.size > limit // _SHARE or _is_of_another_day(log, day_of)]
    _remove(going, full, reopen)


def remove(directory: Path, name: str | None, reopen: Callable[[], None]) -> bool:
    """Remove a log, or all of them; return whether there was one."""
    logs = [log for log in _found(directory) if name in (None, log.path.name)]
    _remove(logs, [], reopen)
    return bool(logs)


def listed(directory: Path) -> list[LogFile]:
    """Return the logs that have something in them, in order of their beginnings. One begins when the
    former of its kind ends; the first of each began with the node."""
    found, ended = [], dict[str, float]()
    for log in sorted(_found(directory), key=lambda log: (log.changed, not _is_aside(log.path))):
        begun = datetime.fromtimestamp(ended.get(_kind(log.path), 0.0), UTC)
        ended[_kind(log.path)] = log.changed
        found.append(LogFile(log.path.name, log.size, begun))
    return sorted((one for one in found if one.size), key=lambda one: (one.begun, one.name))


def text(directory: Path, first: date | None, last: date | None, day_of: DayOf) -> Iterator[bytes]:
    """Yield what was logged on some days, one kind of log after the other, each in order.

    What is logged meanwhile is not in it.
    """
    since = first.isoformat().encode() if first is not None else b""
    until = last.isoformat().encode() if last is not None else b"\xff"
    for log in sorted(_found(directory), key=lambda log: (_kind(log.path), log.changed)):
        if first is not None and datetime.fromtimestamp(log.changed, UTC).date() < first:
            continue
        with contextlib.suppress(OSError), _opened(log.path) as file:  # it may be removed meanwhile
            yield from _chunks(_of_days(_lines(file, log.size), since, until, day_of))


def total(directory: Path) -> int:
    """Return how many bytes all logs have."""
    return sum(log.size for log in _found(directory))


class _Log(NamedTuple):
    path: Path
    size: int
    changed: float


def _found(directory: Path) -> Iterator[_Log]:
    """Return the logs; the directory is the account's, which may put anything there."""
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return
    with entries:
        for entry in islice(entries, _MOST_FILES):
            if not entry.name.endswith(".log"):
                continue
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield _Log(Path(entry.path), found.st_size, found.st_mtime)


# -- removing -------------------------------------------------------------------------------------


def _going(newest_first: list[_Log], oldest: float, limit: int) -> list[_Log]:
    going, total = [], 0
    for number, log in enumerate(newest_first):
        total += log.size
        if number > 0 and (log.changed < oldest or total > limit):
            going.append(log)
    return going


def _remove(going: list[_Log], full: list[_Log], reopen: Callable[[], None]) -> None:
    """Remove logs, and set others aside."""
    if not going and not full:
        return
    used = {log.path for log in (*going, *full) if not _is_aside(log.path)}
    aside = {path: _set_aside(path) for path in used}
    reopen()
    for log in going:
        with contextlib.suppress(OSError):  # something else has its name meanwhile
            aside.get(log.path, log.path).unlink()


def _is_aside(log: Path) -> bool:
    return _ASIDE in log.stem


def _is_of_another_day(log: _Log, day_of: DayOf) -> bool:
    if not log.size or _DAY.search(log.path.stem):
        return False
    try:
        with _opened(log.path) as file:
            days = filter(None, map(day_of, _lines(file, _BEGINNING)))
            today = datetime.now(UTC).date().isoformat().encode()
            return next(days, today) < today
    except OSError:
        return False


def _set_aside(log: Path) -> Path:
    """Return a log's new name; its own where it is too long for another."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%f")
    try:
        return log.rename(log.with_name(f"{log.stem}{_ASIDE}{moment}{log.suffix}"))
    except OSError:
        return log


# -- reading --------------------------------------------------------------------------------------


def _kind(log: Path) -> str:
    return _DAY.sub("", log.stem.partition(_ASIDE)[0])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a log, and nothing else that has its name since it was found; OSError otherwise."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(path)
        yield file


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the first bytes of a file by lines, long ones in parts."""
    while size > 0 and (line := file.readline(min(_LINE, size))):
        size -= len(line)
        yield line


def _of_days(lines: Iterator[bytes], since: bytes, until: bytes, day_of: DayOf) -> Iterator[bytes]:
    is_wanted, is_whole = False, True
    for line in lines:
        if is_whole and (day := day_of(line)) is not None:
            is_wanted = bool(day) and since <= day <= until
        is_whole = line.endswith(b"\n")
        if is_wanted:
            yield line


def _chunks(lines: Iterator[bytes]) -> Iterator[bytes]:
    held, size = [], 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
