"""Twenty creations at once, until all are ready.

Against twenty times initdb, start and first query by hand: one after the other, and two at a time, as
this machine has two cores. In both, servers run on until the last is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.by_hand import ByHand
from bench.report import Figure
from bench.served import BY_HAND_PORTS, create_many, delete_many, served, wait_quiet
from bench.setup import Setup

_COUNT = 20


def run(setup: Setup) -> Iterator[Figure]:
    totals: list[float] = []
    singles: list[float] = []
    hand_totals: dict[int, list[float]] = {1: [], 2: []}
    with served(setup) as service, setup.postgresql.by_hand() as hand:
        for _ in range(setup.times(3, 1)):
            wait_quiet(service)
            started = time.perf_counter()
            created = create_many(service, _COUNT, at_once=_COUNT)
            totals.append(time.perf_counter() - started)
            singles += [one.ready / 1e3 for one in created]
            delete_many(service, created)
            for at_once, results in hand_totals.items():
                wait_quiet(service)
                results.append(_by_hand(hand, at_once))
    one, two = (
        Figure(f"by hand, {name}", hand_totals[at_once], "s")
        for at_once, name in ((1, "one after the other"), (2, "two at a time"))
    )
    yield Figure("20 at once until all are ready", totals, "s", one, in_turn=True)
    yield Figure("20 at once until all are ready", totals, "s", two, in_turn=True)
    yield Figure("… each instance's share", [total / _COUNT for total in totals], "s")
    yield Figure("… each client's wait until ready", singles, "s")


def _by_hand(hand: ByHand, at_once: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(hand.create, BY_HAND_PORTS[:_COUNT]))
    total = time.perf_counter() - started
    hand.remove_all()
    return total
