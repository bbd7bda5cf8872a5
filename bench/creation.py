"""Creating an instance: POST → ready, against the engine's initialisation and start by hand.

The client's view: from the request until the (held) GET says `ready`; "first query" goes on until a
session by TLS through the load balancer has its answer, which is where the baseline ends too. All ways
take turns, each when nothing else runs and nothing is left to be written. "Without a spare" is what a
creation takes when no volume is ready in advance.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

from tests.support.service import Service

from bench.engines import Engine
from bench.report import Figure, Goal
from bench.served import BY_HAND_PORTS, Client, served, wait_quiet
from bench.setup import Setup

_GOALS = {"PostgreSQL": Goal(0.5, of="ratio"), "MySQL": Goal(0.35, of="ratio")}


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _figures(setup, engine)


def _figures(setup: Setup, engine: Engine) -> Iterator[Figure]:
    times: dict[str, list[float]] = defaultdict(list)
    with (
        served(setup, engine=engine.version) as service,
        served(setup, 1, engine=engine.version, OPENRDB_SPARE_VOLUMES="0") as without_spare,
        engine.by_hand() as hand,
    ):
        for each in (service, without_spare):
            _create(each, engine)  # all warm: code loaded, files cached
        for _ in range(setup.times(11, 3)):
            for way, options in hand.ways.items():
                times[way].append(hand.create(BY_HAND_PORTS[0], *options))
                hand.remove_all()
                wait_quiet(service)
            ready, queried = _create(service, engine)
            times["ready"].append(ready)
            times["queried"].append(queried)
            ready, _ = _create(without_spare, engine)
            times["without spare"].append(ready)
        by_hand = [Figure(way, times[way]) for way in hand.ways]
    goal = _GOALS[engine.name]
    for step, name, baseline, wanted in (
        *(("POST → ready", "ready", each, goal) for each in by_hand),
        ("POST → first query", "queried", by_hand[0], None),
        ("POST → ready without a spare", "without spare", by_hand[0], None),
    ):
        measured, what = times[name], f"{engine.name}: {step}"
        yield Figure(what, measured, baseline=baseline, goal=wanted, in_turn=True)


def _create(service: Service, engine: Engine) -> tuple[float, float]:
    """Milliseconds until ready and until the first query's answer."""
    with closing(Client(service)) as client:
        client.request("GET", "/healthz")  # connected
        started = time.perf_counter()
        created = client.create(engine=engine.version)
        engine.query(created.address)
        queried = (time.perf_counter() - started) * 1e3
        client.delete(created.instance["id"])
    wait_quiet(service)
    return created.ready, queried
