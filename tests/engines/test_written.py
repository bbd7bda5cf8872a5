"""Whether anything was written between two marks."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from openrdb.engines.postgresql import written
from tests.support.postgresql_server import Server


def write(server: Server) -> None:
    with server.session() as session:
        session.execute("CREATE TABLE written AS SELECT 1 AS n")


def advance(server: Server) -> None:
    with server.session() as session:
        session.execute("SELECT nextval('numbers')")


def restart(server: Server) -> None:
    server._stop()
    server._start()


@pytest.mark.parametrize("change", [write, advance, restart])
def test_changes_are_seen(server: Server, change: Callable[[Server], None]) -> None:
    with server.session() as session:
        session.execute("CREATE SEQUENCE numbers")
    before = written.end(server.node)
    change(server)
    assert not written.is_next_mark(before, written.end(server.node))


def test_reading_changes_nothing(server: Server) -> None:
    before = written.end(server.node)
    with server.session() as session:
        session.execute("SELECT count(*) FROM pg_class")
    server.inside.users()
    server.inside.privileges()
    assert written.is_next_mark(before, written.end(server.node))


def test_open_transactions_are_ended_before(server: Server) -> None:
    with server.session() as session:
        session.execute("CREATE TABLE written (n bigint)")
        session.execute("BEGIN")
        session.execute("INSERT INTO written VALUES (1)")
        written.end(server.node)
        with pytest.raises(psycopg.OperationalError):
            session.execute("INSERT INTO written VALUES (2)")
    with server.session() as session:
        assert session.execute("SELECT count(*) FROM written").fetchone() == (0,)
