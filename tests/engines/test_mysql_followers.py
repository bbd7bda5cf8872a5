"""Planned changes of pairs of MySQL, their read replicas, and what tenants may not do to either."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
import pytest

from openrdb.engines import templates_of
from openrdb.engines.mysql import channel, gtids, semisync
from openrdb.engines.replication import Following
from openrdb.errors import HostError, PreconditionFailed
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from tests.support.mysql_pairs import Copier, Member, Pair, in_background, running, until
from tests.support.mysql_server import REPLICATION_SECRET, SECRET
from tests.support.service import PASSWORD

HANDOVERS = 4


@pytest.fixture(scope="module")
def servers(mysql_bundle: Bundle) -> Iterator[tuple[Pair, Member]]:
    """A pair, and a replica of its standby."""
    with running(mysql_bundle, "--general-log=ON", "--slow-query-log=ON") as make:
        primary = make()
        standby = make(primary)
        standby.wait_streaming()
        yield Pair(primary, standby), make(standby, "replica")


@pytest.fixture
def pair(servers: tuple[Pair, Member]) -> Pair:
    servers[0].mend()
    return servers[0]


@pytest.fixture
def replica(servers: tuple[Pair, Member], pair: Pair) -> Member:
    """It follows the standby."""
    found = servers[1]
    if rejoin(found, pair.standby).lost is not None:  # it was ahead of what became the primary
        found.copy_anew(pair.primary)
        assert rejoin(found, pair.standby).streams
    return found


def rejoin(replica: Member, upstream: Member) -> Following:
    def stands() -> Following | None:
        replica.follow(upstream)
        now = replica.replication.following()
        return now if now.streams or now.lost is not None else None

    return until(stands)  # type: ignore[no-any-return]


def wait_for_all(pair: Pair) -> None:
    until(lambda: pair.standby.replication.has_all_of(pair.primary.node))


def test_hand_over_under_load_leaves_nothing_to_mend(pair: Pair) -> None:
    for _ in range(HANDOVERS):
        old, new = pair.primary, pair.standby
        with pair.writing() as writer:
            writer.wait(50)
            old.replication.prepare_handover()
            old.replication.hand_over(20)
            assert not old.replication.is_open()
            wait_for_all(pair)
        executed = [one.ask("SELECT @@gtid_executed") for one in (old, new)]
        with old.superuser() as session:
            assert gtids.difference(session, *executed) == ""
            assert gtids.difference(session, *reversed(executed)) == ""
        pair.promote()
        assert pair.lost(writer) == set()
        assert pair.rejoin().streams  # with the data that it has, and the process
        assert old.process.poll() is None
        new.arm(old)


def test_hand_over_waits_for_no_transaction_and_no_lock(pair: Pair) -> None:
    old = pair.primary
    with old.session() as one, old.session() as other, old.session() as third:
        one("BEGIN")
        one("INSERT INTO rdb.keys_ (id) VALUES (-1)")
        other("CREATE TEMPORARY TABLE rdb.own (id INT)")
        other("LOCK TABLES rdb.own WRITE")
        with in_background(lambda: third("SELECT SLEEP(1000)")):
            old.replication.hand_over(20)
        with pytest.raises(pymysql.err.MySQLError):
            one("COMMIT")
    assert not old.replication.is_open()
    with pytest.raises(pymysql.err.OperationalError), old.session():
        pass
    old.replication.take_back()
    assert old.replication.is_open()
    with old.session() as run:
        run("INSERT INTO rdb.keys_ (id) VALUES (-2)")
        run("DELETE FROM rdb.keys_ WHERE id = -2")
        assert run("SELECT COUNT(*) FROM rdb.keys_ WHERE id = -1") == [(0,)]
        assert run("SELECT @@event_scheduler") == [("ON",)]


def test_hand_over_that_cannot_end_is_undone(pair: Pair) -> None:
    old = pair.primary
    with pair.standby.frozen(), pair.writing():
        until(old.is_waiting)  # a commit that cannot be broken off
        with pytest.raises(HostError):
            old.replication.hand_over(1)
        assert old.replication.is_open()
        with old.session() as run:
            run("SELECT 1")


def test_take_back_opens_nothing_that_was_started_anew(pair: Pair) -> None:
    pair.primary.kill()
    pair.primary.run()
    pair.primary.replication.take_back()
    assert not pair.primary.replication.is_open()


def test_replica_is_not_waited_for(pair: Pair, replica: Member) -> None:
    primary, standby = pair.primary, pair.standby
    rejoin(replica, primary)
    with primary.superuser() as session:
        assert semisync.numbers(session)["clients"] == "1"
    standby.kill()
    with pair.writing():
        until(primary.is_waiting)
        primary.replication.disarm()
        assert not primary.replication.arm(replica.node)


def test_replica_of_the_standby_stays_through_a_promotion(pair: Pair, replica: Member) -> None:
    uuid = replica.ask("SELECT @@server_uuid")
    pair.primary.kill()
    pair.promote()
    with pair.writing() as writer:
        writer.wait(5)
    last = pair.primary.ask("SELECT @@gtid_executed")
    assert replica.ask("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 60)", last) == 0
    assert replica.replication.following().streams
    assert replica.ask("SELECT @@server_uuid") == uuid
    assert replica.ask("SELECT COUNT(*) FROM rdb.keys_") == pair.primary.ask(
        "SELECT COUNT(*) FROM rdb.keys_"
    )


def kill_primary_behind(pair: Pair, replica: Member) -> str:
    """Let the primary die with a transaction that only a replica of it has got; answer which."""
    rejoin(replica, pair.primary)
    pair.standby.kill()
    with pair.writing():
        until(pair.primary.is_waiting)
        waiting = str(pair.primary.ask("SELECT @@gtid_owned")).split("#")[0]

        def has_got() -> bool:
            with replica.superuser() as session:
                return not gtids.difference(session, waiting, channel.received(session))

        until(has_got)
        pair.primary.kill()
    pair.standby.run()
    return waiting


def test_replica_that_is_ahead_of_the_next_primary_is_lost(pair: Pair, replica: Member) -> None:
    standby, waiting = pair.standby, kill_primary_behind(pair, replica)
    replica.follow(standby)
    assert replica.replication.following().lost is None  # nobody says yet that it will not get it
    pair.promote()
    replica.follow(standby)
    found = replica.replication.following()
    assert found.lost is not None
    assert waiting in found.lost
    replica.kill()
    remake(replica, standby)


@pytest.mark.parametrize("is_applied", [True, False], ids=["applied", "received"])
def test_replica_that_is_ahead_of_what_its_upstream_became_is_lost(
    pair: Pair, replica: Member, *, is_applied: bool
) -> None:
    """It connects again by itself, to a server whose data was made again at the same place."""
    rejoin(replica, pair.primary)
    known = replica.replication.following().source
    with replica.session() as run:
        if not is_applied:
            run("LOCK TABLES rdb.keys_ READ")
        waiting = kill_primary_behind(pair, replica)
        pair.promote()
        upstream = pair.standby
        upstream.copy_anew(pair.primary)
        assert pair.rejoin().streams
        uuid = upstream.ask("SELECT @@server_uuid")
        assert uuid != known

        def receives() -> bool:
            now = replica.status()
            return bool(now["Replica_IO_Running"] == "Yes" and now["Source_UUID"] == uuid)

        until(receives)
        found = replica.replication.following(known)
        if not is_applied:
            run("UNLOCK TABLES")
    assert not found.streams
    assert found.lost is not None
    assert waiting in found.lost
    replica.copy_anew(pair.primary)
    assert replica.replication.following().lost is None


def test_replica_turns_to_a_standby_that_applies_late(pair: Pair, replica: Member) -> None:
    """It has what the standby has received, which is enough to follow it."""
    rejoin(replica, pair.primary)
    with pair.standby.superuser() as session, session.cursor() as cursor:
        cursor.execute("LOCK TABLES rdb.keys_ READ")
        with pair.writing() as writer:
            writer.wait(5)
        last = pair.primary.ask("SELECT @@gtid_executed")
        assert replica.ask("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 60)", last) == 0
        assert rejoin(replica, pair.standby).lost is None
        cursor.execute("UNLOCK TABLES")
    with pair.writing() as writer:
        writer.wait(5)
    last = pair.primary.ask("SELECT @@gtid_executed")
    assert replica.ask("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 60)", last) == 0


def test_what_a_replica_logs_itself_is_no_data(pair: Pair, replica: Member) -> None:
    """Its users may flush tables: it logs that though it only reads."""
    with replica.session() as run:
        run("FLUSH TABLES")
    uuid = replica.ask("SELECT @@server_uuid")
    assert uuid in replica.ask("SELECT @@gtid_executed")
    assert replica.replication.following().streams
    rejoin(replica, pair.primary)
    assert replica.replication.following().lost is None


def test_an_upstream_that_does_not_say_what_it_has(pair: Pair, replica: Member) -> None:
    """Its followers' data is good, as far as anybody knows."""
    known = replica.replication.following().source
    assert known == pair.standby.ask("SELECT @@server_uuid")
    with pair.standby.frozen():
        assert replica.replication.following(known).streams
        found = replica.replication.following()
        assert (found.streams, found.lost, found.is_passing) == (False, None, True)
    until(lambda: replica.replication.following().streams)


def remake(replica: Member, source: Member) -> None:
    accounts_data = replica.paths.data
    subprocess.run(["rm", "-rf", str(accounts_data)], check=True)
    replica.copy(source)
    replica.run()
    rejoin(replica, source)


def test_events_run_on_the_primary_only(pair: Pair) -> None:
    with pair.primary.session() as run:
        run("CREATE TABLE rdb.ticks (at DATETIME(6) PRIMARY KEY, who BIGINT)")
        run("SET time_zone = '+05:00', sql_mode = 'ANSI_QUOTES'")
        run(
            "CREATE EVENT rdb.tick ON SCHEDULE EVERY 1 SECOND "
            "DO INSERT INTO rdb.ticks VALUES (NOW(6), @@server_id)"
        )
        described = (
            "SELECT definer, sql_mode, time_zone, event_definition FROM information_schema.events"
        )
        before = run(described)
    pair.primary.kill()
    pair.promote()
    pair.primary.replication.settle()
    own = pair.primary.ask("SELECT @@server_id")
    until(lambda: pair.primary.ask("SELECT COUNT(*) FROM rdb.ticks WHERE who = %s", own))
    with pair.primary.session() as run:
        assert run(described) == before
        pair.mend()
        run("DROP TABLE rdb.ticks")
        run("DROP EVENT rdb.tick")


_STATE = "SELECT status FROM information_schema.events WHERE event_name = %s"


@contextmanager
def events(pair: Pair) -> Iterator[None]:
    """A table in which events write who has run which; afterwards it and they are gone."""
    with pair.primary.session() as run:
        run("CREATE TABLE rdb.runs (id INT AUTO_INCREMENT PRIMARY KEY, name TEXT, who BIGINT)")
        run("CREATE EVENT rdb.tick ON SCHEDULE EVERY 1 SECOND DO DELETE FROM rdb.runs WHERE false")
    yield
    pair.mend()
    with pair.primary.session() as run:
        for (name,) in run("SELECT event_name FROM information_schema.events"):
            run(f"DROP EVENT rdb.{name}")
        run("DROP TABLE rdb.runs")


def once(run: Any, name: str, moment: str, more: str = "") -> None:
    """Make an event that is to run once."""
    body = f"INSERT INTO rdb.runs (name, who) VALUES ('{name}', @@server_id)"
    run(f"CREATE EVENT rdb.{name} ON SCHEDULE AT {moment} {more} DO {body}")


def ran(server: Member) -> set[tuple[str, int]]:
    """Return which one-time events have run, and how often, once all that are due have."""
    server.replication.settle()
    last = "SELECT last_executed FROM information_schema.events WHERE event_name = 'tick'"
    before = server.ask(last)
    # Those that are due run in the order of their moments: the next tick comes after them.
    until(lambda: server.ask(last) != before)
    with server.session() as run:
        until(lambda: not [row for row in run("SHOW PROCESSLIST") if row[4] == "Connect"])
        return set(run("SELECT name, COUNT(*) FROM rdb.runs GROUP BY name"))


def test_one_time_events_run_once(pair: Pair) -> None:
    """Also where only the server that has run them knows it."""
    with events(pair):
        with pair.primary.session() as run, pair.primary.superuser() as session:
            described = (
                "SELECT event_name, definer, sql_mode, time_zone, event_definition, execute_at, "
                "on_completion FROM information_schema.events ORDER BY event_name"
            )
            session.query("SET GLOBAL event_scheduler = OFF")
            once(run, "copied", "NOW()", "ON COMPLETION PRESERVE")
            pair.standby.copy_anew(pair.primary)
            assert pair.rejoin().streams
            pair.primary.arm(pair.standby)
            for number, zone in enumerate(("+05:00", "Europe/Paris", "-11:00")):
                run("SET time_zone = %s, sql_mode = 'ANSI_QUOTES'", zone)
                once(run, f"told{number}", "NOW()", "ON COMPLETION PRESERVE")
                once(run, f"later{number}", "NOW() + INTERVAL 1 HOUR")
            once(run, "dropped", "NOW()")
            session.query("SET GLOBAL event_scheduler = ON")
        expected = ran(pair.primary)
        assert len(expected) == 5
        assert {count for _, count in expected} == {1}
        with pair.primary.session() as run:
            before = run(described)
            assert run(_STATE, "dropped") == []
        for _ in range(3):
            pair.primary.kill()
            pair.promote()
            assert ran(pair.primary) == expected
            with pair.primary.session() as run:
                assert run(described) == before
                states = dict(run("SELECT event_name, status FROM information_schema.events"))
            assert states == {
                name: "ENABLED" if name.startswith(("later", "tick")) else "DISABLED"
                for name in states
            }
            pair.mend()
        pair.primary.replication.hand_over(20)
        wait_for_all(pair)
        pair.promote()
        assert ran(pair.primary) == expected


def test_event_that_was_due_while_nobody_took_writes_is_skipped(pair: Pair) -> None:
    """Whether the former primary has run it, nobody knows."""
    with events(pair):
        with pair.primary.session() as run, pair.primary.superuser() as session:
            session.query("SET GLOBAL event_scheduler = OFF")
            once(run, "due", "NOW()")
        pair.primary.kill()
        pair.promote()
        assert ran(pair.primary) == set()
        assert pair.primary.ask(_STATE, "due") == "DISABLED"


def test_events_that_users_disabled_stay_so(pair: Pair) -> None:
    """Replication tells followers of every event as of one that is disabled there."""

    def states() -> dict[str, str]:
        with pair.primary.session() as run:
            names = "SELECT event_name, status FROM information_schema.events"
            return {name: status for name, status in run(names) if name != "tick"}

    with events(pair):
        with pair.primary.session() as run:
            # Not at once: a server that runs one writes its state back, also if it was changed
            # meanwhile (seen with 9.7).
            when = "EVERY 1 HOUR STARTS NOW() + INTERVAL 1 HOUR"
            body = f"ON SCHEDULE {when} {{}} DO DELETE FROM rdb.runs WHERE false"
            for name, how in (("on", ""), ("off", "DISABLE"), ("later", "")):
                run(f"CREATE EVENT rdb.`{name}` {body.format(how)}")
            run("ALTER EVENT rdb.later DISABLE")
        pair.primary.replication.tell_followers()
        expected = {"on": "ENABLED", "off": "DISABLED", "later": "DISABLED"}
        pair.primary.kill()
        pair.promote()
        pair.primary.replication.tell_followers()  # not before it is settled
        pair.primary.replication.settle()
        assert states() == expected
        pair.mend()
        with pair.primary.session() as run:
            run("ALTER EVENT rdb.off ENABLE")
            run("ALTER EVENT rdb.`on` DISABLE")
        pair.primary.replication.prepare_handover()
        pair.primary.replication.hand_over(20)
        wait_for_all(pair)
        pair.promote()
        pair.primary.replication.settle()
        assert states() == {"on": "DISABLED", "off": "ENABLED", "later": "DISABLED"}


def test_what_users_may_write_is_another_matter(pair: Pair) -> None:
    """A full volume closes a server to users, but not to us."""
    primary, standby = pair.primary, pair.standby
    closed = dataclasses.replace(primary.node, writes="closed")
    primary.part |= {"writes": "closed"}
    primary.write_configuration()
    primary.engine.enforce_writes(changed=True)
    assert closed == primary.node
    assert primary.replication.is_open()
    until(lambda: primary.replication.arm(standby.node))  # it still comes in
    primary.part |= {"writes": "open"}
    primary.engine.enforce_writes(changed=True)
    with primary.session() as run:
        run("INSERT INTO rdb.keys_ (id) VALUES (-3)")
        run("DELETE FROM rdb.keys_ WHERE id = -3")
    standby.engine.enforce_writes(changed=True)
    assert not standby.replication.is_open()
    primary.kill()
    pair.swap()
    standby.become(writes="closed")
    standby.replication.open()
    assert standby.replication.is_open()
    with pytest.raises(pymysql.err.OperationalError), standby.session():
        pass
    standby.become()
    standby.engine.enforce_writes(changed=True)
    with standby.session() as run:
        run("INSERT INTO rdb.keys_ (id) VALUES (-4)")
        run("DELETE FROM rdb.keys_ WHERE id = -4")


def test_followers_are_copied(pair: Pair, replica: Member) -> None:
    """They can load no plugin; and a copy that is a server of its own follows nobody."""
    made = Member(replica._bundle, replica.paths.root.parent / "copy", (), {})
    replica.engine.copy_data(Copier(made.paths.data))
    templates_of(made.spec.engine).renew_identity(made.paths.data)
    made.run()
    try:
        made.engine.take_over(SECRET)
        assert not made.status()
        with made.session() as run:
            run("CREATE TABLE rdb.own (id INT PRIMARY KEY)")
        assert made.ask("SELECT COUNT(*) FROM mysql.plugin") == 0
    finally:
        made.kill()


def test_tables_that_lose_changes_are_in_the_way(pair: Pair) -> None:
    assert pair.primary.replication.obstacles() == []
    with pair.primary.session() as run:
        run("CREATE TABLE rdb.`o'ld` (id INT) ENGINE = MyISAM")
        run("CREATE TABLE rdb.keyless (id INT)")
        (said,) = pair.primary.replication.obstacles()
        assert "rdb.o'ld is of the engine MyISAM" in said
        with pytest.raises(PreconditionFailed):
            pair.primary.engine.copy_data(Copier(pair.primary.paths.root / "copy"))
        assert len(pair.primary.replication.warnings()) == 2
        run(said.partition("ALTER")[1] + said.partition("ALTER")[2].partition(" makes")[0])
        assert pair.primary.replication.obstacles() == []
        run("DROP TABLE rdb.`o'ld`, rdb.keyless")


def test_all_tables_in_the_way_are_named(pair: Pair) -> None:
    """If there are more than a hundred, a last line says so."""
    names = [f"t{number:03}" for number in range(102)]
    with pair.primary.session() as run:
        for name in names[:40]:
            run(f"CREATE TABLE rdb.{name} (id INT) ENGINE = MyISAM")
        named = [one.split()[2] for one in pair.primary.replication.obstacles()]
        assert named == [f"rdb.{name}" for name in names[:40]]
        for name in names[40:]:
            run(f"CREATE TABLE rdb.{name} (id INT) ENGINE = MyISAM")
        told, warned = pair.primary.replication.obstacles(), pair.primary.replication.warnings()
        assert len(told) == len(warned) == 101
        assert told[-1].startswith("more tables")
        assert warned[-1].startswith("more tables")
        run(f"DROP TABLE {', '.join(f'rdb.{name}' for name in names)}")


@pytest.mark.parametrize(
    "statement",
    [
        "SET GLOBAL rpl_semi_sync_source_enabled = OFF",
        "SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF",
        "SET GLOBAL rpl_semi_sync_source_timeout = 0",
        "SET GLOBAL rpl_semi_sync_replica_enabled = OFF",
        "SET GLOBAL super_read_only = ON",
        "SET GLOBAL super_read_only = OFF",
        "SET PERSIST super_read_only = ON",
        "SET SESSION sql_log_bin = 0",
        "SET SESSION gtid_next = 'AUTOMATIC'",
        "UNINSTALL PLUGIN rpl_semi_sync_source",
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'elsewhere'",
        "START REPLICA",
        "STOP REPLICA",
        "RESET REPLICA ALL",
        "RESET BINARY LOGS AND GTIDS",
        "PURGE BINARY LOGS BEFORE NOW()",
        "SHOW REPLICAS",
        "GRANT REPLICATION SLAVE ON *.* TO admin",
        "GRANT CONNECTION_ADMIN ON *.* TO admin",
        "ALTER USER `_rdb_replication`@`127.0.0.0/255.0.0.0` IDENTIFIED BY 'mine'",
        "DROP USER `_rdb_replication`@`127.0.0.0/255.0.0.0`",
        "DELETE FROM mysql._rdb_probe",
    ],
)
def test_administrators_cannot(pair: Pair, replica: Member, statement: str) -> None:
    for server in (pair.primary, replica):
        with server.session() as run, pytest.raises(pymysql.err.MySQLError):
            run(statement)


def test_administrators_cannot_confirm(pair: Pair, mysql_bundle: Bundle) -> None:
    """Nobody but who may replicate is taken for a standby, nor reads the binary log."""
    primary = pair.primary
    with primary.session() as run:
        dumps = [row for row in run("SHOW PROCESSLIST") if row[4].startswith("Binlog Dump")]
        assert dumps
        with pytest.raises(pymysql.err.OperationalError):
            run(f"KILL {dumps[0][0]}")
        run("SET @rpl_semi_sync_replica = 1")
    command = [
        *mysql_bundle.command("mysqlbinlog"),
        *("--no-defaults", "--read-from-remote-server", "--ssl-mode=REQUIRED", "--user=admin"),
        *(f"--port={primary.spec.port}", "--host=127.0.0.1", f"--password={PASSWORD}"),
        "binlog.000001",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "REPLICATION SLAVE" in done.stderr
    assert done.returncode != 0


def test_administrators_see_positions_and_may_let_others(pair: Pair, replica: Member) -> None:
    """For monitoring and mysqldump --source-data; what is in the log stays closed to them."""
    names = {"MySQL-8": "SHOW MASTER STATUS"}
    status = names.get(pair.primary.spec.engine, "SHOW BINARY LOG STATUS")
    with pair.primary.session() as run:
        run(f"CREATE USER monitor IDENTIFIED BY '{PASSWORD}'")
        run("GRANT REPLICATION CLIENT ON *.* TO monitor")
    try:
        known = "SELECT COUNT(*) FROM mysql.user WHERE user = 'monitor'"
        until(lambda: replica.ask(known))
        for user in ("admin", "monitor"):
            with pair.primary.session(user) as run:
                ((log, position, *_),) = run(status)
                assert position == pair.primary.position()
                assert log in {row[0] for row in run("SHOW BINARY LOGS")}
                for closed in ("SHOW BINLOG EVENTS", f"PURGE BINARY LOGS TO '{log}'"):
                    with pytest.raises(pymysql.err.OperationalError, match="1227"):
                        run(closed)
            with replica.session(user) as run:
                ((state, *_),) = run("SHOW REPLICA STATUS")
                assert "Waiting for source" in state
                with pytest.raises(pymysql.err.OperationalError, match="1227"):
                    run("SHOW RELAYLOG EVENTS")
    finally:
        with pair.primary.session() as run:
            run("DROP USER monitor")


def test_secret_is_nowhere_on_disk(pair: Pair, replica: Member) -> None:
    pair.primary.replication.hand_over(20)
    wait_for_all(pair)
    pair.promote()
    assert pair.rejoin().streams
    with pair.primary.session() as run:
        run("DO 1")
    for one in (pair.primary, pair.standby, replica):
        for kind in (one.paths.data, one.paths.log, one.paths.configuration):
            command = ["grep", "--recursive", "--count", "--text", REPLICATION_SECRET, str(kind)]
            done = accounts.run(None, command, {})
            assert not [line for line in done.stdout.splitlines() if not line.endswith(":0")]
        assert "START REPLICA" in (one.paths.log / "mysql-general.log").read_text()
