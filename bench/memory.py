"""Memory of an idle instance (db-dev-s) with its load balancer, as PSS.

Ten instances on an otherwise idle control plane, each after one session. PSS counts what processes
share in equal parts, so its sum is what they really take. The baseline is the engine by hand with
its own defaults, without a balancer, ten of them after one session each.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.engines import Engine
from bench.report import Figure, Goal
from bench.served import BY_HAND_PORTS, agent, create_many, pss, served, wait_quiet
from bench.setup import Setup

_COUNT = 10
_GOALS = {"PostgreSQL": Goal(25), "MySQL": Goal(250)}


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _figures(setup, engine)


def _figures(setup: Setup, engine: Engine) -> Iterator[Figure]:
    whole, engines, balancers = [], [], []
    with served(setup, engine=engine.version) as service:
        created = create_many(service, _COUNT, 2, engine.version)
        for one in created:
            engine.query(one.address)
        wait_quiet(service)
        for one in created:
            sizes = {p: pss(p) for p in service.processes(one.instance["id"])}
            of_balancer = [size for p, size in sizes.items() if p.name() == "haproxy"]
            assert len(of_balancer) == 1, "one balancer an instance"
            assert len(sizes) > 1, "and the engine's processes"
            whole.append(sum(sizes.values()))
            balancers.append(sum(of_balancer))
            engines.append(whole[-1] - balancers[-1])
        of_agent = pss(agent(service))
    with engine.by_hand() as hand:
        ports = BY_HAND_PORTS[:_COUNT]
        for port in ports:
            hand.create(port)
        plain = [sum(map(pss, hand.processes(port))) for port in ports]
    by_hand = Figure(f"{engine.name} by hand, no balancer", plain, "MiB")
    goal = _GOALS[engine.name]
    yield Figure(f"{engine.name}: idle instance with its balancer", whole, "MiB", by_hand, goal)
    yield Figure("… its engine", engines, "MiB", by_hand)
    yield Figure("… its HAProxy", balancers, "MiB")
    yield Figure(f"agent with {_COUNT} instances", [of_agent], "MiB")
