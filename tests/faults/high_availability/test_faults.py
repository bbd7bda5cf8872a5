"""Whatever happens to a highly available instance: it works on, is protected again, loses nothing.

Clients write all the time by its endpoint. A run that is not told `--all-faults` tries a sample, chosen
by a seed that the header names: FAULTS_SEED repeats it, HA_ROUNDS says how often each fault happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults.high_availability.faults import KILL, Fault, kill_successor
from tests.faults.high_availability.stage import Stage
from tests.faults.high_availability.world import AtWork, World
from tests.faults.matrix.faults import ENGINES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14400)]

_CHECKED = 5
"""Rounds after which all that clients were told is compared with what is there."""
IN_A_ROW = 20
MUCH = {
    "PostgreSQL": (
        400_000,
        "INSERT INTO much SELECT n, repeat('x', 100) FROM generate_series(1, 400000) n",
    ),
    "MySQL": (
        160_000,
        "INSERT INTO much SELECT 1 + a.n + 20 * b.n + 400 * c.n + 8000 * d.n, repeat('x', 100) "
        "FROM {0} a, {0} b, {0} c, {0} d".format(
            "(SELECT row_number() OVER () - 1 AS n FROM information_schema.collations LIMIT 20)"
        ),
    ),
}
"""One transaction that takes long to apply: how many rows, and how they are made."""


def test_nothing_is_lost(
    stage: Stage,
    engine_name: str,
    fault: Fault,
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    gaps: list[float] = []
    with stage.world(engine_name) as world:
        while len(gaps) < rounds:
            world.wait_protected()
            with world.at_work() as clients:
                for _ in range(min(_CHECKED, rounds - len(gaps))):
                    gaps.append(happen(world, fault, clients))
    record_property("gaps", [round(gap, 3) for gap in gaps])


@pytest.mark.parametrize("engine_name", ENGINES)
def test_kills_in_a_row(
    stage: Stage,
    engine_name: str,
    every: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """The second half of them while no control plane is there."""
    many = IN_A_ROW if every else IN_A_ROW // 5
    gaps: list[float] = []
    with stage.world(engine_name) as world:
        world.wait_protected()
        with world.at_work() as clients:
            for number in range(many):
                if number == many // 2:
                    world.service.kill()
                gaps.append(happen(world, KILL, clients))
        world.service.start()
        world.wait_protected()
    record_property("gaps", [round(gap, 3) for gap in gaps])


@pytest.mark.parametrize("engine_name", ENGINES)
def test_what_a_successor_has_only_received(stage: Stage, engine_name: str) -> None:
    """It confirmed much, applies it when its primary dies, and dies before it is done."""
    rows, statement = MUCH[engine_name.partition("-")[0]]
    with stage.world(engine_name) as world:
        for _ in range(3):
            world.wait_protected()
            with world.patiently() as session:
                session.execute("DROP TABLE IF EXISTS much")
                session.execute("CREATE TABLE much (n int PRIMARY KEY, t varchar(100))")
            world.wait_protected()
            with world.patiently() as session:
                session.execute(statement)
            kill_successor(world)
            with world.patiently() as session:
                assert session.execute("SELECT count(*) FROM much").fetchone() == (rows,)


def happen(world: World, fault: Fault, clients: AtWork) -> float:
    """Let a fault happen once; return the most seconds in which nobody could write."""
    world.wait_protected()
    epoch, began = world.record.epoch, time.monotonic()
    fault.happen(world)
    clients.wait_for_more()
    world.wait_protected()
    clients.wait_for_more()
    if fault.moves is not None:
        assert (world.record.epoch > epoch) == fault.moves
    return clients.writer.largest_gap(began, time.monotonic())
