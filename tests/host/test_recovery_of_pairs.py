"""Recovery to a point in time of pairs, on a host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from openrdb.config import RecoveryOptions
from openrdb.engines.postgresql import session
from openrdb.engines.postgresql.recovery import NAME
from openrdb.host.pairs import planned
from tests.support.agent import Agent
from tests.support.pairs import PROTECTED, Pair
from tests.support.place import new_place
from tests.support.service import port_of_server, wait_until

pytestmark = pytest.mark.slow

FIRST_PORT = 60


@pytest.fixture
def pair(cache: Path, worker_id: str) -> Iterator[Pair]:
    """One that can be recovered."""
    place = new_place()
    place.mkdir(mode=0o755)
    directory, data = place / "recovery", place / "data"
    for made in (directory, data):
        made.mkdir(mode=0o755)
    options = RecoveryOptions.model_validate({"directory": directory, "round": 0.5})
    with Agent(data, cache, recovery=options) as agent:
        ports = [port_of_server(worker_id, FIRST_PORT + n) for n in range(3)]
        opened = Pair(agent, "PostgreSQL-18", ports)
        opened.specs = [replace(one, recovery=True, generation=2) for one in opened.specs]
        for spec in opened.specs:
            agent.host.ensure_recovery(spec)
        yield opened
    shutil.rmtree(place, ignore_errors=True)


def keeps(pair: Pair, node_id: UUID) -> bool | None:
    """Whether a node keeps WAL for a receiver; None where it does not answer."""
    host = pair.agent.host
    query = "SELECT FROM pg_replication_slots WHERE slot_name = %s"
    try:
        with session.connect(host._engine_node(host._record(node_id)), "postgres") as superuser:
            return superuser.execute(query, [NAME]).fetchone() is not None
    except psycopg.Error:
        return None


def test_a_former_primary_keeps_nothing_for_a_receiver(pair: Pair) -> None:
    """It filled its volume up to the bound with what nobody read."""
    for _ in range(3):
        pair.wait_protected()
        before = pair.record
        wait_until(lambda before=before: keeps(pair, before.primary) is True, PROTECTED)
        assert planned.switch_over(pair.keeper)
        assert pair.record.primary == before.standby
        wait_until(lambda before=before: keeps(pair, before.primary) is False, PROTECTED)
