"""The files that an engine logs to: set aside when they are large, removed when old or too many."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

_TOTAL = 2**30
"""Bytes in all where the instance's policy has no limit: a tenant can log as fast as the disk takes."""
_SHARE = 16
"""A file is set aside when it has this part of all: what is in use is never removed."""
_MOST_FILES = 10_000
_ASIDE = "-until-"


def prune(directory: Path, days: int | None, size: int | None, reopen: Callable[[], None]) -> None:
    """Remove logs older than some days, then the oldest beyond some bytes in all.

    `reopen` is to have the engine open its files by their names: what it writes to goes to a new
    name before, so that no removed file is written on, where nobody sees it grow.
    """
    limit = size or _TOTAL
    logs = sorted(_found(directory), key=lambda log: log.changed, reverse=True)
    going = _going(logs, time.time() - timedelta(days=days).total_seconds() if days else 0, limit)
    large = [log for log in logs if log.size > limit // _SHARE and not _is_aside(log.path)]
    if not going and not large:
        return
    used = {log.path for log in (*going, *large) if not _is_aside(log.path)}
    aside = {path: _set_aside(path) for path in used}
    reopen()
    for log in going:
        with contextlib.suppress(OSError):  # something else has its name meanwhile
            aside.get(log.path, log.path).unlink()


class _Log(NamedTuple):
    path: Path
    size: int
    changed: float


def _found(directory: Path) -> Iterator[_Log]:
    """Return the logs; the directory is the account's, which may put anything there."""
    with os.scandir(directory) as entries:
        for entry in islice(entries, _MOST_FILES):
            if not entry.name.endswith(".log"):
                continue
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield _Log(Path(entry.path), found.st_size, found.st_mtime)


def _going(newest_first: list[_Log], oldest: float, limit: int) -> list[_Log]:
    going, total = [], 0
    for number, log in enumerate(newest_first):
        total += log.size
        if number > 0 and (log.changed < oldest or total > limit):
            going.append(log)
    return going


def _is_aside(log: Path) -> bool:
    return _ASIDE in log.stem


def _set_aside(log: Path) -> Path:
    """Return a log's new name; its own where it is too long for another."""
    try:
        return log.rename(log.with_stem(f"{log.stem}{_ASIDE}{time.time_ns()}"))
    except OSError:
        return log
