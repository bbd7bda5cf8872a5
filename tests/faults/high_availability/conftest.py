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
from tests.support.samples import leave_out
from tests.support.service import ports_of_worker

_SAMPLE = 6
_ROUNDS = 50


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try every fault on each engine that can have it."""
    if "fault" in metafunc.fixturenames:
        both = [
            (engine, fault)
            for engine in ENGINES
            for fault in FAULTS
            if engine.startswith(fault.engines)
        ]
        names = [f"{engine}-{fault}" for engine, fault in both]
        metafunc.parametrize(("engine_name", "fault"), both, ids=names)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose some of these tests, unless all are asked for."""
    if config.getoption("--all-faults"):
        return
    mine = [item for item in items if item.path.parent == Path(__file__).parent]
    chance = random.Random(f"{seed()} pairs")  # noqa: S311
    left_out = chance.sample(mine, max(len(mine) - _SAMPLE, 0))
    leave_out(config, items, left_out)


@pytest.fixture
def every(request: pytest.FixtureRequest) -> bool:
    """Whether all faults are asked for, for as long as it takes."""
    return bool(request.config.getoption("--all-faults"))


@pytest.fixture
def rounds(every: bool) -> int:
    """How often each fault happens; HA_ROUNDS says another number."""
    return int(os.environ.get("HA_ROUNDS", _ROUNDS if every else 1))


@pytest.fixture(scope="module")
def stage(cache: Path, worker_id: str) -> Iterator[Stage]:
    made = Stage(cache, ports_of_worker(worker_id, 1))
    yield made
    made.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    measured = {
        report.nodeid.rpartition("::")[2]: gaps
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and (gaps := dict(report.user_properties).get("gaps"))
    }
    if not measured:
        return
    terminalreporter.section("seconds without an acknowledged write")
    for name, gaps in measured.items():
        said = f"median {statistics.median(gaps):5.2f}, most {max(gaps):5.2f}, {len(gaps)} rounds"
        terminalreporter.line(f"{said}: {name}")
