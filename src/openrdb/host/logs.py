"""The files that an engine logs to: set aside when they are large, removed when old or too many."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from openrdb.system import files

_TOTAL = 2**30
"""Bytes in all where the instance's policy has no limit: a tenant can log as fast as the disk takes."""
_SHARE = 16
"""A file is set aside when it has this part of all: what is in use is never removed."""
_ASIDE = "-until-"


def prune(directory: Path, days: int | None, size: int | None, reopen: Callable[[], None]) -> None:
    """Remove logs older than some days, then the oldest beyond some bytes in all.

    `reopen` is to have the engine open its files by their names: what it writes to goes to a new
    name before, so that no removed file is written on, where nobody sees it grow.
    """
    limit = size or _TOTAL
    logs = sorted(directory.glob("*.log"), key=lambda log: log.stat().st_mtime, reverse=True)
    going = _going(logs, time.time() - timedelta(days=days).total_seconds() if days else 0, limit)
    large = [log for log in logs if log.stat().st_size > limit // _SHARE and not _is_aside(log)]
    if not going and not large:
        return
    aside = {log: _set_aside(log) for log in {*going, *large} if not _is_aside(log)}
    reopen()
    for log in going:
        files.remove_file(aside.get(log, log))


def _going(newest_first: list[Path], oldest: float, limit: int) -> list[Path]:
    going, total = [], 0
    for number, log in enumerate(newest_first):
        state = log.stat()
        total += state.st_size
        if number > 0 and (state.st_mtime < oldest or total > limit):
            going.append(log)
    return going


def _is_aside(log: Path) -> bool:
    return _ASIDE in log.stem


def _set_aside(log: Path) -> Path:
    return log.rename(log.with_stem(f"{log.stem}{_ASIDE}{time.time_ns()}"))
