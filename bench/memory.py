"""Memory of an idle instance with its load balancer, as PSS.

Ten instances on an otherwise idle control plane, each after one session. PSS counts what processes
share in equal parts, so its sum is what they really take. The baseline is PostgreSQL by hand with
its own defaults, without a balancer, ten of them after one session each.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.by_hand import ByHand
from bench.report import Figure, Goal
from bench.served import (
    BY_HAND_PORTS,
    create_many,
    pss,
    query,
    served,
    supervisor,
    wait_quiet,
)
from bench.setup import Setup

_COUNT = 10


def run(setup: Setup) -> Iterator[Figure]:
    whole, engines, balancers = [], [], []
    with served(setup) as service:
        created = create_many(service, _COUNT, at_once=2)
        for one in created:
            query(one.address)
        wait_quiet(service)
        for one in created:
            sizes = {p: pss(p) for p in service.processes(one.instance["id"])}
            of_balancer = [size for p, size in sizes.items() if p.name() == "haproxy"]
            assert len(of_balancer) == 1, "one balancer an instance"
            assert len(sizes) > 5, "a postmaster and its auxiliary processes"
            whole.append(sum(sizes.values()))
            balancers.append(sum(of_balancer))
            engines.append(whole[-1] - balancers[-1])
        of_supervisor = pss(supervisor(service))
    with ByHand(setup.bundle) as hand:
        ports = BY_HAND_PORTS[:_COUNT]
        for port in ports:
            hand.create(port, sync=False)
        plain = [sum(map(pss, hand.processes(port))) for port in ports]
    by_hand = Figure("by hand, no balancer", plain, "MiB")
    yield Figure("idle instance with its balancer", whole, "MiB", by_hand, Goal(25))
    yield Figure("… its PostgreSQL", engines, "MiB", by_hand)
    yield Figure("… its HAProxy", balancers, "MiB")
    yield Figure("supervisord with 10 instances", [of_supervisor], "MiB")
