"""The control plane's memory, processor time and threads while its instances are idle.

With 0 instances (the baseline), 30, and 100; processor time over windows of 20 s, in percent of one
core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
from tests.support.service import Service

from bench.report import Figure, Goal
from bench.served import agent, control_plane, create_many, pss, served, wait_quiet
from bench.setup import Setup

_WINDOW = 20.0
_Figures = tuple[Figure, Figure, Figure, Figure]


def run(setup: Setup) -> Iterator[Figure]:
    with served(setup) as service:
        empty = _measure(service, "0 instances", setup.times(3, 1))
        count = 0
        for target in (30,) if setup.quick else (30, 100):
            create_many(service, target - count, at_once=4)
            count = target
            wait_quiet(service)
            measured = _measure(service, f"{count} idle instances", setup.times(3, 1))
            for figure, baseline, goal in zip(
                measured, empty, (Goal(150), Goal(2), None, None), strict=True
            ):
                yield Figure(
                    figure.what,
                    figure.values,
                    figure.unit,
                    Figure("0 instances", baseline.values, baseline.unit),
                    goal,
                )


def _measure(service: Service, at: str, windows: int) -> _Figures:
    own, of_agent = control_plane(service), agent(service)
    time.sleep(2)  # what was just created is forgotten
    used: dict[psutil.Process, list[float]] = {own: [], of_agent: []}
    for _ in range(windows):
        before = {process: _seconds(process) for process in used}
        started = time.monotonic()
        time.sleep(_WINDOW)
        took = time.monotonic() - started
        for process, shares in used.items():
            shares.append(100 * (_seconds(process) - before[process]) / took)
    return (
        Figure(f"PSS with {at}", [pss(own)], "MiB"),
        Figure(f"processor with {at}", used[own], "%"),
        Figure(f"the agent's processor with {at}", used[of_agent], "%"),
        Figure(f"threads with {at}", [own.num_threads()], "threads"),
    )


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
