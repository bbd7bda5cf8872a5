"""How much room the data directory must have."""

from __future__ import annotations

import os
from pathlib import Path

from openrdb.system import files

LEAST_FREE = 512 * 2**20
"""Bytes without which nothing new is made; what exists runs on and can be deleted."""
COMFORTABLE_FREE = 2 * 2**30
"""Bytes below which deleted instances are no longer kept: what runs may need them."""


def has_room(directory: Path) -> bool:
    """Return whether a data directory can take another volume."""
    return files.free_bytes(directory) >= LEAST_FREE


def used_bytes(directory: Path) -> tuple[int, int]:
    """Return how many bytes a data directory's file system has, and how many of them are taken."""
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize, (found.f_blocks - found.f_bavail) * found.f_frsize
