"""Why a MySQL server ended, by its own words."""

from __future__ import annotations

import re
from pathlib import Path

from openrdb.engines import failures
from openrdb.engines.mysql import config
from openrdb.system import files

_STARTED = "MySQL Server - start."
_COMPLAINT = re.compile(r"\[ERROR\] \[MY-\d+\] \[\w+\] (.+)")
_UNTELLING = re.compile(r"Aborting|Data Dictionary initialization failed")


def reason(log: Path, output: Path) -> str:
    """Return the first complaint of the last start: in its log, or written before it opened that."""
    texts = [files.read_tail(path) for path in (output, log / config.ERROR_LOG)]
    text = "".join(texts)
    return _complaint(text.rpartition(_STARTED)[2]) or failures.first_line(text)


def first_complaint(text: str) -> str:
    """Return the first complaint in what a program wrote."""
    return _complaint(text) or failures.first_line(text)


def _complaint(text: str) -> str | None:
    found = [said for said in _COMPLAINT.findall(text) if not _UNTELLING.search(said)]
    return str(found[0]) if found else None
