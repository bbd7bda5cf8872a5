"""Measuring nodes, again and again, at next to no cost.

What processes take is read from /proc, for all nodes at once, each round. What only a server knows
takes a session, which costs more than all the rest: it is asked each round while its processes work
or their number changes, and every few rounds otherwise. Servers are asked by threads of their own and
for a short time, so that one that hangs delays nobody's samples.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

from openrdb.engines.base import Activity
from openrdb.errors import HostError
from openrdb.host.samples import Samples
from openrdb.host.usage import Usage, usages
from openrdb.spec import NodeSample

log = logging.getLogger(__name__)

ROUND = 60.0
_SOON = 5.0
"""Seconds between two rounds at least; and between those that a started node has at once, as it takes
two to tell what was used in between."""
_IDLE_ROUNDS = 5
"""After so many rounds a server is asked though it seems to do nothing; sooner by chance, so that not
all are asked in the same round."""
_WORK = 1 / 60
"""Of a processor: who uses more is asked in each round, which is less than a hundredth of what it
uses."""
_ASKING = 8
"""Servers that are asked at once."""
_PATIENCE = 3.0
"""Seconds that a server has to answer."""


@dataclass(frozen=True)
class Subject:
    """A node that runs, and what is known of it without measuring."""

    node_id: UUID
    pid: int
    """Of its main process."""
    vcpus: int
    memory: int
    """Bytes that its node type grants."""
    size: int
    """Bytes of its volume; 0: not known."""
    used: int | None
    """Bytes of it that are used; None: not known yet."""
    lag: float | None
    """Seconds that it is behind; None: it follows nobody, or that is not known."""
    path: Path
    """Where its samples are kept."""
    ask: Callable[[float], Activity]
    """Asks its server, within some seconds."""


@dataclass
class _Seen:
    """What was seen of a node at the last rounds."""

    pid: int
    usage: Usage
    at: float
    """As all moments here: of the monotonic clock."""
    samples: Samples
    asked: tuple[float, Usage] | None = None
    """When its server was last asked, and what the node had used by then."""
    patience: float = 0.0
    """Seconds from then on until it is asked whatever it does."""
    counted: tuple[float, int] | None = None
    """When it last answered, and how many transactions there had been."""
    is_asked: bool = False
    """Whether it is being asked."""
    measured: dict[str, float] = field(default_factory=dict)
    """At the last round."""
    answered: dict[str, float] = field(default_factory=dict)
    """By its server, when it was last asked; empty if it did not answer."""
    moment: float = 0.0
    """Of the last round, in seconds since 1970."""
    is_lost: bool = False
    """Whether the last samples could not be kept."""


class Sampler:
    """Measures the nodes of a host in a thread of its own."""

    def __init__(self, interval: float, subjects: Callable[[], Iterable[Subject]]) -> None:
        """Prepare to measure.

        Args:
            interval: seconds between two rounds.
            subjects: returns the nodes that run.
        """
        self._interval = interval
        self._subjects = subjects
        self._seen: dict[UUID, _Seen] = {}
        self._lock = threading.Lock()
        """Guards what is in `_seen`, and its changes."""
        self._asking = ThreadPoolExecutor(_ASKING, thread_name_prefix="asking")
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._asking.shutdown(wait=False, cancel_futures=True)

    def wake(self) -> None:
        """Measure soon, as a node has been started."""
        self._woken.set()

    def latest(self) -> list[NodeSample]:
        """Return what was last measured of each node."""
        with self._lock:
            return [
                NodeSample(node_id, one.moment, one.measured | one.answered)
                for node_id, one in self._seen.items()
            ]

    def _follow(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            if self._woken.wait(pause):
                self._stopping.wait(min(_SOON, self._interval))
                pause = min(_SOON, self._interval)
            else:
                pause = self._interval
            self._woken.clear()
            if self._stopping.is_set():
                return
            try:
                self._round()
            except Exception:
                log.exception("measuring failed; it is tried again")

    def _round(self) -> None:
        subjects = {one.node_id: one for one in self._subjects()}
        found = usages(one.pid for one in subjects.values())
        with self._lock:
            for gone in self._seen.keys() - subjects.keys():
                del self._seen[gone]
        for node_id, subject in subjects.items():
            if (usage := found.get(subject.pid)) is not None:
                self._measure(node_id, subject, usage)

    def _measure(self, node_id: UUID, subject: Subject, usage: Usage) -> None:
        now = time.monotonic()
        values = {"mem_usage_bytes": float(usage.memory)}
        values["mem_usage_percent"] = 100 * usage.memory / subject.memory
        if subject.used is not None and subject.size:
            values["disk_usage_bytes"] = float(subject.used)
            values["disk_usage_percent"] = 100 * subject.used / subject.size
        if subject.lag is not None:
            values["replication_lag_seconds"] = subject.lag
        with self._lock:
            seen = self._seen.get(node_id)
            if seen is None or seen.pid != subject.pid:
                samples = seen.samples if seen is not None else Samples(subject.path)
                seen = self._seen[node_id] = _Seen(subject.pid, usage, now, samples)
            elif (passed := now - seen.at) > 0:
                used = max(usage.seconds - seen.usage.seconds, 0.0)
                values["cpu_usage_percent"] = 100 * used / (passed * subject.vcpus)
            seen.usage, seen.at = usage, now
            seen.measured, seen.moment = values, time.time()
            is_due = not seen.is_asked and self._is_due(seen, now)
            if is_due:
                seen.is_asked = True
                seen.asked = now, usage
                seen.patience = self._interval * _IDLE_ROUNDS * random.uniform(0.8, 1)  # noqa: S311
        self._keep(node_id, seen, values)
        if is_due:
            self._asking.submit(partial(self._ask, node_id, seen, subject.ask))

    def _is_due(self, seen: _Seen, now: float) -> bool:
        """Return whether a node's server is to be asked."""
        if seen.asked is None:
            return True
        if seen.answered and "transactions_per_second" not in seen.answered:
            return True  # it takes two answers to tell a rate
        at, before = seen.asked
        works = seen.usage.seconds - before.seconds > _WORK * (now - at)
        has_changed = seen.usage.processes != before.processes
        return works or has_changed or now - at >= seen.patience

    def _ask(self, node_id: UUID, seen: _Seen, ask: Callable[[float], Activity]) -> None:
        try:
            activity = ask(_PATIENCE)
        except HostError as error:
            log.debug("node %s: %s", node_id, error)
            seen.answered = {}
            return
        except Exception:
            log.exception("asking node %s failed; it is asked again", node_id)
            seen.answered = {}
            return
        finally:
            seen.is_asked = False
        now = time.monotonic()
        values = {"total_connections": float(activity.connections)}
        if seen.counted is not None:
            at, before = seen.counted
            if activity.transactions >= before and now > at:
                values["transactions_per_second"] = (activity.transactions - before) / (now - at)
        seen.counted = now, activity.transactions
        seen.answered = values
        self._keep(node_id, seen, values)

    def _keep(self, node_id: UUID, seen: _Seen, values: Mapping[str, float]) -> None:
        try:
            seen.samples.add(time.time(), values)
        except FileNotFoundError:
            return  # the node is being removed
        except OSError as error:
            if not seen.is_lost:
                log.warning("what is measured of node %s is lost: %s", node_id, error)
            seen.is_lost = True
        else:
            seen.is_lost = False
