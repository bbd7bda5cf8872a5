"""How much memory this machine has."""

from __future__ import annotations

import os


def physical_memory() -> int:
    """Return the bytes of memory that the machine has in all."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
