"""File systems of a test's own; only root can mount them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from openrdb.system import btrfs as subvolumes

_SIZE = 3 * 2**30
_SMALL = 300 * 2**20
"""The least that mkfs.xfs takes."""


class FileSystems:
    """Small ones, each mounted when it is first asked for."""

    def __init__(self) -> None:
        self._place = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
        self._place.mkdir(mode=0o755)
        self._mounted: dict[str, Path] = {}

    def directory(self, kind: str) -> Path:
        """Return a new directory that any account can pass to, on `ext4` (whatever the machine's
        disk has), `xfs` or `btrfs`."""
        if kind not in self._mounted:
            place = self._place / kind
            place.mkdir(mode=0o755, exist_ok=True)  # one whose tools are missing was skipped
            self._mounted[kind] = place if kind == "ext4" else _MAKERS[kind](place, _SMALL)
        directory = self._mounted[kind] / os.urandom(3).hex()
        directory.mkdir(mode=0o755)
        return directory

    def remove(self, directory: Path) -> None:
        if subvolumes.file_system(directory) is not None:
            subvolumes.make_writable_below(directory, 10)
        shutil.rmtree(directory)

    def close(self) -> None:
        for kind in self._mounted:
            unmount(self._place / kind)
        shutil.rmtree(self._place)


def btrfs(place: Path, size: int = _SIZE) -> Path:
    """Mount a btrfs of its own; return where a directory of any account's may be made."""
    mounted = _mount_image(place, ["mkfs.btrfs", "-q"], "btrfs-progs", size)
    # A subvolume, as usual: its device is another than the file system's.
    subvolumes.create_subvolume(mounted / "s")
    (mounted / "s").chmod(0o755)
    return mounted / "s"


def xfs(place: Path, size: int = _SIZE) -> Path:
    """The same with an xfs whose files can share their bytes."""
    return _mount_image(place, ["mkfs.xfs", "-q", "-m", "reflink=1"], "xfsprogs", size)


def ext4(place: Path, size: int = _SIZE) -> Path:
    """The same with an ext4, which can share nothing."""
    return _mount_image(place, ["mkfs.ext4", "-q"], "e2fsprogs", size)


_MAKERS: dict[str, Callable[[Path, int], Path]] = {"btrfs": btrfs, "xfs": xfs}


def _mount_image(place: Path, make: list[str], package: str, size: int) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs uid 0")
    if shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} is missing: install {package}")
    image, mounted = place / "image", place / "m"
    mounted.mkdir()
    with image.open("wb") as file:
        # All of it: a host that runs out of room gives the file system within errors of its device.
        os.posix_fallocate(file.fileno(), 0, size)
    subprocess.run([*make, str(image)], check=True, capture_output=True)
    mount("-o", "loop,noatime", str(image), str(mounted))
    return mounted


def mount(*arguments: str) -> None:
    """Mount something, or skip the test."""
    mounted = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"this kernel mounts no such file system: {mounted.stderr.strip()}")


def unmount(place: Path) -> None:
    """Unmount what one of these functions mounted in a place."""
    for mounted in ("m", "lower"):
        if os.path.ismount(place / mounted):
            subprocess.run(["umount", "--lazy", str(place / mounted)], check=True)
