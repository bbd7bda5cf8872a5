"""Settings: from the request until the instance is `ready` with them in force.

Hot ones by a reload, cold ones by a restart, against the same by hand: the file changed, the server
signalled or stopped and started, a session that sees the value. Both take turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

from bench.by_hand import ByHand
from bench.report import Figure
from bench.served import BY_HAND_PORTS, Client, served, wait_quiet
from bench.setup import Setup


def run(setup: Setup) -> Iterator[Figure]:
    ours: dict[str, list[float]] = defaultdict(list)
    by_hand: dict[str, list[float]] = defaultdict(list)
    port = BY_HAND_PORTS[0]
    with (
        served(setup) as service,
        closing(Client(service)) as client,
        ByHand(setup.bundle) as hand,
    ):
        hand.create(port)
        instance_id = client.create().instance["id"]
        wait_quiet(service)
        for number in range(setup.times(16, 4)):
            value = str(60 + number)
            for name, setting, shown in (
                ("hot", "work_mem", f"{value}MB"),
                ("cold", "max_connections", value),
            ):
                body = {"settings": [{"name": setting, "value": value}]}
                ours[name].append(client.change(instance_id, "POST", "settings", body))
                restart = name == "cold"
                by_hand[name].append(hand.set(port, setting, shown, restart=restart))
    for name, baseline in (("hot", "SIGHUP, next session"), ("cold", "restart, next session")):
        against = Figure(f"by hand: {baseline}", by_hand[name][1:])
        yield Figure(f"a {name} setting → ready", ours[name][1:], baseline=against, in_turn=True)
