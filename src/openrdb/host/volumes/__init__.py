"""Volumes: a node's data directory, from a pool."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from openrdb.host.volumes.base import Pool, Volume
from openrdb.host.volumes.btrfs import BtrfsPool
from openrdb.host.volumes.directory import DirectoryPool, keep_for_return, trashed_since
from openrdb.spec import DEFAULT_POOL
from openrdb.system import btrfs, copying

__all__ = [
    "BtrfsPool",
    "DirectoryPool",
    "Pool",
    "Volume",
    "how_copies_are_made",
    "how_fills_are_held",
    "keep_for_return",
    "open_pool",
    "trashed_since",
]


def open_pool(
    root: Path, name: str = DEFAULT_POOL, *, give_up: Callable[[UUID], None] | None = None
) -> Pool:
    """Open a directory as a pool, by what its file system can; `give_up`: see `DirectoryPool`."""
    file_system = btrfs.file_system(root)
    if file_system is None:
        return DirectoryPool(root, name, give_up=give_up)
    return BtrfsPool(root, file_system, name, give_up=give_up)


def how_copies_are_made(root: Path) -> str:
    """Return what an operator should know of a directory that is to be a pool."""
    if btrfs.file_system(root) is not None:
        return "subvolumes of btrfs: copies take moments, also of a database at work"
    if copying.can_share(root):
        return "copies share their bytes, and take moments while the database is at rest"
    return "copied byte by byte; xfs and btrfs would share the bytes"


def how_fills_are_held(root: Path) -> str:
    """Return what keeps one volume that fills from the others of a directory that is to be a pool."""
    file_system = btrfs.file_system(root)
    if file_system is not None and btrfs.has_simple_quotas(file_system) and btrfs.may_limit(root):
        return "quotas hold each volume to its size"
    return "no quotas: free space is polled, and the volume that fills the disk is closed"
