"""Volumes: a node's data directory, from a pool."""

from pathlib import Path

from openrdb.host.volumes.base import Pool, Volume
from openrdb.host.volumes.btrfs import BtrfsPool
from openrdb.host.volumes.directory import DirectoryPool, keep_for_return, trashed_since
from openrdb.system import btrfs

__all__ = [
    "BtrfsPool",
    "DirectoryPool",
    "Pool",
    "Volume",
    "keep_for_return",
    "open_pool",
    "trashed_since",
]


def open_pool(root: Path, name: str = "default") -> Pool:
    """Open a directory as a pool, by what its file system can."""
    file_system = btrfs.file_system(root)
    if file_system is None:
        return DirectoryPool(root, name)
    return BtrfsPool(root, file_system, name)
