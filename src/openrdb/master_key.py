"""Secrets that are derived of the master key."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path


class MasterKey:
    def __init__(self, path: Path) -> None:
        self._key = path.read_bytes()

    def secret(self, of: str) -> str:
        """Return the secret of one instance."""
        return hmac.digest(self._key, of.encode(), hashlib.sha256).hex()
