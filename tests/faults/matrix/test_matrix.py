"""Whatever is killed, at whichever step of an operation: what was asked is done, and all is served.

A run that is not told `--all-faults` tries a sample, chosen by a seed that the header names;
FAULTS_SEED repeats it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

import openrdb.operations  # noqa: F401
from openrdb.operations.registry import KINDS
from openrdb.system import processes
from tests.faults.matrix.faults import ENGINES, FAULTS, Fault, Victim
from tests.support.held_service import HeldService
from tests.support.kinds import CASES, FAST, finished_count, last_error
from tests.support.leftovers import leftovers
from tests.support.minors import Minors
from tests.support.programs import agent
from tests.support.scenes import Scene, make_scene
from tests.support.service import in_background, installed, ports_of_worker, wait_until

pytestmark = pytest.mark.timeout(600)

BACK = 120.0
"""Seconds after which nobody believes in it any more; what is measured is told at the end."""
_TIDY = 20.0
_numbers = itertools.count(1)


class Stage:
    """A service with a scene on one engine, made anew for another engine or after a failure."""

    def __init__(self, cache: Path, worker: str) -> None:
        self._cache = cache
        self._ports = ports_of_worker(worker, 1)
        self._open = contextlib.ExitStack()
        self._scene: Scene | None = None

    def scene(self, engine: str) -> Scene:
        if self._scene is None or self._scene.engine != engine:
            self.clear()
            installed(self._cache, engine)
            service = self._open.enter_context(HeldService(self._cache, self._ports))
            service.add_pool("fast", FAST)
            service.environment["OPENRDB_TRASH"] = "300"  # some of it is brought back at once
            service.keep_recovery()
            Minors(service, self._cache)
            service.start()
            self._scene = make_scene(service, engine)
        return self._scene

    def clear(self) -> None:
        if self._scene is not None:
            self._scene.close()
        self._scene = None
        self._open.close()


@pytest.fixture(scope="module")
def stage(cache: Path, worker_id: str) -> Iterator[Stage]:
    made = Stage(cache, worker_id)
    yield made
    made.clear()


def test_converges(
    stage: Stage, fault: Fault, record_property: Callable[[str, object], None]
) -> None:
    scene = stage.scene(fault.engine)
    try:
        record_property("seconds", converge(scene, fault))
    except BaseException:
        stage.clear()
        raise


def converge(scene: Scene, fault: Fault) -> float:
    """Try a fault; return the seconds from it, or from the next `serve`, until all is well."""
    service, case, number = scene.service, fault.case, next(_numbers)
    assert isinstance(service, HeldService)
    case.before(scene, number)
    done = finished_count(service, case.kind)
    service.hold(case.kind, fault.step)
    answers = list[requests.Response]()

    def ask() -> None:
        with contextlib.suppress(requests.ConnectionError):
            answers.append(case.ask(scene, number))

    asking = in_background(ask)
    begun = service.wait_begun(unless=lambda: any(not answer.ok for answer in answers))
    assert begun == fault.step_name, [answer.text for answer in answers]
    if (delay := fault.delay()) is None:
        service.wait_done()
    else:
        time.sleep(delay)
    began = kill(service, fault.victim)
    wait_until(lambda: finished_count(service, case.kind) > done, BACK)
    asking.join(BACK)
    status, error = last_error(service, case.kind)
    assert status == case.ends, error
    scene.settle()
    for login in scene.logins():
        wait_until(login.answers, BACK)
    seconds = time.monotonic() - began
    assert all(answer.status_code in (200, 204) for answer in answers), answers[0].text
    assert case.holds(scene, number)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not leftovers(service), _TIDY)
    assert leftovers(service) == []
    case.after(scene, number)
    return seconds


def kill(service: HeldService, victim: Victim) -> float:
    """Kill something, and have started what nobody else starts; return when that was."""
    if victim == "everything":
        service.kill_everything()
    elif victim == "control plane":
        service.kill()
    elif victim == "stop":
        stop(service)
    elif victim == "agent":
        wait_until(lambda: agent(service))  # its keeper may just be starting it again
        pid = agent(service)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    else:
        for record in (service.data_dir / "instances").glob("*/node-*.process"):
            identity = processes.saved(record)
            if identity is not None and processes.identify(identity.pid) == identity:
                os.kill(identity.pid, signal.SIGKILL)
    began = time.monotonic()
    service.let_go()
    if service.process is None:
        service.start()
    return began


def stop(service: HeldService) -> None:
    """Stop everything, with the operation held until the control plane has been told to end."""
    stopped = list[subprocess.CompletedProcess[str]]()
    arguments = ("stop", "--data-dir", str(service.data_dir))
    stopping = in_background(lambda: stopped.append(service.run(*arguments)))
    time.sleep(0.5)
    service.let_go()
    stopping.join()
    assert stopped[0].returncode == 0, stopped[0].stderr
    service.kill()
    assert not service.processes()


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_a_run(stage: Stage, name: str) -> None:
    """Without a fault: a run of the matrix tries only some of the steps that the cases name."""
    scene, case, number = stage.scene(ENGINES[0]), CASES[name], next(_numbers)
    service = scene.service
    assert isinstance(service, HeldService)
    case.before(scene, number)
    done = finished_count(service, case.kind)
    service.forget_steps()
    answer = case.ask(scene, number)
    assert answer.ok, answer.text
    wait_until(lambda: finished_count(service, case.kind) > done, BACK)
    assert service.steps_of(case.kind) == [*case.steps, "complete"]
    scene.settle()
    assert case.holds(scene, number)
    case.after(scene, number)


def test_every_kind_is_in_it() -> None:
    assert {case.kind for case in CASES.values()} == KINDS.keys()
    assert {fault.operation for fault in FAULTS} == CASES.keys()
    assert {fault.engine for fault in FAULTS} == set(ENGINES)
