"""Transactions a second through the load balancers, against directly to the server.

PostgreSQL by pgbench of the same bundle, `-j 1`, scale 10; MySQL by its bundle's `mysql` clients, each
with a number of single statements on a table of 100,000 rows, their connecting included. TLS required;
clients, balancer and server share this machine's cores. All ways take turns, and change which is first
each round. nftables only as root, in a network of the bench's own, and there only while it is its turn:
the kernel tracks all sessions then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from tests.support.network import own_network

from bench.engines import Engine
from bench.report import Figure, Goal
from bench.served import PORTS, Client, served, state, wait_quiet
from bench.setup import Setup
from openrdb.host.balancer import Target
from openrdb.host.balancer.nftables import Nftables, why_unusable
from openrdb.system.layout import Layout

_GOALS = {
    "HAProxy": Goal(0.75, of="ratio", at_least=True),
    "nftables": Goal(0.95, of="ratio", at_least=True),
}
_Way = Callable[[], AbstractContextManager[tuple[str, int]]]
"""What makes a way to the server, for as long as it is measured, and says its address."""


def run(setup: Setup) -> Iterator[Figure]:
    why = why_unusable("127.0.0.1")
    if why:
        print(f"   nftables is not measured: {why}")
    with nullcontext() if why else own_network():
        for engine in setup.engines:
            yield from _figures(setup, engine, with_nftables=not why)


def _figures(setup: Setup, engine: Engine, *, with_nftables: bool) -> Iterator[Figure]:
    with (
        served(setup, engine=engine.version) as service,
        closing(Client(service)) as client,
    ):
        created = client.create(engine=engine.version)
        instance_id = UUID(created.instance["id"]).hex
        ((node_port,),) = state(
            service, "SELECT port FROM nodes WHERE instance_id = ?", instance_id
        )
        node = ("127.0.0.1", node_port)
        ways: dict[str, _Way] = {
            "HAProxy": partial(nullcontext, created.address),
            "direct": partial(nullcontext, node),
        }
        if with_nftables:
            ways["nftables"] = partial(_led_by_nftables, service.data_dir, node)
        engine.prepare_loads(node)
        wait_quiet(service)
        for load in engine.loads:
            rates: dict[str, list[float]] = {way: [] for way in ways}
            order = list(ways)
            for _ in range(setup.times(5, 3)):
                for way in order:
                    with ways[way]() as address:
                        rates[way].append(engine.rate(load, address, setup.times(8, 3)))
                order.reverse()
            direct = Figure("direct", rates.pop("direct"), "TPS")
            for way, measured in rates.items():
                what = f"{engine.name} by {way}: {load}"
                goal = _GOALS[way] if load.aimed else None
                yield Figure(what, measured, "TPS", direct, goal, in_turn=True)


@contextmanager
def _led_by_nftables(data_dir: Path, node: tuple[str, int]) -> Iterator[tuple[str, int]]:
    nftables = Nftables(Layout(data_dir))
    listen = ("127.0.0.1", PORTS[1][0])
    nftables.ensure(Target(uuid4(), uuid4(), listen, node, 100, None, ("127.0.0.0/8",)))
    yield listen
    nftables.clear()
