"""Volumes of a few small files, and processes that die while they make them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from openrdb.host.volumes import Pool, Volume, directory, open_pool, pools
from openrdb.host.volumes import btrfs as btrfs_pool
from openrdb.system import accounts, btrfs, copying, files, mirror

CONTENT = {"one": b"1" * 5000, "sub/two": b"2", "sub/deep/three": b""}
TEMPLATE, SPARE = (Volume("default", f"templates/x/{name}") for name in ("template", "spare-1"))
DATA = Volume("default", "instances/i/nodes/n/data")
UID = 54321 if os.geteuid() == 0 else None


def data_directory(path: Path) -> Path:
    (path / DATA.key).parent.mkdir(parents=True)
    (path / TEMPLATE.key).parent.mkdir(parents=True)
    return path


def make(data: Path) -> None:
    for name, content in CONTENT.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)


def plant(path: Path) -> None:
    """Make a volume as its pool does, at once."""
    if btrfs.file_system(path.parent) is not None:
        btrfs.create_subvolume(path)
    make(path)


def renew(data: Path) -> None:
    (data / "one").write_bytes(b"renewed")


def content(path: Path) -> dict[str, bytes]:
    found = [one for one in path.rglob("*") if one.is_file()]
    return {str(one.relative_to(path)): one.read_bytes() for one in found}


RENEWED = CONTENT | {"one": b"renewed"}


def owners(path: Path) -> set[int]:
    return {one.lstat().st_uid for one in (path, *path.rglob("*"))}


def is_tidy(root: Path) -> bool:
    """Whether there are nothing but volumes."""
    return not [*(root / "making").iterdir(), *(root / "removed").iterdir()]


# -- kill -9 ---------------------------------------------------------------------------------------

CODE = {
    module.__file__
    for module in (directory, btrfs_pool, pools, files, copying, mirror, btrfs, accounts, shutil)
}


def killed_at_each_line(place: Path, do: Callable[[Path], None]) -> Iterator[Path]:
    """Let a process die at one line after the other of what makes and removes volumes.

    Yields:
        The data directory that it leaves, each time another.
    """
    for line in count(1):
        root = data_directory(place / str(line))
        for volume in (TEMPLATE, SPARE):
            plant(root / volume.key)
        child = os.fork()
        if child == 0:
            die_at(line)
            do(root)
            os._exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (7, -signal.SIGKILL)
        yield root
        if code == 7:
            assert line > 5, "nothing was looked at"
            return


def die_at(line: int) -> None:
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in CODE:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def after_a_restart(root: Path) -> Pool:
    pool = open_pool(root)
    pool.remove_deleted()
    assert is_tidy(root)
    assert content(pool.path(TEMPLATE)) == CONTENT
    return pool


def found(root: Path, volume: Volume) -> dict[str, bytes] | None:
    path = root / volume.key
    return content(path) if path.exists() else None
