"""What a standby costs: its making, the rate of writes, and memory.

Enabling high availability on a clone, and creating a read replica: from the request until `ready`,
with 30 MB and 1 GB, against an instance that is empty but for what an engine makes itself. Single-row
inserts, each a transaction, against an instance of one node, in turn, by endpoints. Memory (PSS) that
pairs have beyond instances of one node, balancers included; the baseline is the engine of such an
instance. "In use" is with a client that has written and stays: without one, nobody but a pair's own
probe has a session, and all that sessions share, code and pages of the catalogs, is counted as the
pair's.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psutil
from scaleway.rdb.v1 import Instance
from tests.support.programs import holder
from tests.support.service import Service, ready, wait_until

from bench.engines import Engine
from bench.failures import pair_record
from bench.report import Figure, Goal
from bench.served import Client, pss, served, wait_quiet
from bench.setup import Setup

_SIZES = (30, 1000)
_VOLUME: dict[str, Any] = {"volume_type": "sbs_5k", "volume_size": 10 * 10**9}
_WAYS = ("high availability is enabled", "a read replica is created")
_REPLICAS = "/rdb/v1/regions/fr-par/read-replicas"
_MEMORY = Goal(1.2, "ratio")


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _rates(setup, engine)
        yield from _memory(setup, engine)
        yield from _copies(setup, engine)


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
                    rates[way].append(engine.rate(load, ways[way], setup.times(5, 3)))
                order.reverse()
            baseline = Figure("one node", rates["one node"], "TPS")
            what = f"{engine.name}: {load}"
            yield Figure(what, rates["pair"], "TPS", baseline, in_turn=True)


def _memory(setup: Setup, engine: Engine) -> Iterator[Figure]:
    count = setup.times(3, 1)
    with served(setup, engine=engine.version) as service:

        def create(name: str, *, is_pair: bool) -> list[Instance]:
            named = [f"{name}-{number}" for number in range(count)]
            return [service.create(engine.version, name=n, is_ha_cluster=is_pair) for n in named]

        alone, pairs = create("alone", is_pair=False), create("pair", is_pair=True)
        with contextlib.ExitStack() as clients:
            for one in (*alone, *pairs):
                session = clients.enter_context(service.login(one).connect())
                session.execute("CREATE TABLE written (k bigint PRIMARY KEY)")
                session.execute("INSERT INTO written VALUES (1)")
            wait_quiet(service)
            yield from _added(service, f"{engine.name}: memory in use", alone, pairs, _MEMORY)
        wait_quiet(service)
        yield from _added(service, f"{engine.name}: memory when idle", alone, pairs)


def _added(
    service: Service,
    what: str,
    alone: list[Instance],
    pairs: list[Instance],
    goal: Goal | None = None,
) -> Iterator[Figure]:
    nodes = [_of_node(service, one, "") for one in alone]
    single = sum(_whole(service, one) for one in alone) / len(alone)
    more = [_whole(service, one) - single for one in pairs]
    standbys = [_of_node(service, one, _standby(service, one)) for one in pairs]
    node = Figure("the engine of one node", nodes, "MiB")
    yield Figure(f"{what}, a pair's more", more, "MiB", node, goal)
    yield Figure("… the standby itself", standbys, "MiB", node)


def _whole(service: Service, instance: Instance) -> float:
    return sum(map(pss, service.processes(instance.id)))


def _of_node(service: Service, instance: Instance, node: str) -> float:
    pid = holder(service, instance.id, f"node-{node}")
    assert pid is not None
    main = psutil.Process(pid)
    return sum(map(pss, (main, *main.children(recursive=True))))


def _standby(service: Service, instance: Instance) -> str:
    pair = pair_record(service, instance)
    return next(one for one in pair["members"] if one != pair["primary"])


def _copies(setup: Setup, engine: Engine) -> Iterator[Figure]:
    times = setup.times(3, 1)
    for megabytes in _SIZES[: setup.times(len(_SIZES), 1)]:
        with served(setup, engine=engine.version) as service:
            source = service.create(engine.version, name="source", **_VOLUME)
            empty = [_copied(service, source) for _ in range(times)]
            engine.fill(_address(source), megabytes)
            filled = [_copied(service, source) for _ in range(times)]
        for index, way in enumerate(_WAYS):
            baseline = Figure("an empty instance", [one[index] for one in empty], "s")
            what = f"{engine.name}, {megabytes:,} MB: {way}"
            yield Figure(what, [one[index] for one in filled], "s", baseline)


def _copied(service: Service, source: Instance) -> tuple[float, float]:
    """Seconds of each way; what they make is removed again."""
    sdk = service.sdk()
    cloned = ready(sdk, sdk.clone_instance(instance_id=source.id, name="clone").id)
    wait_quiet(service)
    with closing(Client(service)) as client:
        started = time.perf_counter()
        client.at(cloned.id, "POST", "upgrade", {"enable_ha": True})
        client.wait_ready(f"/rdb/v1/regions/fr-par/instances/{cloned.id}")
        enabled = time.perf_counter() - started
        client.delete(cloned.id)
    wait_quiet(service)
    with closing(Client(service)) as client:
        started = time.perf_counter()
        path = f"{_REPLICAS}/{_create_replica(client, source)}"
        client.wait_ready(path)
        created = time.perf_counter() - started
        client.request("DELETE", path)
        wait_until(lambda: client.request("GET", path).status == 404)
    return enabled, created


def _create_replica(client: Client, source: Instance) -> str:
    return str(client.request("POST", _REPLICAS, {"instance_id": source.id}).json()["id"])


def _address(instance: Instance) -> tuple[str, int]:
    endpoint = instance.endpoints[0]
    return str(endpoint.ip), int(endpoint.port)
