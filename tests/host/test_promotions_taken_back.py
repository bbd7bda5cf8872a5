"""Pairs whose standby was to take the primary's place, and cannot: nothing is lost, and all goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pymysql
import pytest

from openrdb.engines.mysql.sql import rows, run
from openrdb.host.pairs import planned
from openrdb.host.records import PairRecord
from tests.support.pairs import PROTECTED, Pair
from tests.support.service import wait_until
from tests.support.writers import Writers

pytestmark = [pytest.mark.slow]

POSTGRESQL = pytest.mark.parametrize("pair", ["PostgreSQL-18"], indirect=True)
MYSQL = pytest.mark.parametrize("pair", ["MySQL-9"], indirect=True)


def test_a_power_cut_amid_a_promotion_takes_it_back(pair: Pair, writers: Writers) -> None:
    """Of MySQL, whose standby does not sync what it receives: it may have lost what was acknowledged.
    PostgreSQL's has it on its disk."""
    primary, standby, epoch = pair.record.primary, pair.record.standby, pair.record.epoch
    with pair.keeper.planned():
        for node in (primary, standby):
            pair.signal(node, signal.SIGKILL)
        # The end of a process may take long on a busy machine; one that ends is not tried twice.
        wait_until(lambda: not any(map(pair.keeper.watch.lives, (primary, standby))))
        record = pair.program_record(standby)
        record.write_text(json.dumps(json.loads(record.read_text()) | {"boot": "another"}))
        pair.keeper.make_primary(pair.record, standby)
        pair.keeper.set_open(is_open=False)
    pair.wait_epoch(epoch + 1)
    keeps = pair.keeper.replication(standby).keeps_received
    assert pair.record.primary == (standby if keeps else primary)
    writers.wait_for(20)
    pair.wait_protected()


@contextmanager
def dying(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The next node that becomes the primary dies before it is open, and does not start again."""
    make_primary, places = pair.keeper.make_primary, []

    def make(record: PairRecord, node: UUID, **named: Any) -> PairRecord:
        made = make_primary(record, node, **named)
        if not places:
            places.append(pair.volume(node))
            pair.keeper.kill(node)
            places[0].rename(places[0].with_name("away"))
        return made

    with monkeypatch.context() as patched:
        patched.setattr(pair.keeper, "make_primary", make)
        yield
    if not places[0].exists():
        places[0].with_name("away").rename(places[0])


def test_a_standby_that_does_not_start_makes_no_primary(
    pair: Pair, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was tried for ever, though the former one has everything."""
    epoch, primary = pair.record.epoch, pair.record.primary
    with dying(pair, monkeypatch):
        pair.kill_primary()
        pair.wait_epoch(epoch + 2)
        assert pair.record.primary == primary
        writers.wait_for(20)
    pair.wait_protected()


@POSTGRESQL
def test_a_primary_that_does_not_start_again_is_replaced(pair: Pair, writers: Writers) -> None:
    """Both ended; it was taken for open before it was, and the standby, which has everything, for one
    that lacks something."""
    primary, standby, epoch = pair.record.primary, pair.record.standby, pair.record.epoch
    with pair.keeper.planned():
        for node in (primary, standby):
            pair.signal(node, signal.SIGKILL)
        for segment in (pair.volume(primary) / "pg_wal").glob("0*"):
            os.truncate(segment, 0)
    pair.wait_epoch(epoch + 1)
    assert pair.record.primary == standby
    writers.wait_for(20)
    pair.wait_protected()


@MYSQL
def test_what_cannot_be_applied_makes_no_primary(pair: Pair, writers: Writers) -> None:
    """The former one is it again: it has all that was acknowledged."""
    primary, standby, epoch = pair.record.primary, pair.record.standby, pair.record.epoch
    with pair.login.connect() as session:
        session.execute("CREATE TABLE conflict (k INT PRIMARY KEY)")
    with pair.mysql(standby) as superuser:
        wait_until(lambda: rows(superuser, "SHOW TABLES FROM rdb LIKE 'conflict'"))
        run(superuser, "STOP REPLICA SQL_THREAD")
        run(superuser, "SET GLOBAL super_read_only = OFF")
        run(superuser, "INSERT INTO rdb.conflict VALUES (1)")
        run(superuser, "SET GLOBAL super_read_only = ON")
    with pair.login.connect() as session:
        session.execute("INSERT INTO conflict VALUES (1)")
    before = pair.kill_primary()
    wait_until(lambda: pair.record.epoch > epoch and pair.keeper.is_open)
    assert pair.record.primary == before == primary
    writers.wait_for(20)
    pair.wait_protected()
    with pair.login.connect() as session:
        session.execute("DROP TABLE conflict")


@MYSQL
def test_an_agent_that_ends_while_it_hands_over_shuts_nobody_out(pair: Pair) -> None:
    """The next one took the server for open, and protected, and no user came in."""
    with pair.mysql(pair.record.primary) as superuser:  # as the hand-over begins
        run(superuser, "SET GLOBAL event_scheduler = OFF")
        run(superuser, "SET GLOBAL offline_mode = ON")
    pair.agent.restart()

    def comes_in() -> bool:
        try:
            with pair.login.connect() as session:
                return list(session.execute("SELECT @@event_scheduler")) == [("ON",)]
        except (pymysql.MySQLError, psycopg.Error):
            return False

    wait_until(comes_in)
    pair.wait_protected()


@MYSQL
def test_a_standby_that_a_lock_holds_is_started_again(pair: Pair) -> None:
    """Of a transaction that somebody prepared while it was the primary: it counted as protected, and
    could not take the primary's place."""
    with pair.login.connect() as session:
        session.execute("CREATE TABLE held (n int PRIMARY KEY)")
        for statement in ("XA START 'x'", "SELECT * FROM held", "XA END 'x'", "XA PREPARE 'x'"):
            session.execute(statement)
    former = pair.record.primary
    assert planned.switch_over(pair.keeper)
    pair.wait_protected()
    with pair.login.connect() as session:
        session.execute("ALTER TABLE held ADD COLUMN more int")
    has_column = (
        "SELECT COUNT(*) FROM information_schema.columns "
        "WHERE table_name = 'held' AND column_name = 'more'"
    )

    def has_applied() -> bool:
        try:
            with pair.mysql(former) as superuser:
                return rows(superuser, has_column) == [(1,)]
        except pymysql.MySQLError:
            return False

    wait_until(has_applied, PROTECTED)
    pair.wait_protected()
    with pair.login.connect() as session:
        session.execute("DROP TABLE held")
