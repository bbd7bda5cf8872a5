"""Pairs of MySQL: what was acknowledged is on both servers, and the standby takes over at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pymysql
import pytest

from openrdb import certificates
from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import gtids, writes
from openrdb.engines.mysql.reserved import REPLICATION
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import rows
from openrdb.errors import HostError
from openrdb.system.bundle import Bundle
from tests.support.mysql_pairs import Member, Pair, in_background, running, until
from tests.support.mysql_server import REPLICATION_SECRET

PROMOTIONS = 20


@pytest.fixture(scope="module")
def servers(mysql_bundle: Bundle) -> Iterator[Pair]:
    with running(mysql_bundle) as make:
        primary = make()
        yield Pair(primary, make(primary))


@pytest.fixture
def pair(servers: Pair) -> Pair:
    servers.mend()
    return servers


def test_nothing_acknowledged_is_lost_however_often_the_primary_is_killed(pair: Pair) -> None:
    for _ in range(PROMOTIONS):
        with pair.writing() as writer:
            writer.wait(50)
            pair.primary.kill()
            began = time.monotonic()
            pair.promote()
            took = time.monotonic() - began
        assert pair.lost(writer) == set()
        assert took < 10  # else it has waited for the rest of a transaction
        pair.mend()


def test_standby_opens_in_the_middle_of_a_transaction(pair: Pair) -> None:
    """Its source dies while it sends one: the applier would wait for the rest for a minute."""
    primary, standby = pair.primary, pair.standby
    with primary.superuser() as session, session.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS rdb.big")
        cursor.execute("CREATE TABLE rdb.big (id INT AUTO_INCREMENT PRIMARY KEY, t LONGBLOB)")
        until(lambda: standby.status()["Exec_Source_Log_Pos"] == primary.position())
        before = standby.status()["Relay_Log_Space"]
        cursor.execute("BEGIN")
        for _ in range(40):
            cursor.execute("INSERT INTO rdb.big (t) VALUES (REPEAT('x', 4000000))")
        with in_background(lambda: cursor.execute("COMMIT")):
            until(lambda: standby.status()["Relay_Log_Space"] > before + 10_000_000)
            primary.kill()
    began = time.monotonic()
    pair.promote()
    assert time.monotonic() - began < 10
    pair.primary.replication.settle()
    assert not pair.primary.status()  # it follows nobody any more
    with pair.primary.session() as run:
        # Nothing that the transaction had begun holds a lock.
        run("INSERT INTO rdb.big (id, t) VALUES (1, '') ON DUPLICATE KEY UPDATE t = ''")
    assert pair.primary.ask("SELECT COUNT(*) FROM rdb.big") in {1, 40}


def test_what_was_applied_is_on_disk_before_the_standby_opens(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host may lose power at once, when the pair's record names it as the primary already."""
    standby = pair.standby
    synced: dict[Path, int] = {}
    found: list[tuple[int, dict[Path, int]]] = []
    fdatasync, allow = os.fdatasync, writes.allow

    def seen(descriptor: int) -> None:
        fdatasync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced[path] = path.stat().st_size

    def asked(node: EngineNode, connection: Session) -> None:
        found.append((redo_log(standby, "Log flushed up to"), dict(synced)))
        allow(node, connection)

    with standby.superuser() as session, pair.writing() as writer:
        # Else it syncs every second by itself.
        session.query("SET GLOBAL innodb_flush_log_at_timeout = 2700")
        writer.wait(100)
    executed = pair.primary.ask("SELECT @@gtid_executed")
    assert standby.ask("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 60)", executed) == 0
    applied, (log, size) = redo_log(standby, "Log sequence number"), binary_log(standby)
    monkeypatch.setattr(os, "fdatasync", seen)
    monkeypatch.setattr(writes, "allow", asked)
    pair.primary.kill()
    pair.promote()
    ((flushed, then),) = found
    assert flushed >= applied
    assert then[log] >= size
    with standby.superuser() as session:
        session.query("SET GLOBAL innodb_flush_log_at_timeout = 1")


def redo_log(server: Member, which: str) -> int:
    """Return up to where the server has made its redo log, or put it on disk."""
    with server.superuser() as session:
        ((_, _, text),) = rows(session, "SHOW ENGINE INNODB STATUS")
    return int(str(text).partition(f"\n{which}")[2].split()[0])


def binary_log(server: Member) -> tuple[Path, int]:
    """Return the file that the server writes its binary log to, and its size."""
    with server.superuser() as session:
        name, size, *_ = rows(session, "SHOW BINARY LOGS")[-1]
    return server.paths.data / str(name), int(str(size))


def test_server_starts_inert(pair: Pair) -> None:
    primary = pair.primary
    primary.kill()
    primary.run()
    assert not primary.replication.is_open()
    assert not primary.replication.is_armed()
    statement = "CREATE TABLE rdb.refused (id INT)"
    with pytest.raises(pymysql.err.OperationalError, match="read-only"):
        primary.superuser().query(statement)
    with pytest.raises(pymysql.err.OperationalError, match="read-only"), primary.session() as run:
        run(statement)
    primary.replication.open()
    assert primary.replication.is_open()
    with primary.session() as run:
        run("CREATE TABLE rdb.accepted (id INT PRIMARY KEY)")
        run("DROP TABLE rdb.accepted")


def test_standby_that_ended_has_what_it_confirmed(pair: Pair) -> None:
    with pair.standby.superuser() as session, session.cursor() as cursor, pair.writing() as writer:
        writer.wait(20)
        cursor.execute("STOP REPLICA SQL_THREAD")
        writer.wait(200)
        pair.standby.kill()
        pair.primary.kill()
    pair.standby.become()
    pair.standby.run()
    pair.promote()
    assert pair.lost(writer) == set()


def test_commits_wait_for_the_standby_until_disarmed(pair: Pair) -> None:
    with pair.standby.frozen(), pair.writing() as writer:
        until(pair.primary.is_waiting)
        assert writer.acknowledged == []
        with pytest.raises(HostError):
            pair.standby.replication.following()
        pair.primary.replication.disarm()
        writer.wait(10)
        assert not pair.primary.replication.is_armed()
        with pytest.raises(HostError):
            pair.primary.replication.arm(pair.standby.node)
        writer.wait(10)
    with pair.writing() as writer:
        pair.primary.arm(pair.standby)
        assert pair.primary.replication.is_armed()
        writer.wait(10)
        pair.standby.kill()
        until(pair.primary.is_waiting)
        seen = len(writer.acknowledged)
        time.sleep(0.2)
        assert len(writer.acknowledged) == seen
        pair.primary.replication.disarm()
        writer.wait(10)


def test_standby_is_not_waited_for_unless_it_follows(pair: Pair) -> None:
    primary, standby = pair.primary, pair.standby
    primary.replication.disarm()
    with standby.superuser() as session, session.cursor() as cursor:
        cursor.execute("STOP REPLICA IO_THREAD")
        assert not primary.replication.arm(standby.node)
        assert not primary.replication.is_armed()
        cursor.execute("STOP REPLICA")
    standby.follow(primary)
    until(lambda: primary.replication.arm(standby.node))
    assert primary.replication.arm(standby.node)  # once more
    primary.replication.dismiss(standby.spec.node_id)
    until(lambda: primary.replication.arm(standby.node))


def test_probe(pair: Pair) -> None:
    probe = pair.primary.replication.probe()
    assert probe.look(5).answer == "written"
    with pair.standby.frozen():
        assert probe.look(5).answer == "written"
        with pair.writing() as writer:
            until(lambda: (found := probe.look(5)).unconfirmed > 0.5 and found.answer == "written")
            pair.primary.replication.disarm()
            writer.wait(1)
    with pair.primary.frozen():
        began = time.monotonic()
        assert probe.look(0.5).answer == "silent"
        assert probe.look(0.5).answer == "silent"
        assert time.monotonic() - began < 5
    assert until(lambda: probe.look(5).answer == "written")
    with pair.primary.session() as run:
        run("FLUSH TABLES WITH READ LOCK")
        for timeout in (0.5, 1, 3):
            assert probe.look(timeout).answer == "busy"
    found = probe.look(5)
    assert (found.answer, found.unconfirmed) == ("written", 0.0)
    pair.primary.kill()
    assert probe.look(1).answer == "silent"
    pair.primary.run()
    assert probe.look(5).answer == "refused"
    probe.close()
    probe.close()


def test_probe_is_not_seen(pair: Pair) -> None:
    pair.primary.replication.probe().look(5)
    written = pair.primary.ask("SELECT @@gtid_executed")
    pair.primary.replication.probe().look(5)
    assert pair.primary.ask("SELECT @@gtid_executed") == written
    with pair.primary.session() as run:
        tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE '_rdb%%'"
        assert run(tables) == [(0,)]
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            run("SELECT * FROM mysql._rdb_probe")


def test_server_with_a_commit_of_its_own_has_diverged(pair: Pair) -> None:
    pair.standby.kill()
    with pair.writing():
        until(pair.primary.is_waiting)
        pair.primary.kill()  # it recovers the commit that waits
    pair.standby.run()
    pair.promote()
    pair.standby.run()
    found = pair.rejoin()
    assert found.lost is not None
    assert "transactions that its upstream has not" in found.lost
    assert not pair.primary.replication.arm(pair.standby.node)
    assert not pair.primary.replication.is_armed()


def test_server_that_misses_what_was_purged_is_lost(pair: Pair) -> None:
    pair.primary.replication.disarm()
    pair.standby.stop()
    with pair.writing() as writer:
        writer.wait(5)

    def is_purged() -> bool:
        """A file that is being sent stays until the server notices that nobody receives it."""
        pair.primary.engine.release_space()
        with pair.primary.superuser() as session:
            return len(rows(session, "SHOW BINARY LOGS")) == 1

    until(is_purged)
    pair.standby.run()
    found = pair.rejoin()
    assert found.lost is not None
    assert "has removed" in found.lost


def test_upstream_must_have_a_certificate_of_the_instance(pair: Pair) -> None:
    standby = pair.standby
    pair.primary.replication.disarm()
    stranger = certificates.make_authority(uuid4(), "fr-par", ["127.0.0.1"])
    own = standby.paths.authority.read_text()
    standby.paths.authority.write_text(stranger.certificate)
    try:
        with standby.superuser() as session, session.cursor() as cursor:
            cursor.execute("STOP REPLICA")
            account = f"USER = '{REPLICATION[0]}' PASSWORD = '{REPLICATION_SECRET}'"
            cursor.execute(f"START REPLICA {account}")
            until(lambda: "certificate" in standby.status()["Last_IO_Error"])
    finally:
        standby.paths.authority.write_text(own)


def test_standby_that_cannot_read_what_it_confirmed_is_not_opened(pair: Pair) -> None:
    pair.standby.kill()
    pair.primary.kill()
    for path in pair.standby.paths.data.glob("relay.*"):
        path.unlink()
    pair.standby.become()
    pair.standby.run()
    with pytest.raises(HostError):
        pair.standby.replication.open()
    assert not pair.standby.replication.is_open()


def test_sets_of_transactions() -> None:
    one, other = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
    both = f"{one}:1-3:7:tag:1-2,\n{other}:5"
    assert gtids.count(both) == 7
    assert gtids.count("") == 0
    assert gtids.sources(both) == {one, other}
    assert gtids.union("", f" {one}:1", "") == f"{one}:1"
