"""What is in the files of a directory in which servers work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def contents(top: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each file with what is in it, but for those that are removed meanwhile."""
    for path in top.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()
