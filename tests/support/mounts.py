"""File systems of a test's own; only root can mount them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_SIZE = 3 * 2**30


def btrfs(place: Path) -> Path:
    """Mount a btrfs of its own; return where a directory of any account's may be made."""
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is missing: install btrfs-progs")
    image, mounted = place / "image", place / "m"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    mount("-o", "loop", str(image), str(mounted))
    # A subvolume, as usual: its device is another than the file system's.
    subprocess.run(
        ["btrfs", "subvolume", "create", str(mounted / "s")], check=True, capture_output=True
    )
    return mounted / "s"


def mount(*arguments: str) -> None:
    """Mount something, or skip the test."""
    mounted = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"this kernel mounts no such file system: {mounted.stderr.strip()}")
