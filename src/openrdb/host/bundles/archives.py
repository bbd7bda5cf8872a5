"""Unpacking archives that others made, and nothing of them outside of where it belongs."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Collection
from pathlib import Path

from openrdb.errors import HostError


def extract(tarball: tarfile.TarFile, depth: int, kept: Collection[str], target: Path) -> None:
    """Unpack below a directory, less some leading directories, what of the rest is kept, by its path.

    By hand, since `tarfile`'s own safe filters came only with Python 3.11.4.
    """
    root = target.resolve()
    for member in tarball:
        parts = member.name.split("/")[depth:]
        inside = "/".join(parts) + "/"
        if not inside.startswith(tuple(f"{path}/" for path in kept)) or inside.endswith(".a/"):
            continue
        path = target.joinpath(*parts)
        place = path.parent / member.linkname if member.issym() else path
        if not place.resolve().is_relative_to(root):
            raise HostError(f"the download holds a path outside of it: {member.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.isdir():
            path.mkdir(exist_ok=True)
        elif member.issym():
            path.symlink_to(member.linkname)
        elif content := tarball.extractfile(member) if member.isfile() else None:
            with content, path.open("xb") as file:
                shutil.copyfileobj(content, file)
            path.chmod(member.mode & 0o777)
        else:
            raise HostError(f"the download holds something else than files: {member.name}")
