"""How full the volumes of nodes are, and what users may write therefore.

Users are warned before they are stopped. With less than 2 % of a volume free (at most 2 GB) their
transactions are read-only by default, which they may override to delete. Who fills on meets a wall half
of the reserve above the volume's size: users are shut out until it grows or databases are deleted by
the API. Where the pool has quotas the volume's limit is a whole reserve above its size: an engine that
meets it breaks off, and may not even start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from openrdb.host.records import NodeRecord
from openrdb.host.volumes import Pool
from openrdb.host.volumes.pools import Pools
from openrdb.spec import Writes
from openrdb.system import files
from openrdb.system.layout import Layout

RESERVE = 2**30
_LEAST_PERCENT, _LEAST_AT_MOST = 2, 2 * 10**9
"""Of a volume that must be free."""
_STRICTER: Final[tuple[Writes, ...]] = ("open", "read_only", "closed")


@dataclass(frozen=True)
class VolumeSpace:
    """The marks of one volume, all in bytes that are used of it."""

    size: int
    reserve: int

    @property
    def least_free(self) -> int:
        return min(self.size * _LEAST_PERCENT // 100, _LEAST_AT_MOST)

    @property
    def full(self) -> int:
        """Beyond this, transactions are read-only by default."""
        return self.size - self.least_free

    @property
    def wall(self) -> int:
        """From here on users are shut out."""
        return self.size + self.reserve // 2

    @property
    def limit(self) -> int:
        """More than this the pool does not take, if it has quotas."""
        return self.size + self.reserve

    def writes(self, used: int, before: Writes) -> Writes:
        """Return what users may write; what was taken from them comes back a little below where it
        was taken."""
        if used >= self.wall - (self.reserve // 8 if before == "closed" else 0):
            return "closed"
        if used > self.full - (0 if before == "open" else self.least_free // 2):
            return "read_only"
        return "open"

    def distance(self, used: int, writes: Writes) -> int:
        """Return how many bytes may be written until something has to be done."""
        marks = {"open": self.full, "read_only": self.wall, "closed": self.limit}
        return max(marks[writes] - used, 0)


class VolumeSpaces:
    """The volumes of a host's nodes, measured and limited."""

    def __init__(self, layout: Layout, pools: Pools, reserve: int) -> None:
        self._layout = layout
        self._pools = pools
        self._reserve = reserve

    def least_free(self, pool: Pool) -> int:
        """Return the bytes of a pool below which the fastest one is stopped, as others would stop
        otherwise; a small pool could not spare the whole reserve."""
        return min(self._reserve, pool.size() // 20)

    def of(self, record: NodeRecord) -> VolumeSpace:
        return VolumeSpace(record.spec.volume_size, self._reserve)

    def used(self, record: NodeRecord) -> int | None:
        """Return how much of a node's volume is used, its logs counted in; None if it has none, or its
        size is not known."""
        volume = self._pools.volume_of(record)
        if not record.spec.volume_size or not self._pools.exists(volume):
            return None
        paths = self._layout.node(record.spec.instance_id, record.spec.node_id)
        logs = files.tree_size(paths.log) if paths.log.exists() else 0
        return self._pools.usage(volume) + logs

    def writes(self, record: NodeRecord, used: int, *, is_lasting: bool) -> NodeRecord:
        """Return a node's record with what its users may write.

        Args:
            is_lasting: whether what is free stays free; a server that does not run, or recovers, has no
                temporary files, and will have them again.
        """
        writes = self.of(record).writes(used, record.writes)
        if not is_lasting and _STRICTER.index(writes) < _STRICTER.index(record.writes):
            return record
        pool = self._pools.named(record.pool)
        for_others = record.closed_for_others and pool.free() < 2 * self.least_free(pool)
        if for_others:
            writes = "closed"
        if (writes, for_others) == (record.writes, record.closed_for_others):
            return record
        in_force = record.are_writes_in_force and writes == record.writes
        return replace(
            record, writes=writes, are_writes_in_force=in_force, closed_for_others=for_others
        )

    def limit(self, record: NodeRecord, used: int) -> None:
        """Let a node's volume take what is left of it, and the reserve; a no-op without quotas.

        The limit follows what counts towards it, which is not what users see of the volume: see
        `Pool.charged`. A server that has met it gets as much as its recovery needs.
        """
        pool, volume = self._pools.named(record.pool), self._pools.volume_of(record)
        if (charged := pool.charged(volume)) is not None:
            left = max(self.of(record).limit - used, self._reserve // 4)
            pool.limit(volume, charged + left)

    def prepare_start(self, record: NodeRecord) -> NodeRecord:
        """Limit a node's volume, and return its record with what users may write, before its server
        starts: it may have ended because there was no space."""
        if not self._pools.named(record.pool).quota and record.writes == "open":
            return record  # measuring takes time, and the server may be a new one
        if (used := self.used(record)) is None:
            return record
        self.limit(record, used)
        return self.writes(record, used, is_lasting=False)


def reason(record: NodeRecord) -> str:
    """Return why users may not write, and what to do about it; empty if they may."""
    if record.closed_for_others:
        return (
            "the disk of its host is nearly full, and it was what filled it: no user gets in until "
            "the operator makes room"
        )
    if record.writes == "closed":
        return "its volume is full, no user gets in: enlarge it, or delete databases by the API"
    if record.writes == "read_only":
        return "its volume is nearly full, transactions are read-only: enlarge it, or delete data"
    return ""
