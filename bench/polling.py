"""Creating and deleting as a client sees it that asks every 15 s, as scw and the Go SDK do.

It asks at once after its request, and again 15 s after each answer that says that work is under way;
a deletion has ended for it when it is told 404. The baseline is the same client of a service that
holds no answers: it sleeps through what was done within a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from tests.support.service import Service

from bench.engines import Engine
from bench.report import Figure
from bench.served import Answer, Client, served, wait_quiet
from bench.setup import Setup

_EVERY = 15.0
_UNDER_WAY = ("provisioning", "initializing", "deleting")


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _figures(setup, engine)


def _figures(setup: Setup, engine: Engine) -> Iterator[Figure]:
    with (
        served(setup, engine=engine.version) as service,
        served(setup, 1, engine=engine.version, OPENRDB_HOLD="0") as holding_nothing,
    ):
        ours = [_once(service, engine) for _ in range(setup.times(11, 2))]
        unheld = [_once(holding_nothing, engine) for _ in range(setup.times(3, 1))]
    for index, what in enumerate(("POST → told ready", "DELETE → told 404")):
        baseline = Figure("nothing held", [one[index] for one in unheld])
        yield Figure(f"{engine.name}: {what}", [one[index] for one in ours], baseline=baseline)


def _once(service: Service, engine: Engine) -> tuple[float, float]:
    """Milliseconds of a creation and of a deletion."""
    with closing(Client(service)) as client:
        started = time.perf_counter()
        instance_id = client.ask_for(engine=engine.version).json()["id"]
        told = _told(client, instance_id)
        ready = (time.perf_counter() - started) * 1e3
        assert told.json()["status"] == "ready", told.body
        wait_quiet(service)
        started = time.perf_counter()
        client.ask_to_delete(instance_id).json()
        told = _told(client, instance_id)
        gone = (time.perf_counter() - started) * 1e3
        assert told.status == 404, told.body
    wait_quiet(service)
    return ready, gone


def _told(client: Client, instance_id: str) -> Answer:
    """Return the first answer that speaks of no work under way."""
    while (answer := client.instance(instance_id)).status == 200:
        if answer.json()["status"] not in _UNDER_WAY:
            break
        client.close()  # the service closes an idle connection; the next request opens one
        time.sleep(_EVERY)  # as the client does, whatever happens meanwhile
    return answer
