"""Random calls on twenty instances while everything is killed: nothing is stuck, and nothing leaks.

`SOAK_SECONDS=1800 FAULTS_SEED=7 pytest tests/soak`; half of it with kills, and half without, as a
process that is killed again and again cannot leak.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import psutil
import pytest
from scaleway.rdb.v1 import RdbV1API

from tests.faults.matrix.faults import ENGINES, seed
from tests.faults.storm.model import Journal
from tests.faults.storm.storm import VICTIMS, Storm
from tests.soak.callers import Caller
from tests.support.leftovers import leftovers
from tests.support.programs import agent, keeper
from tests.support.service import Service, wait_until

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
INSTANCES = int(os.environ.get("SOAK_INSTANCES", "20"))
_CALM = 600.0
"""Seconds until everything has settled that was begun."""
_TRASH = "60"
"""Seconds for which a deleted instance can be brought back."""
_DESCRIPTORS, _MEMORY = 20 + 32, 1.5
"""More descriptors that a process may have when all is deleted than before there was anything, the
connections between control plane and agent that both keep among them; and times the memory after as
many calls as before."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SECONDS, reason="SOAK_SECONDS says for how long"),
    pytest.mark.timeout(SECONDS + 4 * _CALM),
]


class Soak:
    def __init__(self, service: Service) -> None:
        self.service, self.journal = service, Journal()
        self.callers: list[Caller] = []
        self.storm = Storm(service, (), seed(), self.journal)

    def work(self, seconds: float, *, kills: bool) -> None:
        """Let all call at once for some seconds, and wait until all is calm again."""
        chance = random.Random(f"{seed()} {kills}")  # noqa: S311
        over, until = threading.Event(), time.monotonic() + seconds
        self.callers = [self._caller(number, over) for number in range(INSTANCES)]
        for one in self.callers:
            one.start()
        while time.monotonic() < until:
            time.sleep(chance.uniform(1.0, 5.0))
            if kills:
                self.storm.strike(chance.choice(VICTIMS), chance)
        over.set()
        for one in self.callers:
            one.join(_CALM)
            assert not one.is_alive(), one.name
        for one in self.callers:
            one.settle(_CALM)
        wait_until(lambda: not leftovers(self.service), _CALM)

    def _caller(self, number: int, over: threading.Event) -> Caller:
        engine = ENGINES[number % len(ENGINES)]
        before = self.callers[number] if self.callers else None
        made = Caller(self.service, self.journal, engine, f"c{number}", seed(), over)
        if before is not None:
            made.instance_id, made.number = before.instance_id, before.number
        return made

    def measure(self) -> dict[str, tuple[int, float]]:
        """Descriptors and memory (MiB) of the processes that live for long."""
        assert self.service.process is not None
        pids = {
            "control plane": self.service.process.pid,
            "agent": agent(self.service),
            "keeper": keeper(self.service),
        }
        found = {}
        for name, pid in pids.items():
            assert pid is not None, name
            process = psutil.Process(pid)
            found[name] = process.num_fds(), process.memory_full_info().uss / 2**20
        return found

    def delete_all(self, sdk: RdbV1API) -> None:
        """Delete what there is, whoever made it."""

        def is_empty() -> bool:
            for backup in sdk.list_database_backups_all():
                self._delete(f"/backups/{backup.id}")
            for snapshot in sdk.list_snapshots_all():
                self._delete(f"/snapshots/{snapshot.id}")
            instances = sdk.list_instances_all()
            for instance in instances:
                self._delete(f"/instances/{instance.id}")
            return not instances

        wait_until(is_empty, _CALM)
        wait_until(lambda: not leftovers(self.service), _CALM)

    def _delete(self, path: str) -> None:
        answer = self.service.request("DELETE", path)
        assert answer.ok or answer.status_code in (404, 409, 412), answer.text


def test_nothing_is_stuck_and_nothing_leaks(
    on_disk: None, fresh_service: Service, tmp_path: Path
) -> None:
    # What was deleted would fill the disk otherwise: an instance each few seconds.
    fresh_service.environment["OPENRDB_TRASH"] = _TRASH
    fresh_service.start()
    soak = Soak(fresh_service)
    empty = soak.measure()
    try:
        soak.work(SECONDS / 2, kills=True)
        soak.work(SECONDS / 8, kills=False)  # caches are warm, and pools have their connections
        before = soak.measure()
        soak.work(SECONDS * 3 / 8, kills=False)
        after = soak.measure()
        soak.delete_all(fresh_service.sdk())
        left = soak.measure()
    finally:
        (tmp_path / "journal").write_text("\n".join(soak.journal.lines))
        print(f"seed {seed()}: {dict(sorted(soak.journal.counts.items()))}")
    print(f"empty {empty}, before {before}, after {after}, left {left}")
    assert soak.journal.faults == [], f"see {tmp_path}/journal"
    for name in empty:
        assert left[name][0] <= empty[name][0] + _DESCRIPTORS, (name, empty, left)
        assert after[name][1] <= before[name][1] * _MEMORY + 20, (name, before, after)
    servers = fresh_service.processes("/nodes/") + fresh_service.processes("haproxy.cfg")
    assert servers == []
    instances = fresh_service.data_dir / "instances"
    assert list(instances.iterdir()) == []
