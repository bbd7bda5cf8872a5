"""Logical slots of users where a standby takes its primary's place."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.conftest import POSTGRESQL
from tests.support.pgoutput import Decoder
from tests.support.postgresql_pair import Member, Members, arm, wait_until
from tests.support.postgresql_server import REPLICATION_SECRET, Connection

pytestmark = pytest.mark.timeout(180)

ENABLED = {"max_connections": "60", "rdb.enable_logical_replication": "on"}
READ = """SELECT data FROM rdb_logical.get_binary_changes(
    'feed', NULL, NULL, 'proto_version', '1', 'publication_names', 'every')"""
SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical' ORDER BY 1"
TAKEN_OVER = "SELECT NOT temporary AND synced FROM pg_replication_slots WHERE slot_name = 'feed'"
AT_WORK = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'get_binary' AND state = 'active'"


def pair_of(members: Members) -> tuple[Member, Member]:
    """A pair with logical replication, and a publication."""
    primary, standby = members.primary(), members.new()
    primary.become(settings=ENABLED)
    primary.stop()
    primary.start()
    primary.replication.open()
    primary.replication.admit(standby.id)
    standby.copy_of(primary)
    standby.become(upstream=primary, settings=ENABLED)
    standby.start()
    wait_until(lambda: standby.replication.following().streams)
    arm(primary, standby)
    with primary.session() as session:
        session.execute("CREATE EXTENSION rdb_logical")
        session.execute("SELECT rdb_logical.create_publication_for_all_tables('every')")
    return primary, standby


def keys(session: Connection) -> list[int]:
    """Read what the slot has."""
    messages = [bytes(row[0]) for row in session.execute(READ).fetchall()]
    return [int(change.row["key"] or 0) for change in Decoder().changes(messages)]


def write(session: Connection, key: int) -> None:
    session.execute("INSERT INTO written VALUES (%s)", [key])


def read_until_taken_over(session: Connection, primary: Member, standby: Member) -> None:
    """Read until the standby has the slot, as a reader of a busy instance does at any time."""
    with primary.superuser() as superuser, standby.superuser() as other:

        def is_taken_over() -> bool:
            superuser.execute("SELECT pg_log_standby_snapshot()")  # every 15 s by itself
            keys(session)
            return other.execute(TAKEN_OVER).fetchone() == (True,)

        wait_until(is_taken_over)


def test_a_slot_outlives_its_primary(members: Members, postgresql: str) -> None:
    if postgresql in POSTGRESQL[:3]:
        pytest.skip("before 17 none does")
    primary, standby = pair_of(members)
    # Where the standby asks for slots, and nowhere else.
    spec = primary.node.spec
    account = {"user": "_rdb_replication", "password": REPLICATION_SECRET, "sslmode": "require"}
    psycopg.connect(host=spec.address, port=spec.port, dbname="postgres", **account).close()
    with pytest.raises(psycopg.OperationalError, match="rejects"):
        psycopg.connect(host=spec.address, port=spec.port, dbname="rdb", **account)
    with primary.session() as session, primary.superuser() as superuser:
        session.execute("SELECT rdb_logical.create_slot('feed', failover => true)")
        session.execute("SELECT rdb_logical.create_slot('left_behind')")
        read_until_taken_over(session, primary, standby)
        write(session, 1)
        assert keys(session) == [1]
        # The reader sees nothing that the standby might not have.
        standby.send(19)
        read: list[int] = []
        write_local(primary, 2)
        reader = threading.Thread(target=lambda: read.extend(keys(session)))
        reader.start()
        wait_until(lambda: superuser.execute(AT_WORK).fetchone() == (1,))
        reader.join(1)
        assert reader.is_alive()
        assert read == []
        standby.send(18)
        reader.join(30)
        assert read == [2]
        write(session, 3)
    primary.kill()
    standby.become()
    standby.replication.open()
    with standby.session() as session:
        write(session, 4)
        assert [key for key in keys(session) if key > 2] == [3, 4]
    # The other one follows now, and takes the slot over in its turn.
    standby.replication.admit(primary.id)
    primary.become(upstream=standby)
    primary.start()
    wait_until(lambda: primary.replication.following().streams)
    with primary.superuser() as superuser:
        assert ("left_behind",) not in superuser.execute(SLOTS).fetchall()
    arm(standby, primary)
    with standby.session() as session:
        read_until_taken_over(session, standby, primary)
        # Without a standby it reads on, as commits do.
        primary.kill()
        standby.become()
        standby.replication.disarm()
        write(session, 5)
        assert keys(session) == [5]


def write_local(member: Member, key: int) -> None:
    with member.session() as session:
        session.execute("SET synchronous_commit = local")
        write(session, key)


def test_a_slot_outlives_restarts(members: Members) -> None:
    """Each start of a pair's node begins another timeline; a crash may repeat what was read."""
    primary, _ = pair_of(members)
    with primary.session() as session:
        session.execute("SELECT rdb_logical.create_slot('feed')")
        write(session, 1)
    for number, end in enumerate((primary.stop, primary.kill), 2):
        with primary.session() as session:
            assert keys(session)[-1] == number - 1
        end()
        primary.start()
        primary.replication.open()
        with primary.session() as session:
            write(session, number)
    with primary.session() as session:
        assert keys(session)[-1] == 3
    for _ in range(2):
        with primary.session() as session:
            assert keys(session) == []
