"""Where tests keep data directories: in memory, where there is room, else on the disk.

Engines and the state wait for the disk at every commit, and tests kill processes, never the kernel:
what was written is there afterwards in either place. Tests of file systems and of full disks choose
theirs themselves.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

VARIABLE = "TESTS_IN"
"""The directory, if it is not to be chosen: `TESTS_IN=/tmp make test` tries the disk."""
DISK = Path("/tmp")
_MEMORY = Path("/dev/shm")
_ROOM = 6 * 2**30
"""Bytes that must be free: a service with an instance of each engine has 0.4 GB there, others have
several, and there are three workers."""


def choose() -> str:
    """Return the directory for all of a run; short, as Unix sockets are made below it."""
    # A cache that accounts cannot reach is copied into the data directory, and run from there.
    usable = os.access(_MEMORY, os.W_OK | os.X_OK)
    if not usable or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        return str(DISK)
    # Files there are memory, which all that runs needs too.
    room = min(shutil.disk_usage(_MEMORY).free, psutil.virtual_memory().available // 2)
    return str(_MEMORY if room >= _ROOM else DISK)


def new_place(suffix: str = "") -> Path:
    """Return the path of a directory of a test's own, which is still to be made."""
    base = Path(os.environ.get(VARIABLE) or DISK)
    return base / f"ordb-{os.getpid()}-{os.urandom(3).hex()}{suffix}"
