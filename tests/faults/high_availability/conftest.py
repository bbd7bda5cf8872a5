"""Which faults a run tries, how often, and how long nobody could write."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.high_availability.faults import FAULTS
from tests.faults.high_availability.stage import Stage
from tests.faults.matrix.faults import ENGINES, seed
from tests.support.service import ports_of_worker

_SAMPLE = 6
_ROUNDS = 50


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose faults of both engines; all of them, in many rounds, if all are asked for."""
    if "fault" not in metafunc.fixturenames:
        return
    every = metafunc.config.getoption("--all-faults")
    possible = [
        (engine, fault)
        for engine in ENGINES
        for fault in FAULTS
        if engine.startswith(fault.engines)
    ]
    chance = random.Random(f"{seed()} pairs")  # noqa: S311
    chosen = possible if every else chance.sample(possible, _SAMPLE)
    ordered = sorted(chosen, key=possible.index)
    names = [f"{engine}-{fault}" for engine, fault in ordered]
    metafunc.parametrize(("engine_name", "fault"), ordered, ids=names)


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often each fault happens; HA_ROUNDS says another number."""
    every = request.config.getoption("--all-faults")
    return int(os.environ.get("HA_ROUNDS", _ROUNDS if every else 1))


@pytest.fixture(scope="module")
def stage(cache: Path, worker_id: str) -> Iterator[Stage]:
    made = Stage(cache, ports_of_worker(worker_id, 1))
    yield made
    made.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    measured = {
        report.nodeid.partition("[")[2].rstrip("]") or report.nodeid.rpartition(":")[2]: gaps
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and (gaps := dict(report.user_properties).get("gaps"))
    }
    if not measured:
        return
    terminalreporter.section("seconds without an acknowledged write")
    for name, gaps in measured.items():
        said = f"median {statistics.median(gaps):5.2f}, most {max(gaps):5.2f}, {len(gaps)} rounds"
        terminalreporter.line(f"{said}: {name}")
