"""How long writes wait for an upgrade to another major version, and how long reads.

Some 1 GB of PostgreSQL, to the next version. One client writes a row after the other by the endpoint,
which the new instance takes over, and another one reads; each opens a session again as soon as its own
ends. Measured is the longest time between two answers, and all rows that were acknowledged are there:
once where the new instance catches up by logical replication, and once where it cannot.
The baseline is the same by hand: stop, cp, pg_upgrade, start, until a query is answered.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.clients import TABLE, Reader, Writer
from tests.support.service import Service, ready, wait_until

from bench.engines import PostgreSQL
from bench.report import Figure, Goal
from bench.served import BY_HAND_PORTS, create_many, served, wait_quiet
from bench.setup import Setup
from openrdb.host.bundles.cache import Bundles

_NEW = "PostgreSQL-18"
_GOAL, _GOAL_FOLLOWED = Goal(5.0), Goal(1.0)


def run(setup: Setup) -> Iterator[Figure]:
    megabytes = setup.times(1000, 50)
    bundles = Bundles(setup.cache)
    engine, new = PostgreSQL(bundles.find(PostgreSQL.version)), bundles.find(_NEW)
    writes, reads, followed, by_hand = [], [], [], []
    for number in range(setup.times(3, 1)):
        with served(setup) as service:
            (created, other) = create_many(service, 2, 1)
            for one in (created, other):
                engine.fill(one.address, megabytes)
            _let_follow(service, other.instance["id"])
            wait_quiet(service)
            written, read = _upgraded(service, created.instance["id"])
            followed.append(_upgraded(service, other.instance["id"])[0])
        writes.append(written)
        reads.append(read)
        by_hand.append(engine.upgrade_by_hand(BY_HAND_PORTS[number], new, megabytes))
    what = f"{PostgreSQL.version} to {_NEW}, {megabytes} MB"
    bare = Figure("by hand: stop, cp, pg_upgrade, start", by_hand, "s")
    yield Figure(f"{what}: writes wait", writes, "s", bare, _GOAL, in_turn=True)
    yield Figure(
        f"{what}: writes wait, caught up", followed, "s", bare, _GOAL_FOLLOWED, in_turn=True
    )
    yield Figure(f"{what}: reads wait", reads, "s", bare, in_turn=True)


def _let_follow(service: Service, instance_id: str) -> None:
    """Bring about what it takes that an upgraded copy can catch up with an instance."""
    with service.connection(ready(service.sdk(), instance_id)) as session:
        session.execute("ALTER TABLE pgbench_history ADD PRIMARY KEY (tid, bid, aid, mtime)")


def _upgraded(service: Service, instance_id: str) -> tuple[float, float]:
    """Upgrade an instance; return the most seconds that a writer and a reader waited."""
    sdk = service.sdk()
    old = ready(sdk, instance_id)
    with service.connection(old) as session:
        session.execute(TABLE)
        session.execute("ALTER TABLE written ADD PRIMARY KEY (n)")
    with Writer(service, old) as writer, Reader(service, old) as reader:
        newest = old.upgradable_version[-1]
        assert newest.version == _NEW.rpartition("-")[2]
        made = sdk.upgrade_instance(instance_id=old.id, upgradable_version_id=newest.id)
        new = ready(sdk, made.id)
        done = writer.done
        wait_until(lambda: writer.done > done)
        wait_until(lambda: reader.answered[int(newest.version)])
    with service.connection(new) as session:
        assert writer.found(session) == writer.done
    return writer.longest, reader.longest
