"""Why a MySQL server ended, by its own words."""

from __future__ import annotations

import re
from pathlib import Path

from openrdb.engines.failures import UNKNOWN, last_line
from openrdb.engines.mysql import config
from openrdb.system import files

_STARTED = "MySQL Server - start."
_COMPLAINT = re.compile(r"\[ERROR\] \[MY-\d+\] \[\w+\] (.+)")
_RAW = re.compile(r"^\S*mysqld: (?:\[ERROR\] )?(.+)", re.MULTILINE)
"""What is written to standard error before there is a log, or next to it."""
_UNTELLING = re.compile(
    r"Aborting|Data Dictionary initialization failed|Operating system error number"
    r"|The error means|If you are installing InnoDB|Space ID in fsp header"
    r"|Fatal error in defaults handling"
)
"""These come with a complaint that says what it is about."""


_FULL = ("No space left on device", "Disk quota exceeded", "is full", "Disk full")


def is_full(text: str) -> bool:
    """Return whether a server or a program says that there is no room."""
    return any(words in text for words in _FULL)


def reason(log: Path, output: Path) -> str:
    """Return the first complaint of the last start: in its log, or written before it opened that."""
    # The one that was written last first: it has the last start.
    places = sorted((output, log / config.ERROR_LOG), key=_changed, reverse=True)
    newer, older = (files.read_tail(path) for path in places)
    found = _told(newer)
    if places[0] == output:  # it opened no log, which is of an earlier start
        found = found or last_line(newer)
    return found or _told(older) or last_line(newer) or UNKNOWN


def first_complaint(text: str) -> str:
    """Return the first complaint in what a program wrote."""
    raw = _RAW.search(text)
    return _complaint(text) or (raw[1] if raw else last_line(text)) or UNKNOWN


def _told(text: str) -> str | None:
    return _complaint(text) or _last_raw(text)


def _complaint(text: str) -> str | None:
    """Return the first complaint since the last start that is told of in a text."""
    found: list[str] = _COMPLAINT.findall(text.rpartition(_STARTED)[2])
    return next((said for said in found if not _UNTELLING.search(said)), None)


def _last_raw(text: str) -> str | None:
    found: list[str] = _RAW.findall(text.rpartition(_STARTED)[2])
    return next((said for said in reversed(found) if not _UNTELLING.search(said)), None)


def _changed(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return 0
