"""The workflow engine's file is lost after any step of any operation: the work begins again, and ends.

So does a changed build begin, which discards that file's workflows itself. A run that is not told
`--all-faults` tries a sample of the operations, by the seed of the matrix.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import openrdb.operations  # noqa: F401
from openrdb.operations.registry import KINDS
from tests.faults.matrix.faults import seed
from tests.support.killed_service import KilledService
from tests.support.kinds import CASES, FAST, finished_count, last_error
from tests.support.minors import Minors
from tests.support.scenes import Case, Scene, make_scene
from tests.support.service import in_background, ports_of_worker, wait_until

pytestmark = pytest.mark.timeout(900)

LONGEST = 40
"""More steps than any sequence has."""
_SAMPLE = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" not in metafunc.fixturenames:
        return
    every = metafunc.config.getoption("--all-faults")
    chosen = list(CASES) if every else random.Random(seed()).sample(list(CASES), _SAMPLE)  # noqa: S311
    metafunc.parametrize("name", chosen)


@pytest.fixture(scope="module")
def scene(cache: Path, worker_id: str) -> Iterator[tuple[KilledService, Scene]]:
    with KilledService(cache, ports_of_worker(worker_id, 1)) as service:
        service.add_pool("fast", FAST)
        service.keep_recovery()
        Minors(service, cache)
        service.start()
        yield service, make_scene(service, "PostgreSQL-17")


def ask(scene: Scene, case: Case, number: int) -> None:
    with contextlib.suppress(requests.ConnectionError):
        case.ask(scene, number)


def test_workflows_lost_after_every_step(scene: tuple[KilledService, Scene], name: str) -> None:
    (service, there), case = scene, CASES[name]
    for number in range(LONGEST):
        there.settle()
        case.before(there, number)
        service.kill()
        done = finished_count(service, case.kind)
        service.kill_after(case.kind, number)
        service.start()
        asking = in_background(lambda number=number: ask(there, case, number))
        wait_until(lambda done=done: service.ended() or finished_count(service, case.kind) > done)
        was_killed = finished_count(service, case.kind) == done
        asking.join()
        service.kill()
        if was_killed:
            service.lose_workflows()
        service.start()  # OpenRDB as it is
        wait_until(lambda done=done: finished_count(service, case.kind) > done)
        assert last_error(service, case.kind)[0] == case.ends, f"after {number} steps"
        there.settle()
        assert case.holds(there, number), f"after {number} steps"
        case.after(there, number)
        if not was_killed:
            break
    assert not was_killed
    assert number > 1  # it has been killed before its first step, and after one


def test_every_kind_is_tried() -> None:
    assert {case.kind for case in CASES.values()} == KINDS.keys()
