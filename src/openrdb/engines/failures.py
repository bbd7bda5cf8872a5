"""Why a server ended: the first complaint in what it wrote at its last start."""

from __future__ import annotations

import contextlib
import os
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Final

_MOST_FILES = 10_000
"""Files looked at; the directory is the account's, which may put any number there."""
KILLED: Final = "it was killed"
"""By somebody else, or by the kernel for want of memory."""
UNKNOWN: Final = "it ended, and says nothing of why"


def latest(directory: Path, pattern: str) -> Path | None:
    """Return the file that was changed last, of those in a directory whose names match."""
    changed: dict[Path, int] = {}
    with os.scandir(directory) as entries:
        for entry in islice(entries, _MOST_FILES):
            if fnmatchcase(entry.name, pattern):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found = entry.stat(follow_symlinks=False)
                    changed[Path(entry.path)] = found.st_mtime_ns
    return max(changed, key=lambda path: changed[path], default=None)


def last_line(text: str) -> str:
    """Return the last line that is not empty; "" if there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
