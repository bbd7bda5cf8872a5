"""How much room the data directory must have."""

from __future__ import annotations

from pathlib import Path

from openrdb.system import files

LEAST_FREE = 512 * 2**20
"""Bytes without which nothing new is made; what exists runs on and can be deleted."""


def has_room(directory: Path) -> bool:
    """Return whether a data directory can take another volume."""
    return files.free_bytes(directory) >= LEAST_FREE
