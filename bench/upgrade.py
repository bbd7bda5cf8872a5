"""How long writes wait for an upgrade to another major version, and how long reads.

Some 1 GB of PostgreSQL, to the next version. One client writes a row after the other by the endpoint,
which the new instance takes over, and another one reads; each opens a session again as soon as its own
ends. Measured is the longest time between two answers, and all rows that were acknowledged are there.
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
_GOAL = Goal(1.0)


def run(setup: Setup) -> Iterator[Figure]:
    megabytes = setup.times(1000, 50)
    bundles = Bundles(setup.cache)
    engine, new = PostgreSQL(bundles.find(PostgreSQL.version)), bundles.find(_NEW)
    writes, reads, by_hand = [], [], []
    for number in range(setup.times(3, 1)):
        with served(setup) as service:
            (created,) = create_many(service, 1, 1)
            engine.fill(created.address, megabytes)
            wait_quiet(service)
            written, read = _upgraded(service, created.instance["id"])
        writes.append(written)
        reads.append(read)
        by_hand.append(engine.upgrade_by_hand(BY_HAND_PORTS[number], new, megabytes))
    what = f"{PostgreSQL.version} to {_NEW}, {megabytes} MB"
    bare = Figure("by hand: stop, cp, pg_upgrade, start", by_hand, "s")
    yield Figure(f"{what}: writes wait", writes, "s", bare, _GOAL, in_turn=True)
    yield Figure(f"{what}: reads wait", reads, "s", bare, in_turn=True)


def _upgraded(service: Service, instance_id: str) -> tuple[float, float]:
    """Upgrade an instance; return the most seconds that a writer and a reader waited."""
    sdk = service.sdk()
    old = ready(sdk, instance_id)
    with service.connection(old) as session:
        session.execute(TABLE)
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
