"""Random calls on twenty instances while everything is killed: nothing is stuck, and nothing leaks.

`SOAK_SECONDS=1800 FAULTS_SEED=7 pytest tests/soak`; half of it with kills, and half without, as a
process that is killed again and again cannot leak.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from schemathesis import Case

from tests.faults.matrix.faults import seed
from tests.faults.storm.model import Journal
from tests.soak import generated, remains
from tests.soak.callers import Answers, Caller, Counted
from tests.soak.calls import NETWORKS
from tests.soak.kills import Kills
from tests.support.leftovers import leftovers
from tests.support.minors import Minors
from tests.support.service import Service, wait_until

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
INSTANCES = int(os.environ.get("SOAK_INSTANCES", "20"))
ENGINES = ("PostgreSQL-18", "MySQL-9", "PostgreSQL-17", "MySQL-9")
_TRASH = "60"
"""Seconds for which a deleted instance can be brought back."""
_REMOVED = "the node has been removed"
"""How a copy of logs ends whose node is deleted meanwhile."""
_WHOLE = 1200.0
"""Seconds after which each operation must have succeeded."""
_CALM = 600.0 if SECONDS >= _WHOLE else 240.0
"""Seconds until everything has settled that was begun."""
_DESCRIPTORS, _MEMORY = 20 + 32, 1.5
"""More descriptors that a process may have when all is deleted than before there was anything, the
connections between control plane and agent that both keep among them; and times the memory after as
many calls as before."""
_BUSY_THREADS, _KEPT_THREADS = 40, 20
"""More threads than when it was warm, with as many instances and when all is deleted: pools keep
theirs, and some may still grow."""
_CASES = 20
"""Generated requests of each operation, right ones and wrong ones each."""
_CANNOT_BE: dict[str, str] = {}
"""Operations that cannot succeed here, and why."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SECONDS, reason="SOAK_SECONDS says for how long"),
    pytest.mark.timeout(SECONDS + 6 * _CALM),
]


class Soak:
    def __init__(self, service: Service, minors: Minors, made_up: list[Case]) -> None:
        self.service, self.minors, self.made_up = service, minors, made_up
        self.journal, self.answers = Journal(), Answers()
        self.kills = Kills(service, (), seed(), self.journal)
        self.client = Counted(service, self.journal, "soak", self.answers)

    def work(self, seconds: float, *, kills: bool) -> None:
        """Let all call at once for some seconds, and wait until all is calm again."""
        chance = random.Random(f"{seed()} {kills}")  # noqa: S311
        over, began = threading.Event(), time.monotonic()
        failed = remains.failures(self.service)
        callers = [self._caller(number, over) for number in range(INSTANCES)]
        newer = [engine for engine in dict.fromkeys(ENGINES) if kills]
        for one in callers:
            one.start()
        there = False
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(chance.uniform(1.0, 5.0))
            if kills:
                self.kills.any(chance)
            if newer and passed > seconds / 2:
                self.minors.install(newer.pop())  # which plans a maintenance of each instance
            there = self._enough(there=there)
        over.set()
        for one in callers:
            one.join(_CALM)
            assert not one.is_alive(), one.name
        self._until_nothing(self._under_way)
        for one, why in remains.failures(self.service).items():
            if one not in failed:
                self.journal.note(f"FAILED {why}")
                self.journal.count(f"failed: {why[:120]}")
                if not (kills or why.endswith(_REMOVED)):
                    self.journal.fault(f"failed although nothing was killed: {why}")

    def _enough(self, *, there: bool) -> bool:
        """Note a fault if there have been enough instances, and are not any more."""
        with suppress(sqlite3.OperationalError):  # it may be locked by recovery after a kill
            count = remains.living(self.service)
            if there and count < INSTANCES:
                self.journal.fault(f"there are {count} instances only")
            return there or count >= INSTANCES
        return there

    def _caller(self, number: int, over: threading.Event) -> Caller:
        engine = ENGINES[number % len(ENGINES)]
        known = self.service, self.journal, self.answers, self.made_up
        return Caller(*known, engine, f"c{number}", seed(), over)

    def _under_way(self) -> list[str]:
        return [*leftovers(self.service), *remains.stuck(self.service)]

    def _until_nothing(self, look: Callable[[], list[str]]) -> None:
        """Wait until nothing of a kind is found; what still is then are faults."""
        with suppress(AssertionError):
            wait_until(lambda: not look(), _CALM)
        for one in look():
            self.journal.fault(f"left: {one}")

    def delete_all(self) -> None:
        """Delete what there is, whoever made it."""

        def left() -> list[str]:
            lists = {
                "/backups": "database_backups",
                "/snapshots": "snapshots",
                "/instances": "instances",
            }
            found: list[str] = []
            for path, within in lists.items():
                self.client.ask("GET", f"{path}?page_size=100")
                found += [f"{path}/{one['id']}" for one in self.client.body[within]]
            if not found:  # networks that nothing is in any more
                self.client.ask("GET", f"{NETWORKS}?page_size=100")
                found = [f"{NETWORKS}/{one['id']}" for one in self.client.body["private_networks"]]
            refused = []
            for path in found:
                self.client.ask("DELETE", path)
                refused.append(f"{path}: {self.client.status} {self.client.text[:300]}")
            return refused

        self._until_nothing(left)
        # Copies of logs expire, and deleted instances leave the trash.
        for look in (leftovers, remains.rows_left, remains.files_left):
            self._until_nothing(lambda look=look: look(self.service))  # type: ignore[misc]

    def restart(self) -> None:
        """Start the control plane again, which forgets what was in the trash."""
        self.service.kill(signal.SIGTERM)
        self.service.start()
        self._until_nothing(lambda: remains.rows_left(self.service, remains.TIDIED))


def test_nothing_is_stuck_and_nothing_leaks(
    on_disk: None, fresh_service: Service, cache: Path, tmp_path: Path
) -> None:
    service, there = fresh_service, set(psutil.pids())
    # What was deleted would fill the disk otherwise: an instance each few seconds.
    service.environment["OPENRDB_TRASH"] = _TRASH
    service.keep_recovery()
    service.add_pool("block", "sbs_5k")
    soak = Soak(service, Minors(service, cache), generated.cases(seed(), _CASES))
    service.start()
    empty = remains.host(service, there)
    try:
        soak.work(SECONDS / 2, kills=True)
        soak.work(SECONDS / 8, kills=False)  # caches are warm, and pools have their connections
        before = remains.host(service, there)
        soak.work(SECONDS * 3 / 8, kills=False)
        after = remains.host(service, there)
        soak.delete_all()
        left = remains.host(service, there)
        soak.restart()
    finally:
        (tmp_path / "journal").write_text("\n".join(soak.journal.lines))
        print(f"seed {seed()}: {dict(sorted(soak.journal.counts.items()))}")
        print(soak.answers.table())
    for name, one in {"empty": empty, "before": before, "after": after, "left": left}.items():
        print(
            f"{name}: {one.processes}, {sum(one.entries.values())} entries, {len(one.ports)} ports"
        )
    print(f"left: {left.entries - empty.entries}, {left.others - empty.others}, {left.ports}")
    assert soak.journal.faults == [], f"see {tmp_path}/journal"
    for name, was in empty.processes.items():
        now = left.processes[name]
        assert now.descriptors <= was.descriptors + _DESCRIPTORS, (name, was, now)
        assert now.listening == was.listening, (name, was, now)
        warm, busy = before.processes[name], after.processes[name]
        assert busy.memory <= warm.memory * _MEMORY + 20, (name, warm, busy)
        assert busy.threads <= warm.threads + _BUSY_THREADS, (name, warm, busy)
        assert now.threads <= warm.threads + _KEPT_THREADS, (name, warm, now)
    assert left.others == empty.others
    assert left.ports == empty.ports == []
    assert left.entries - empty.entries == {}
    never = soak.answers.never_done() - _CANNOT_BE.keys()
    assert SECONDS < _WHOLE or not never, f"never done: {sorted(never)}"
