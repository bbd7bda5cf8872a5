"""Why a server ended: the first complaint in what it wrote at its last start."""

from __future__ import annotations

from pathlib import Path
from typing import Final

UNKNOWN: Final = "it ended, and says nothing of why"


def latest(directory: Path, pattern: str) -> Path | None:
    """Return the file that was changed last, of those in a directory whose names match."""
    changed: dict[Path, int] = {}
    for path in directory.glob(pattern):
        try:
            changed[path] = path.lstat().st_mtime_ns
        except FileNotFoundError:
            continue  # removed meanwhile
    return max(changed, key=lambda path: changed[path], default=None)


def last_line(text: str) -> str:
    """Return the last line that is not empty; "" if there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
