"""Read replicas of MySQL whose users hold locks that what comes from the primary needs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pymysql
import pytest

from openrdb.system.bundle import Bundle
from tests.support.mysql_pairs import Member, in_background, running, until

CHANGE, WRITE = "ALTER TABLE rdb.held ADD COLUMN more int", "INSERT INTO rdb.held (n) VALUES (2)"
LOCKS = {
    "global": (["FLUSH TABLES WITH READ LOCK"], WRITE),
    "tables": (["LOCK TABLES rdb.held READ"], WRITE),
    "definition": (["BEGIN", "SELECT * FROM rdb.held"], CHANGE),
    "rows": (["BEGIN", "SELECT * FROM rdb.held FOR SHARE"], "UPDATE rdb.held SET n = 3"),
}
PREPARED = ["XA START 'x'", "SELECT * FROM rdb.held", "XA END 'x'", "XA PREPARE 'x'"]


@pytest.fixture(scope="module")
def servers(mysql_bundle: Bundle) -> Iterator[tuple[Member, Member]]:
    """A primary, and its replica."""
    with running(mysql_bundle) as make:
        primary = make()
        replica = make(primary, "replica")
        replica.wait_streaming()
        yield primary, replica


@pytest.fixture
def primary(servers: tuple[Member, Member]) -> Iterator[Member]:
    primary, replica = servers
    with primary.session() as run:
        run("CREATE TABLE rdb.held (n int PRIMARY KEY)")
        run("INSERT INTO rdb.held VALUES (1)")
    until(lambda: has_all(primary, replica))
    yield primary
    with primary.session() as run:
        run("DROP TABLE rdb.held")
    until(lambda: has_all(primary, replica))


def has_all(primary: Member, replica: Member) -> bool:
    executed = str(primary.ask("SELECT @@gtid_executed"))
    return bool(replica.ask("SELECT GTID_SUBSET(%s, @@gtid_executed)", executed))


def is_held(replica: Member) -> bool:
    time.sleep(0.2)  # what the server says of rows is as old as that, if it is asked more often
    return replica.replication.following().held_at is not None


@pytest.mark.parametrize("kind", LOCKS)
def test_a_replica_that_users_hold_says_so_and_is_released(
    primary: Member, servers: tuple[Member, Member], kind: str
) -> None:
    _, replica = servers
    locking, change = LOCKS[kind]
    with replica.session() as hold:
        for statement in locking:
            hold(statement)
        assert not is_held(replica)
        with primary.session() as run:
            run(change)
        until(lambda: is_held(replica))
        assert replica.replication.following().streams
        replica.replication.release()
        until(lambda: has_all(primary, replica))
        assert not is_held(replica)
        with pytest.raises(pymysql.err.MySQLError):
            hold("SELECT 1")


def test_a_flush_of_a_user_holds_a_replica(primary: Member, servers: tuple[Member, Member]) -> None:
    """It waits for another user's query, and what is applied for the flush."""
    _, replica = servers
    with replica.session() as query, replica.session() as flush, replica.session() as look:
        shows = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = %s"
        with in_background(lambda: query("SELECT SLEEP(600) FROM rdb.held")):
            until(lambda: look(shows, "User sleep") == [(1,)])
            with in_background(lambda: flush("FLUSH LOCAL TABLES")):
                until(lambda: look(shows, "Waiting for table flush") == [(1,)])
                with primary.session() as run:
                    run(WRITE)
                until(lambda: is_held(replica))
                replica.replication.release()
    until(lambda: has_all(primary, replica))


def test_a_prepared_transaction_ends_with_the_server(
    primary: Member, servers: tuple[Member, Member]
) -> None:
    """It has no session any more, which could be ended."""
    _, replica = servers
    with replica.session() as hold:
        for statement in PREPARED:
            hold(statement)
    with primary.session() as run:
        run(CHANGE)
    until(lambda: is_held(replica))
    replica.replication.release()
    assert is_held(replica)
    replica.kill()
    replica.run()
    replica.follow(primary)
    until(lambda: has_all(primary, replica))


def test_nobody_is_released_from_the_work_of_a_replica(
    primary: Member, servers: tuple[Member, Member]
) -> None:
    """What it receives and applies by goes on."""
    _, replica = servers
    before = replica.status()["Source_UUID"]
    replica.replication.release()
    with primary.session() as run:
        run(WRITE)
    until(lambda: has_all(primary, replica))
    now = replica.status()
    assert (now["Source_UUID"], now["Replica_IO_Running"]) == (before, "Yes")
