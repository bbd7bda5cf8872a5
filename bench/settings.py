"""Settings: from the request until the instance is `ready` with them in force.

Hot ones without, cold ones by a restart, against the same by hand: the file changed and the server
signalled, the setting made by SQL, or the server stopped and started; then a session that sees the
value. Both take turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

from bench.engines import Engine
from bench.report import Figure
from bench.served import BY_HAND_PORTS, Client, create_many, served, wait_quiet
from bench.setup import Setup


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _figures(setup, engine)


def _figures(setup: Setup, engine: Engine) -> Iterator[Figure]:
    ours: dict[str, list[float]] = defaultdict(list)
    by_hand: dict[str, list[float]] = defaultdict(list)
    port = BY_HAND_PORTS[0]
    with served(setup, engine=engine.version) as service, engine.by_hand() as hand:
        hand.create(port)
        (created,) = create_many(service, 1, 1, engine.version)
        instance_id = created.instance["id"]
        wait_quiet(service)
        for number in range(setup.times(16, 4)):
            value = str(60 + number)
            for kind, setting in engine.settings.items():
                body = {"settings": [{"name": setting.name, "value": value}]}
                with closing(Client(service)) as client:
                    ours[kind].append(client.change(instance_id, "POST", "settings", body))
                shown, restart = value + setting.unit, kind == "cold"
                by_hand[kind].append(hand.set(port, setting.name, shown, restart=restart))
    for name, way in (("hot", hand.hot), ("cold", "restart")):
        against = Figure(f"by hand: {way}, next session", by_hand[name][1:])
        what = f"{engine.name}: a {name} setting → ready"
        yield Figure(what, ours[name][1:], baseline=against, in_turn=True)
