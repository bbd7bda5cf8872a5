"""Creating an instance: POST → ready, against initdb and start by hand.

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

from tests.service import Service

from bench.by_hand import ByHand
from bench.report import Figure, Goal
from bench.served import BY_HAND_PORTS, Client, query, served, wait_quiet
from bench.setup import Setup


def run(setup: Setup) -> Iterator[Figure]:
    times: dict[str, list[float]] = defaultdict(list)
    with (
        served(setup) as service,
        served(setup, block=1, OPENRDB_SPARE_VOLUMES="0") as without_spare,
        ByHand(setup.bundle) as hand,
    ):
        for each in (service, without_spare):
            _create(each)  # all warm: code loaded, files cached
        for _ in range(setup.times(11, 3)):
            for name, sync in (("synced", True), ("unsynced", False)):
                times[name].append(hand.create(BY_HAND_PORTS[0], sync=sync))
                hand.remove_all()
                wait_quiet(service)
            ready, queried = _create(service)
            times["ready"].append(ready)
            times["queried"].append(queried)
            ready, _ = _create(without_spare)
            times["without spare"].append(ready)
    synced = Figure("initdb, start, first query", times["synced"])
    unsynced = Figure("the same with initdb --no-sync", times["unsynced"])
    goal = Goal(0.5, of="ratio")
    for what, name, baseline, wanted in (
        ("POST → ready", "ready", synced, goal),
        ("POST → ready", "ready", unsynced, goal),
        ("POST → first query", "queried", synced, None),
        ("POST → ready without a spare", "without spare", synced, None),
    ):
        yield Figure(what, times[name], baseline=baseline, goal=wanted, in_turn=True)


def _create(service: Service) -> tuple[float, float]:
    """Milliseconds until ready and until the first query's answer."""
    with closing(Client(service)) as client:
        client.request("GET", "/healthz")  # connected
        started = time.perf_counter()
        created = client.create()
        query(created.address)
        queried = (time.perf_counter() - started) * 1e3
        client.delete(created.instance["id"])
    wait_quiet(service)
    return created.ready, queried
