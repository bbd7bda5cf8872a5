"""Whatever happens to a highly available instance: it works on, is protected again, loses nothing.

Clients write all the time by its endpoint. A run that is not told `--all-faults` tries a sample, chosen
by a seed that the header names: FAULTS_SEED repeats it, HA_ROUNDS says how often each fault happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults.high_availability.faults import Fault
from tests.faults.high_availability.stage import Stage
from tests.faults.high_availability.world import AtWork, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14400)]

_CHECKED = 5
"""Rounds after which all that clients were told is compared with what is there."""


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
