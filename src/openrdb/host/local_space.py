"""This machine's volumes as they fill: their users are warned, then stopped, and let in again."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from openrdb.errors import HostError
from openrdb.host.local_upgrades import LocalUpgrades
from openrdb.host.records import NodeRecord
from openrdb.host.space_watch import Look, SpaceWatch
from openrdb.host.volumes import Pool
from openrdb.spec import NodeSpec, Writes

log = logging.getLogger(__name__)

_GROWING = 2**20
"""Bytes a second; what grows more slowly does not fill a disk."""
_APART = 0.2
"""Seconds between two measurements that tell how fast a volume grows."""
_PATIENCE = 5.0
"""Seconds that a server has to do what it is asked to, while its users may write on."""


class LocalSpace(LocalUpgrades):
    """The part of `LocalHost` that looks after the space that servers take."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self._looking: dict[UUID, threading.RLock] = defaultdict(threading.RLock)
        self._measured: dict[UUID, list[tuple[float, int]]] = {}
        """The last two times that each volume was measured, not at once, and its bytes then."""
        self._free_when_relieved: dict[str, float] = defaultdict(lambda: math.inf)
        self._watch = SpaceWatch(
            self._pools, self._pools_of_nodes, self._look, self._is_short, self._relieve
        )

    def _pools_of_nodes(self) -> dict[UUID, str]:
        return {one.spec.node_id: one.pool for one in list(self._records.nodes.values())}

    def ensure_volume_size(self, spec: NodeSpec) -> Writes:
        known = self._records.nodes.get(spec.node_id)
        record = self._accept(spec)
        if known is not None and not known.spec.volume_size:
            return record.writes  # an earlier version's: its first look comes by itself
        self._look(spec.node_id, is_resized=True)
        return self._record(spec.node_id).writes

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID], keep: bool) -> None:
        with ExitStack() as looking:
            for node_id in node_ids:  # what a look writes down must not come back
                looking.enter_context(self._looking[node_id])
            super().ensure_removed(instance_id, node_ids, keep)
        for node_id in node_ids:
            self._forget_looks(node_id)

    def _remove_node(self, node_id: UUID) -> None:
        with self._looking[node_id]:
            super()._remove_node(node_id)
        self._forget_looks(node_id)

    def _forget_looks(self, node_id: UUID) -> None:
        self._looking.pop(node_id, None)
        self._measured.pop(node_id, None)

    def _follow_start(self, spec: NodeSpec, pid: int) -> None:
        super()._follow_start(spec, pid)
        self._watch.wake(spec.node_id)

    # -- one volume ----------------------------------------------------------------------------

    def _look(self, node_id: UUID, *, is_resized: bool = False) -> Look | None:
        """Look how full a node's volume is, and do what has to be done about it."""
        with self._looking[node_id]:
            record = self._records.nodes.get(node_id)
            if record is None or (used := self._measure(record)) is None:
                return None
            is_lasting = is_resized or self._accepts(record)
            judged = self._space.writes(record, used, is_lasting=is_lasting)
            filling = judged.writes == "read_only" and record.writes == "open"
            if filling and self._release_space(record):
                used = self._measure(record) or 0
                judged = self._space.writes(record, used, is_lasting=is_lasting)
            self._space.limit(record, used)
            record = self._judged(node_id, judged)
            if record.writes != "open" or not record.are_writes_in_force:
                self._enforce_writes(record)
                record = self._records.nodes.get(node_id, record)
            space = self._space.of(record)
            return Look(
                distance=space.distance(used, record.writes),
                is_open=record.writes == "open",
                is_settled=record.are_writes_in_force,
            )

    def _measure(self, record: NodeRecord) -> int | None:
        used = self._space.used(record)
        if used is not None:
            known, now = self._measured.setdefault(record.spec.node_id, []), time.monotonic()
            if not known or now - known[-1][0] >= _APART:
                self._measured[record.spec.node_id] = [*known[-1:], (now, used)]
        return used

    def _growth(self, record: NodeRecord) -> float:
        """Return how many bytes a second a volume has grown by since it was last measured."""
        known = self._measured.get(record.spec.node_id, [])
        used, now = self._measure(record), time.monotonic()
        earlier = [one for one in known if now - one[0] >= _APART]
        if used is None or not earlier:
            return 0.0
        then, before = earlier[-1]
        return (used - before) / (now - then)

    def _judged(self, node_id: UUID, judged: NodeRecord) -> NodeRecord:
        """Write down what a node's users may write."""
        with self._guards[node_id]:
            record = self._record(node_id)
            before = record.writes
            record = replace(
                record,
                writes=judged.writes,
                are_writes_in_force=judged.are_writes_in_force,
                closed_for_others=judged.closed_for_others,
            )
            self._records.save_node(record)
        if record.writes != before:
            log.warning("node %s: its users' writes are %s now", node_id, record.writes)
        return record

    def _release_space(self, record: NodeRecord) -> bool:
        """Remove what a server does not need; return whether it was asked to."""
        if not self._accepts(record):
            return False
        try:
            self._in_time(record, "release", self._server(record).release_space)
        except Exception as error:
            log.warning("node %s released no space: %s", record.spec.node_id, error)
            return False
        return True

    def _in_time(self, record: NodeRecord, what: str, do: Callable[[], None]) -> None:
        """Do something by a node's server.

        Raises:
            HostError: it is not done within some seconds; it is still under way.
        """
        if not self._underway.ensure(f"{what} {record.spec.node_id}", do, _PATIENCE):
            raise HostError("its server takes too long")

    def _enforce_writes(self, record: NodeRecord) -> None:
        """Bring what a node's users may write into force, if its server runs; it is tried again."""
        node_id, changed = record.spec.node_id, not record.are_writes_in_force
        if record.writes != "open":
            self._backups.end_restores(node_id)
        try:
            if changed:
                self._write_configuration(record)
            if not self._accepts(record):
                return  # its files say it to the next start
            if self._records.role_of(record) != "primary":
                self._server(record).reload()  # for the day that it becomes the primary
                self._note_enforced(node_id)
                return
            enforce = partial(self._server(record).enforce_writes, changed=changed)
            if changed and record.writes == "closed":
                self._close(record, enforce)
            else:
                self._in_time(record, f"enforce {record.writes} {changed}", enforce)
        except Exception as error:
            log.warning("what users of node %s may write is enforced later: %s", node_id, error)
        else:
            if changed:
                self._note_enforced(node_id)
        finally:
            if changed:
                self._changes.note(node_id)

    def _note_enforced(self, node_id: UUID) -> None:
        with self._guards[node_id]:
            if (record := self._records.nodes.get(node_id)) is not None:
                self._records.save_node(replace(record, are_writes_in_force=True))

    def _close(self, record: NodeRecord, enforce: Callable[[], None]) -> None:
        """Shut users out of a server; one that does not obey in time starts again without them."""
        try:
            self._in_time(record, "close", enforce)
        except Exception as error:
            log.warning("node %s does not shut its users out: %s", record.spec.node_id, error)
            self._replace(record.spec)

    # -- the pool ------------------------------------------------------------------------------

    def _is_short(self, pool: Pool, free: int) -> bool:
        """Return whether somebody has to be stopped, and who was stopped before was not enough."""
        least = self._space.least_free(pool)
        if free >= 2 * least:
            self._free_when_relieved.pop(pool.name, None)
        return free < min(least, self._free_when_relieved[pool.name] - least // 8)

    def _relieve(self, pool: Pool) -> None:
        """Stop the node whose volume grows fastest, before the pool's last byte stops all."""
        if pool.ensure_free(self._space.least_free(pool)):
            return
        rates = {
            record.spec.node_id: self._growth(record)
            for record in self._wanted_nodes()
            if record.pool == pool.name and record.writes != "closed"
        }
        fastest = max(rates, key=lambda one: rates[one], default=None)
        if fastest is None or rates[fastest] < _GROWING:
            return
        self._free_when_relieved[pool.name] = free = pool.free()
        log.error(
            "%d bytes of pool %s are free: node %s, which grows fastest, is closed to its users",
            free,
            pool.name,
            fastest,
        )
        with self._looking[fastest]:
            if (found := self._records.nodes.get(fastest)) is not None:
                closed = replace(
                    found, writes="closed", are_writes_in_force=False, closed_for_others=True
                )
                self._enforce_writes(self._judged(fastest, closed))
        self._watch.wake(fastest)  # so that it is let in as soon as there is room
