"""How much room the data directory must have."""

from __future__ import annotations

from pathlib import Path

from openrdb.errors import QuotasExceeded
from openrdb.system import files

LEAST_FREE = files.LEAST_FREE
"""Bytes without which nothing new is made; what exists runs on and can be deleted."""
COMFORTABLE_FREE = 2 * 2**30
"""Bytes below which deleted instances are no longer kept: what runs may need them."""


def has_room(directory: Path) -> bool:
    """Return whether a data directory can take another volume."""
    return files.free_bytes(directory) >= LEAST_FREE


def capacity(directory: Path) -> int:
    """Return how many bytes a data directory's file system has."""
    return files.used_bytes(directory)[0]


def no_room(directory: Path) -> QuotasExceeded:
    """Return the refusal of what a data directory has no room for."""
    return QuotasExceeded("volume_bytes", *files.used_bytes(directory))
