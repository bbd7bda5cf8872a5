"""A standby's volume that is copied again, and whoever takes part in it killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from tests.faults.high_availability.stage import Stage
from tests.faults.high_availability.test_faults import MUCH
from tests.faults.high_availability.world import BACK, World, send
from tests.faults.matrix.faults import ENGINES
from tests.support.programs import agent
from tests.support.service import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def _kill_agent(world: World) -> None:
    pid = agent(world.service)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def _kill_primary(world: World) -> None:
    send(world.processes(world.record.primary), signal.SIGKILL)


def _kill_both(world: World) -> None:
    _kill_agent(world)
    _kill_primary(world)


def _kill_everything(world: World) -> None:
    world.service.kill_everything()
    world.service.start()


_TRIES = 3
_SLICE = 0.003
"""Seconds for which the agent goes on between two looks."""
_LOGS = "#innodb_redo"
"""May be the half of a volume, and is not copied."""
PARTS = (0.1, 0.5, 0.9)
"""Of the data, when they are killed."""
KILLS: dict[str, Callable[[World], None]] = {
    "agent": _kill_agent,
    "primary": _kill_primary,
    "both": _kill_both,
    "everything": _kill_everything,
}


@pytest.mark.copies
@pytest.mark.parametrize("killed", KILLS)
@pytest.mark.parametrize("engine_name", ENGINES)
def test_kills_amid_a_copy(stage: Stage, engine_name: str, killed: str) -> None:
    """What is half made is never started, and never takes the primary's place."""
    _, statement = MUCH[engine_name.partition("-")[0]]
    with stage.world(engine_name) as world:
        world.wait_protected()
        with world.patiently() as session:
            session.execute("DROP TABLE IF EXISTS much")
            session.execute("CREATE TABLE much (n int PRIMARY KEY, t varchar(100))")
            session.execute(statement)
        still_copying = 0
        for part in PARTS:
            # On a busy machine the kill may come too late.
            still_copying += any(kill_amid(world, part, KILLS[killed]) for _ in range(_TRIES))
    # The copy may be complete before the last kill.
    assert still_copying >= len(PARTS) - 1


def kill_amid(world: World, part: float, kill: Callable[[World], None]) -> bool:
    """Kill something when a part of the standby's data is copied; answer whether it was being copied
    still."""
    world.wait_protected()
    with world.at_work() as clients:
        pair = world.record
        lose_volume(world, pair.standby)
        still_copying = wait_copied(world, part)
        kill(world)
        world.wait_protected()
        clients.wait_for_more()
        assert (world.record.primary, world.record.epoch) == (pair.primary, pair.epoch)
    return still_copying


def volume_of(world: World, node: UUID) -> Path:
    return world.service.data_dir / f"instances/{world.id}/nodes/{node}/data"


def lose_volume(world: World, node: UUID) -> None:
    """Remove a node's data, before anybody can start it again."""
    with stopped_agent(world):
        send(world.processes(node), signal.SIGKILL)
        shutil.rmtree(volume_of(world, node))


@contextlib.contextmanager
def stopped_agent(world: World) -> Iterator[None]:
    """Let the agent do nothing within the context; its keeper may replace it, as one that is frozen."""
    pid = agent(world.service)
    found = [psutil.Process(pid)] if pid is not None and psutil.pid_exists(pid) else []
    send(found, signal.SIGSTOP)
    try:
        yield
    finally:
        send(found, signal.SIGCONT)


def wait_copied(world: World, part: float) -> bool:
    """Return when a part of the standby's data is there again: whether it was still being copied."""
    pair = world.record
    deadline = time.monotonic() + BACK
    wait_until(lambda: world.record.unusable, BACK)
    making = world.service.data_dir / "making"
    wanted = part * used(volume_of(world, pair.primary))
    while world.record.unusable:
        assert time.monotonic() < deadline
        with stopped_agent(world):  # a copy takes less time than looking at it
            is_there = used(making) >= wanted
        if is_there:
            return world.record.unusable
        time.sleep(_SLICE)
    return False


def used(directory: Path) -> int:
    """Return the bytes of the files below a directory that are copied, any of which may just be
    removed."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in () if _LOGS in place else names:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).lstat().st_blocks * 512
    return total
