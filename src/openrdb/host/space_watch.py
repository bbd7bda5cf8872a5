"""When to look how full a volume is: a look takes a walk through all its files.

Asking a file system how much of it is taken costs some microseconds. That is done four times a second,
and tells which volumes may have come close to their marks since they were last looked at.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

from openrdb.errors import NodeRemoved
from openrdb.host.volumes import Pool

log = logging.getLogger(__name__)

_TICK = 0.25
_LOOKERS = 8
"""At once: a server may take its time with what a look asks of it."""
_FEW = 4 * 2**20
"""Bytes that are of no account."""
_SHARE, _URGENT_SHARE = 20, 4
"""A volume is looked at for one of so many parts of the time at most: of little, and when it may have
come close to a mark."""
_SOON, _LATE = 5.0, 300.0
"""Seconds to the next look though little was written: at a volume whose users wait for it to become
open, and at any other at the latest."""
_FAST = 100 * 10**6
"""Bytes a second that a disk may write: who deletes may hide that another one writes, so a volume is
looked at before it could be beyond its next mark. Nothing was written while free space stays the same
to the byte, as it does on a host whose servers are idle."""
_AGAIN = 1.0
"""Seconds until something that did not succeed is tried again."""


@dataclass(frozen=True)
class Look:
    """What was seen of a volume."""

    distance: int
    """Bytes that may be written until something has to be done."""
    is_open: bool
    is_settled: bool
    """Whether all that was to be done about it is done."""


@dataclass
class _Watched:
    look: Look | None = None
    at: float = 0.0
    took: float = 0.0
    grown: int = 0
    """Bytes by which the pool has grown since then, and by which it has shrunk."""
    freed: int = 0
    changing: float = 0.0
    """Seconds in which some pool's free space changed, since then."""
    is_busy: bool = False
    is_woken: bool = False

    def is_due(self, now: float) -> bool:
        waited = now - self.at
        if self.is_busy:
            return False
        if self._has_grown():
            return waited >= self.took * _URGENT_SHARE
        if self.is_woken or self._has_shrunk() or self._may_have_grown(waited):
            return waited >= self.took * _SHARE
        return False

    def _has_grown(self) -> bool:
        """Return whether so much was written that it may have come close to a mark."""
        distance = self.look.distance if self.look is not None else 0
        return self.grown >= max(distance // 2, _FEW)

    def _has_shrunk(self) -> bool:
        """Return whether so much was removed that its users may be let write again."""
        return self.look is not None and not self.look.is_open and self.freed >= _FEW

    def _may_have_grown(self, waited: float) -> bool:
        """Return whether it is to be looked at whatever its pool says was written."""
        if self.look is None:
            return waited >= _SOON
        if not self.look.is_settled:
            return waited >= _AGAIN
        if not self.look.is_open:
            return waited >= _SOON
        return self.changing >= max(self.look.distance / _FAST, _AGAIN) or waited >= _LATE


class SpaceWatch:
    """Looks at the volumes of all pools, each when something may have to be done about it."""

    def __init__(
        self,
        pools: Iterable[Pool],
        nodes: Callable[[], Mapping[UUID, str]],
        look: Callable[[UUID], Look | None],
        is_short: Callable[[Pool, int], bool],
        relieve: Callable[[Pool], None],
    ) -> None:
        """Prepare to watch.

        Args:
            pools: those that are there at the moment.
            nodes: returns the nodes, each with its pool's name.
            look: looks at a node's volume and does what has to be done; None if it has none.
            is_short: whether so many bytes free of a pool are too few for all in it.
            relieve: does something about it.
        """
        self._pools, self._nodes = pools, nodes
        self._look, self._is_short, self._relieve = look, is_short, relieve
        self._watched: dict[UUID, _Watched] = {}
        self._free: dict[str, int] = {}
        self._ticked = time.monotonic()
        self._relieving = threading.Lock()
        self._workers = ThreadPoolExecutor(_LOOKERS, thread_name_prefix="space")
        self._reliever = ThreadPoolExecutor(1, thread_name_prefix="relief")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="space", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        for workers in (self._workers, self._reliever):
            workers.shutdown(wait=False, cancel_futures=True)

    def wake(self, node_id: UUID) -> None:
        """Look at a node's volume soon; a no-op for one that is not known yet."""
        if (one := self._watched.get(node_id)) is not None:
            one.is_woken = True

    def _follow(self) -> None:
        while not self._stopping.wait(_TICK):
            try:
                self._tick()
            except Exception:
                log.exception("looking at the free space failed; it is tried again")

    def _tick(self) -> None:
        freed: dict[str, int] = {}
        for pool in self._pools:
            free = pool.free()
            freed[pool.name] = free - self._free.get(pool.name, free)
            self._free[pool.name] = free
            if self._is_short(pool, free) and self._relieving.acquire(blocking=False):
                self._reliever.submit(self._relieve_once, pool)
        nodes, now = self._nodes(), time.monotonic()
        passed, self._ticked = now - self._ticked, now
        for gone in self._watched.keys() - nodes.keys():
            del self._watched[gone]
        for node_id, pool_name in nodes.items():
            if pool_name not in freed:
                continue  # it is not there
            one = self._watched.setdefault(node_id, _Watched())
            one.grown += max(-freed[pool_name], 0)
            one.freed += max(freed[pool_name], 0)
            # A server's logs may be in another one.
            one.changing += passed if any(freed.values()) else 0.0
            if one.is_due(now):
                one.is_busy = True
                self._workers.submit(self._look_once, node_id, one)

    def _look_once(self, node_id: UUID, one: _Watched) -> None:
        began = time.monotonic()
        one.grown = one.freed = 0
        one.changing = 0.0
        one.is_woken = False
        try:
            one.look = self._look(node_id)
        except (FileNotFoundError, NodeRemoved):
            one.look = None  # it is being removed, or was
        except Exception:
            log.exception("the volume of node %s is looked at later", node_id)
        finally:
            one.at = time.monotonic()
            one.took = one.at - began
            one.is_busy = False

    def _relieve_once(self, pool: Pool) -> None:
        try:
            self._relieve(pool)
        except Exception:
            log.exception("pool %s is nearly full, and stays so for now", pool.name)
        finally:
            self._relieving.release()
