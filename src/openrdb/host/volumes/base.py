"""The `Pool` interface: where volumes are, and the only one that copies or removes them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from openrdb.system.accounts import Uid


class Pool(Protocol):
    """Makes and removes volumes; a driver knows one way of copying and of limiting them."""

    def clone(self, source: Path, target: Path, uid: Uid) -> None:
        """Make `target` a copy of a directory at rest, owned by an account and durable."""

    def delete(self, volume: Path) -> None:
        """Remove a volume; a no-op if there is none."""

    def free(self) -> int:
        """Return the bytes that the pool can still take."""
