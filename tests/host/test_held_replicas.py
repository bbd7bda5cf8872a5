"""Read replicas of MySQL that their users keep from applying what the primary writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import pymysql
import pytest

from openrdb.engines import replication_of
from openrdb.engines.mysql.session import connect
from openrdb.engines.mysql.sql import rows
from openrdb.host import replicas
from tests.support.agent import Agent, Node
from tests.support.place import new_place
from tests.support.service import port_of_server, wait_until

pytestmark = [pytest.mark.slow]

FIRST_PORT = 70
FOLLOWING = 120.0
LOCK = ["FLUSH TABLES WITH READ LOCK"]
PREPARED = ["XA START 'x'", "SELECT * FROM numbers", "XA END 'x'", "XA PREPARE 'x'"]
"""A transaction that no session has any more, which holds the table's definition."""


@pytest.fixture
def nodes(cache: Path, worker_id: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Node]]:
    """An instance's only one, and its replica."""
    monkeypatch.setattr(replicas, "_HELD", 1.0)
    place = new_place()
    place.mkdir(mode=0o755)
    ports = [port_of_server(worker_id, FIRST_PORT + number) for number in range(2)]
    with Agent(place, cache) as agent:
        node = agent.node("MySQL-9", ports[0], 5 * 10**9)
        with node.session() as tenant:
            tenant.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
        replica = replace(node.spec, node_id=uuid4(), port=ports[1], role="replica")
        wait_until(lambda: agent.host.ensure_replica(replica, 5.0), FOLLOWING)
        agent.route(replica)
        made = Node(agent, replica)
        wait_until(lambda: shows(made, "SELECT * FROM numbers", []))
        yield [node, made]
    shutil.rmtree(place, ignore_errors=True)


def shows(node: Node, query: str, expected: list[tuple[object, ...]]) -> bool:
    try:
        with node.session() as tenant:
            return list(tenant.execute(query)) == expected
    except pymysql.MySQLError:
        return False


@pytest.mark.parametrize("holding", [LOCK, PREPARED], ids=["lock", "prepared"])
def test_nobody_holds_a_replica_for_long(nodes: list[Node], holding: list[str]) -> None:
    """It stayed as it was, and was shown as healthy."""
    node, replica = nodes
    pid = replica.pid
    with replica.connect() as hold:
        for statement in holding:
            hold.execute(statement)
        with node.session() as tenant:
            tenant.execute("ALTER TABLE numbers ADD COLUMN more int")
            tenant.execute("INSERT INTO numbers VALUES (1, 1)")
        wait_until(lambda: shows(replica, "SELECT more FROM numbers", [(1,)]), FOLLOWING)
        with pytest.raises(pymysql.MySQLError):
            hold.execute("SELECT 1")
    is_same = replica.pid == pid
    assert is_same == (holding == LOCK)
    wait_until(lambda: replica.agent.host._replicas[replica.spec.node_id].follows, FOLLOWING)


@pytest.mark.parametrize("holding", [LOCK, PREPARED], ids=["lock", "prepared"])
def test_a_replica_that_is_held_can_be_promoted(
    nodes: list[Node], holding: list[str], monkeypatch: pytest.MonkeyPatch, worker_id: str
) -> None:
    monkeypatch.setattr(replicas, "_HELD", 3600.0)
    node, replica = nodes
    host = replica.agent.host
    with replica.connect() as hold:
        for statement in holding:
            hold.execute(statement)
        with node.session() as tenant:
            tenant.execute("ALTER TABLE numbers ADD COLUMN more int")
            tenant.execute("INSERT INTO numbers VALUES (1, 1)")
        own = replication_of(host._server(host._record(replica.spec.node_id)))
        wait_until(lambda: own.following().held_at is not None)
        port = port_of_server(worker_id, FIRST_PORT + 2)
        ids = {"instance_id": uuid4(), "node_id": uuid4(), "uid": replica.agent.account()}
        promoted = replace(node.spec, port=port, **ids)
        host.ensure_configuration(promoted)
        made = partial(host.ensure_volume_of_replica, promoted, replica.spec, 5.0)
        wait_until(made, FOLLOWING)
    host.ensure_accepting(promoted)
    host.ensure_running(promoted)
    with connect(host._engine_node(host._record(promoted.node_id))) as superuser:
        assert rows(superuser, "SELECT more FROM rdb.numbers") == [(1,)]


def test_a_replica_is_told_which_events_do_not_run(nodes: list[Node]) -> None:
    """A promotion enabled what users had disabled: replication tells of all as disabled."""
    node, replica = nodes
    with node.session() as tenant:
        tenant.execute("CREATE EVENT idle ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1")
    host = replica.agent.host
    told = "SELECT event_name FROM mysql._rdb_idle_events"

    def is_told() -> bool:
        with connect(host._engine_node(host._record(replica.spec.node_id))) as superuser:
            try:
                return rows(superuser, told) == [("idle",)]
            except pymysql.MySQLError:
                return False

    wait_until(is_told)
