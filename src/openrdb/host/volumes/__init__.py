"""Volumes: a node's data directory, from a pool."""

from openrdb.host.volumes.base import Pool, Volume
from openrdb.host.volumes.directory import DirectoryPool, keep_for_return, trashed_since

__all__ = ["DirectoryPool", "Pool", "Volume", "keep_for_return", "trashed_since"]
