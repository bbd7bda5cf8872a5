"""Which code this is: agents and operations of another build are told apart by it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def build() -> str:
    """Return a digest of the package's own files."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
