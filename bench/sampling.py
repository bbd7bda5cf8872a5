"""What measuring idle instances costs, of one processor.

Ten instances that are measured every second, for some seconds, against ten that are measured once an
hour: what all their processes, the agent's and the control plane's take more, turned into that of a
hundred instances measured once a minute, as it is by default. The servers' sessions are in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
from tests.support.service import Service

from bench.engines import Engine
from bench.report import Figure, Goal
from bench.served import create_many, served, wait_quiet
from bench.setup import Setup

_COUNT, _SECONDS = 10, 30
_SHOWN = 100
_ROUND = 60
_GOAL = Goal(0.5)


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        often, seldom = (_shares(setup, engine, interval) for interval in ("1", "3600"))
        factor = _SHOWN / _COUNT / _ROUND
        costs = [max(more - less, 0.0) * factor for more, less in zip(often, seldom, strict=True)]
        yield Figure(f"{engine.name}: {_SHOWN} idle instances", costs, "%", goal=_GOAL)


def _shares(setup: Setup, engine: Engine, interval: str) -> list[float]:
    """Return what instances take in all, in percent of one processor."""
    with served(setup, engine=engine.version, OPENRDB_METRICS_ROUND=interval) as service:
        create_many(service, _COUNT, 2, engine.version)
        if interval != "1":
            wait_quiet(service)
        found = []
        for _ in range(1 if setup.quick else 3):
            before, began = _seconds(service), time.monotonic()
            time.sleep(_SECONDS)
            found.append(100 * (_seconds(service) - before) / (time.monotonic() - began))
        return found


def _seconds(service: Service) -> float:
    """Return the processors' time of all processes, with that of children that have ended."""
    taken = 0.0
    for process in service.processes():
        try:
            taken += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
    return taken
