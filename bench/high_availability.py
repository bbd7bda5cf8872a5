"""How long writes wait for a failure of a highly available instance, and what it costs to have one.

One client inserts a row a transaction, and opens a session again as soon as its own ends. "Writes wait"
is the longest time between two acknowledgements, until the pair is protected again; all rows that were
acknowledged are there. "Hung" is every process of the primary stopped by a signal, and for the restart
nobody has to fail. The baseline is an instance of one node in the same run, to which the same happens.
Then enabling high availability and creating a read replica, from the request until `ready`, with 1 GB
against an empty instance; single-row inserts, autocommit, against an instance of one node, in turn; and
the memory of idle pairs, as PSS with their balancers, beyond that of instances of one node.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from scaleway.rdb.v1 import Instance
from tests.support.service import Service, ready, wait_until

from bench.engines import Engine
from bench.failures import Victim, Waited
from bench.report import Figure, Goal
from bench.served import Client, pss, served, wait_quiet
from bench.setup import Setup

_SIZE = 1000
_VOLUME: dict[str, Any] = {"volume_type": "sbs_5k", "volume_size": 10 * 10**9}
_STEADY = 6.5
"""Seconds between two failures of a pair: a server is killed at every second one, and one that ends
within ten seconds of its start is taken for one that fails to start."""
_STEADY_ALONE = 11.0
_MEMORY = Goal(1.2, "ratio")


@dataclass(frozen=True)
class _Failure:
    what: str
    happens: Callable[[Victim], None]
    goals: dict[str, Goal]
    worst: dict[str, Goal]
    times: tuple[int, int]
    alone: tuple[int, int]
    """How often it happens to the instance of one node."""


_FAILURES = (
    _Failure(
        "kill -9 of the primary",
        Victim.kill,
        {"PostgreSQL": Goal(0.5), "MySQL": Goal(1.0)},
        {"PostgreSQL": Goal(1.0), "MySQL": Goal(2.0)},
        (50, 3),
        (10, 1),
    ),
    _Failure(
        "restart by the API",
        Victim.restart,
        {"PostgreSQL": Goal(0.5), "MySQL": Goal(0.5)},
        {},
        (10, 1),
        (10, 1),
    ),
    _Failure(
        "hung primary",
        Victim.freeze,
        {"PostgreSQL": Goal(3.0), "MySQL": Goal(3.0)},
        {},
        (10, 1),
        (2, 1),
    ),
)


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _failures(setup, engine)
    for engine in setup.engines:
        yield from _rates(setup, engine)
        yield from _memory(setup, engine)
        yield from _copies(setup, engine)


def _failures(setup: Setup, engine: Engine) -> Iterator[Figure]:
    with served(setup, engine=engine.version) as service:
        alone = Victim(service, service.create(engine.version, name="alone"))
        pair = Victim(service, service.create(engine.version, name="pair", is_ha_cluster=True))
        for failure in _FAILURES:
            what = f"{engine.name}: {failure.what}"
            times, times_alone = setup.times(*failure.times), setup.times(*failure.alone)
            single = [_after(_STEADY_ALONE, alone, failure).writes for _ in range(times_alone)]
            waited = [_after(_STEADY, pair, failure) for _ in range(times)]
            writes = [one.writes for one in waited]
            baseline = Figure("the same to one node", single, "s")
            goal = failure.goals[engine.name]
            yield Figure(f"{what}: writes wait", writes, "s", baseline, goal)
            if failure.worst:
                goal = failure.worst[engine.name]
                yield Figure(f"… the longest of {times}", [max(writes)], "s", goal=goal)
            yield Figure("… until protected again", [one.until_well for one in waited], "s")


def _after(seconds: float, victim: Victim, failure: _Failure) -> Waited:
    """Let something happen to servers that have run for some time."""
    time.sleep(seconds)
    return victim.suffer(failure.happens)


def _rates(setup: Setup, engine: Engine) -> Iterator[Figure]:
    with served(setup, engine=engine.version) as service:
        ways = {
            name: _address(service.create(engine.version, name=name, is_ha_cluster=is_pair))
            for name, is_pair in (("one node", False), ("pair", True))
        }
        for address in ways.values():
            engine.prepare_loads(address)
        for load in engine.inserts:
            rates = defaultdict[str, list[float]](list)
            order = list(ways)
            for _ in range(setup.times(5, 2)):
                for way in order:
                    rates[way].append(engine.rate(load, ways[way], setup.times(8, 3)))
                order.reverse()
            baseline = Figure("one node", rates["one node"], "TPS")
            what = f"{engine.name}: {load}"
            yield Figure(what, rates["pair"], "TPS", baseline, in_turn=True)


def _memory(setup: Setup, engine: Engine) -> Iterator[Figure]:
    count = setup.times(3, 1)
    with served(setup, engine=engine.version) as service:
        alone, pairs = (
            [
                service.create(engine.version, name=f"{name}-{n}", is_ha_cluster=name == "pair")
                for n in range(count)
            ]
            for name in ("alone", "pair")
        )
        for one in (*alone, *pairs):
            engine.query(_address(one))
        wait_quiet(service)
        nodes = [_sizes(service, one, with_balancer=False) for one in alone]
        whole = [_sizes(service, one) for one in alone]
        more = [_sizes(service, one) - sum(whole) / count for one in pairs]
    node = Figure("a node", nodes, "MiB")
    yield Figure(f"{engine.name}: memory that a standby adds", more, "MiB", node, _MEMORY)


def _sizes(service: Service, instance: Instance, *, with_balancer: bool = True) -> float:
    """MiB of an instance's processes."""
    processes = service.processes(instance.id)
    return sum(pss(one) for one in processes if with_balancer or one.name() != "haproxy")


def _copies(setup: Setup, engine: Engine) -> Iterator[Figure]:
    with served(setup, engine=engine.version) as service:
        source = service.create(engine.version, name="source", **_VOLUME)
        times = setup.times(3, 1)
        empty = [_of_clone(service, source) for _ in range(times)]
        engine.fill(_address(source), setup.times(_SIZE, 50))
        wait_quiet(service)
        filled = [_of_clone(service, source) for _ in range(times)]
    what = f"{engine.name}, {setup.times(_SIZE, 50):,} MB"
    for index, way in enumerate(("high availability is enabled", "a read replica is created")):
        baseline = Figure("an empty instance", [one[index] for one in empty], "s")
        yield Figure(f"{what}: {way}", [one[index] for one in filled], "s", baseline)


def _of_clone(service: Service, source: Instance) -> tuple[float, float]:
    """Seconds of enabling high availability on a clone, and of a replica of the source."""
    sdk = service.sdk()
    cloned = ready(sdk, sdk.clone_instance(instance_id=source.id, name="clone").id)
    with closing(Client(service)) as client:
        wait_quiet(service)
        started = time.perf_counter()
        client.at(cloned.id, "POST", "upgrade", {"enable_ha": True})
        client.wait_ready(f"/rdb/v1/regions/fr-par/instances/{cloned.id}")
        enabled = time.perf_counter() - started
        client.delete(cloned.id)
        wait_quiet(service)
        client.close()
        replicas, started = "/rdb/v1/regions/fr-par/read-replicas", time.perf_counter()
        made = client.request("POST", replicas, {"instance_id": source.id}).json()["id"]
        client.wait_ready(f"{replicas}/{made}")
        created = time.perf_counter() - started
        client.request("DELETE", f"{replicas}/{made}")
        wait_until(lambda: client.request("GET", f"{replicas}/{made}").status == 404)
    return enabled, created


def _address(instance: Instance) -> tuple[str, int]:
    endpoint = instance.endpoints[0]
    return str(endpoint.ip), int(endpoint.port)
