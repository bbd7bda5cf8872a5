"""Transactions a second through the load balancer, against directly to the server.

pgbench of the same bundle, `-j 1`, TLS required, scale 10; client, balancer and server share this
machine's cores. Both ways take turns, and change which is first each round.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from uuid import UUID

from tests.service import PASSWORD

from bench.report import Figure, Goal
from bench.served import Client, served, state, wait_quiet
from bench.setup import Setup

_SCALE = 10
_GOAL = Goal(0.75, of="ratio", at_least=True)


def run(setup: Setup) -> Iterator[Figure]:
    with served(setup) as service, closing(Client(service)) as client:
        created = client.create()
        instance_id = UUID(created.instance["id"]).hex
        ((node_port,),) = state(
            service, "SELECT port FROM nodes WHERE instance_id = ?", instance_id
        )
        ways = {"balancer": created.address, "direct": ("127.0.0.1", node_port)}
        _pgbench(setup, ways["direct"], "-i", "-s", str(_SCALE), "-q")
        wait_quiet(service)
        seconds = setup.times(8, 3)
        for name, options, clients, goal in (
            ("pgbench -S", ["-S"], 1, _GOAL),
            ("pgbench -S", ["-S"], 8, _GOAL),
            ("pgbench (TPC-B-like)", [], 8, None),
        ):
            rates: dict[str, list[float]] = {way: [] for way in ways}
            order = list(ways)
            for _ in range(setup.times(5, 3)):
                for way in order:
                    run_options = [
                        *options,
                        "-n",
                        "-c",
                        str(clients),
                        "-j",
                        "1",
                        "-T",
                        str(seconds),
                    ]
                    rates[way].append(_rate(_pgbench(setup, ways[way], *run_options)))
                order.reverse()
            what = f"{name}, {clients} client{'s' if clients > 1 else ''}"
            direct = Figure("direct", rates["direct"], "TPS")
            yield Figure(what, rates["balancer"], "TPS", direct, goal, in_turn=True)


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
