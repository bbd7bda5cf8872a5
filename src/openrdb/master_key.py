"""The deployment's secret, of which the engines' superuser secrets are derived."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from openrdb.system import files


class MasterKey:
    def __init__(self, path: Path) -> None:
        if not path.exists():
            partial = path.with_suffix(".partial")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(descriptor)
            partial.rename(path)
            files.sync_directory(path.parent)
        self._key = path.read_bytes()

    def secret(self, of: str) -> str:
        """Return the secret of one instance."""
        return hmac.digest(self._key, of.encode(), hashlib.sha256).hex()
