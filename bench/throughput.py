"""Transactions a second through the load balancers, against directly to the server.

pgbench of the same bundle, `-j 1`, TLS required, scale 10; client, balancer and server share this
machine's cores. All ways take turns, and change which is first each round. nftables only as root, in a
network of the bench's own, and there only while it is its turn: the kernel tracks all sessions then.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from tests.network import own_network
from tests.service import PASSWORD

from bench.report import Figure, Goal
from bench.served import PORTS, Client, served, state, wait_quiet
from bench.setup import Setup
from openrdb.host.balancer import Target
from openrdb.host.balancer.nftables import Nftables, why_unusable
from openrdb.host.layout import Layout

_SCALE = 10
_GOALS = {
    "HAProxy": Goal(0.75, of="ratio", at_least=True),
    "nftables": Goal(0.95, of="ratio", at_least=True),
}
_KINDS = (
    ("pgbench -S", ["-S"], 1, True),
    ("pgbench -S", ["-S"], 8, True),
    ("pgbench (TPC-B-like)", [], 8, False),
)
_Way = Callable[[], AbstractContextManager[tuple[str, int]]]
"""What makes a way to the server, for as long as it is measured, and says its address."""


def run(setup: Setup) -> Iterator[Figure]:
    why = why_unusable("127.0.0.1")
    if why:
        print(f"   nftables is not measured: {why}")
    with nullcontext() if why else own_network():
        yield from _figures(setup, with_nftables=not why)


def _figures(setup: Setup, *, with_nftables: bool) -> Iterator[Figure]:
    with served(setup) as service, closing(Client(service)) as client:
        created = client.create()
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
        _pgbench(setup, node, "-i", "-s", str(_SCALE), "-q")
        wait_quiet(service)
        seconds = ["-T", str(setup.times(8, 3))]
        for name, kind, clients, aimed in _KINDS:
            rates: dict[str, list[float]] = {way: [] for way in ways}
            order = list(ways)
            for _ in range(setup.times(5, 3)):
                for way in order:
                    options = [*kind, "-n", "-c", str(clients), "-j", "1", *seconds]
                    with ways[way]() as address:
                        rates[way].append(_rate(_pgbench(setup, address, *options)))
                order.reverse()
            direct = Figure("direct", rates.pop("direct"), "TPS")
            for way, measured in rates.items():
                what = f"{way}: {name}, {clients} client{'s' if clients > 1 else ''}"
                goal = _GOALS[way] if aimed else None
                yield Figure(what, measured, "TPS", direct, goal, in_turn=True)


@contextmanager
def _led_by_nftables(data_dir: Path, node: tuple[str, int]) -> Iterator[tuple[str, int]]:
    nftables = Nftables(Layout(data_dir))
    listen = ("127.0.0.1", PORTS[1][0])
    nftables.ensure(Target(uuid4(), uuid4(), listen, node, 100, None, ("127.0.0.0/8",)))
    yield listen
    nftables.clear()


def _pgbench(setup: Setup, address: tuple[str, int], *options: str) -> str:
    login = {"PGHOST": address[0], "PGPORT": str(address[1]), "PGUSER": "admin"}
    login |= {"PGPASSWORD": PASSWORD, "PGDATABASE": "rdb", "PGSSLMODE": "require"}
    done = subprocess.run(
        [setup.bundle.program("pgbench"), *options],
        env={"PATH": os.environ["PATH"]} | setup.bundle.environment | login,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rate(output: str) -> float:
    found = re.search(r"tps = ([\d.]+) \(without initial connection time\)", output)
    assert found is not None, output
    return float(found[1])
