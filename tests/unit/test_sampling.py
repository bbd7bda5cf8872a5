"""Measuring nodes: what their processes take, and that none that hangs delays another's samples."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

from openrdb.engines.base import Activity
from openrdb.errors import HostError
from openrdb.host.samples import Samples
from openrdb.host.sampling import Sampler, Subject
from openrdb.host.usage import usages
from tests.support.service import wait_until

_BUSY = """
import os, sys
taken = bytearray(64 * 2**20)
if os.fork() == 0:
    while True:
        pass
sys.stdin.read()
"""
"""Takes memory, and has a child that takes a processor."""


@contextmanager
def running(program: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, 9)
        process.communicate()


def subject(place: Path, pid: int, ask: Callable[[float], Activity]) -> Subject:
    node_id = uuid4()
    return Subject(
        node_id=node_id,
        pid=pid,
        vcpus=1,
        memory=2**30,
        size=10**9,
        used=250 * 10**6,
        lag=None,
        path=place / str(node_id),
        ask=ask,
    )


def test_a_process_is_measured_with_its_descendants() -> None:
    with running(_BUSY) as pid:
        wait_until(lambda: usages([pid])[pid].seconds > 0.5)
        found = usages([pid, 2**30])
        assert found.keys() == {pid}
        assert found[pid].processes == 2
        assert 64 * 2**20 < found[pid].memory < 256 * 2**20
    assert usages([pid]) == {}


def test_a_server_that_hangs_delays_nobody(tmp_path: Path) -> None:
    ending = threading.Event()
    asked: list[UUID] = []

    def hang(_: float) -> Activity:
        ending.wait()
        raise HostError("it hangs")

    def answer(_: float) -> Activity:
        asked.append(well.node_id)
        return Activity(connections=3, transactions=100 * len(asked))

    with running(_BUSY) as pid:
        hanging = [subject(tmp_path, pid, hang) for _ in range(5)]
        well = subject(tmp_path, pid, answer)
        sampler = Sampler(0.1, lambda: [*hanging, well])
        sampler.start()
        try:
            wait_until(lambda: len(asked) > 3)
            latest = {one.node_id: one.values for one in sampler.latest()}
        finally:
            ending.set()
            sampler.close()
    assert latest.keys() == {one.node_id for one in (*hanging, well)}
    of_hanging = latest[hanging[0].node_id]
    assert of_hanging.keys() == {
        *("cpu_usage_percent", "mem_usage_percent", "mem_usage_bytes"),
        *("disk_usage_percent", "disk_usage_bytes"),
    }
    assert of_hanging["disk_usage_percent"] == 25
    assert 100 * 64 / 1024 < of_hanging["mem_usage_percent"] < 25
    assert latest[well.node_id]["total_connections"] == 3
    assert latest[well.node_id]["transactions_per_second"] > 100
    for one in (well, hanging[0]):
        kept = Samples(one.path).read(["cpu_usage_percent"], 0, time.time(), time.time())
        assert kept["cpu_usage_percent"][0][1] > 10


@dataclass
class Idle:
    """A server that does nothing, sampled."""

    sampler: Sampler
    rounds: int = 0
    asked_in: list[int] = field(default_factory=list)
    """The rounds in which it was asked."""


@contextmanager
def idle(place: Path, interval: float) -> Iterator[Idle]:
    def answer(_: float) -> Activity:
        seen.asked_in.append(seen.rounds)
        return Activity(connections=0, transactions=7)

    def subjects() -> list[Subject]:
        seen.rounds += 1
        return [one]

    with running("import sys; sys.stdin.read()") as pid:
        one = subject(place, pid, answer)
        seen = Idle(Sampler(interval, subjects))
        seen.sampler.start()
        try:
            yield seen
        finally:
            seen.sampler.close()


def test_what_does_nothing_is_asked_less_often(tmp_path: Path) -> None:
    with idle(tmp_path, 0.1) as seen:
        wait_until(lambda: seen.rounds >= 20)
    assert 2 <= len(seen.asked_in) <= 8


def test_what_does_nothing_has_a_rate_at_once(tmp_path: Path) -> None:
    """As soon as it can be told, which takes two answers."""
    with idle(tmp_path, 0.5) as seen:
        wait_until(lambda: len(seen.asked_in) == 2)
        wait_until(lambda: "transactions_per_second" in seen.sampler.latest()[0].values)
    # What does nothing is asked in the fifth at the earliest otherwise.
    assert seen.asked_in[1] < 5


def test_a_node_that_is_started_again_or_gone(tmp_path: Path) -> None:
    counts = iter(range(10**6, 0, -1))

    def answer(_: float) -> Activity:
        return Activity(connections=1, transactions=next(counts))

    with running(_BUSY) as first, running(_BUSY) as second:
        there = [subject(tmp_path, first, answer)]
        sampler = Sampler(0.1, lambda: there)
        sampler.start()
        try:
            wait_until(lambda: any("cpu_usage_percent" in o.values for o in sampler.latest()))
            there[0] = replace(there[0], pid=second)
            wait_until(lambda: "cpu_usage_percent" not in sampler.latest()[0].values)
            wait_until(lambda: "cpu_usage_percent" in sampler.latest()[0].values)
            # A count that falls tells of no rate.
            assert "transactions_per_second" not in sampler.latest()[0].values
            there.clear()
            wait_until(lambda: sampler.latest() == [])
        finally:
            sampler.close()
