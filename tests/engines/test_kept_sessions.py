"""The superuser's sessions are used again for a moment, as new ones, and are in nobody's way."""

from __future__ import annotations

from uuid import uuid4

import pymysql
import pytest

from openrdb.engines.kept import Kept
from openrdb.engines.mysql import session as mysql_session
from openrdb.engines.postgresql import session
from tests.support.mysql_server import Server as MySQLServer
from tests.support.postgresql_server import Server
from tests.support.service import wait_until

pytestmark = pytest.mark.timeout(60)


def test_the_next_call_gets_it_as_a_new_one(server: Server) -> None:
    with session.use(server.node, "postgres") as first:
        pid = first.info.backend_pid
        first.execute("SET search_path = public")
        first.execute("SELECT pg_advisory_lock(7)")
    with session.use(server.node, "postgres") as second:
        assert second.info.backend_pid == pid
        assert second.execute("SHOW search_path").fetchone() == ("pg_catalog",)
        assert second.execute("SELECT count(*) FROM pg_locks WHERE objid = 7").fetchone() == (0,)
        assert not second.autocommit


def test_one_that_ended_is_replaced(server: Server) -> None:
    with session.use(server.node, "postgres") as first:
        pid = first.info.backend_pid
    with session.connect(server.node, "rdb") as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert [user.name for user in server.inside.users()] == ["admin"]


def test_one_whose_work_failed_is_closed(server: Server) -> None:
    with pytest.raises(ZeroDivisionError), session.use(server.node, "postgres") as first:
        first.execute("CREATE ROLE half_done")
        raise ZeroDivisionError
    assert first.closed
    with session.use(server.node, "postgres") as second:
        assert second.execute("SELECT to_regrole('half_done')").fetchone() == (None,)


def test_it_does_not_keep_tenants_from_dropping_a_database(server: Server) -> None:
    with session.use(server.node, "postgres"), server.session() as tenant:
        tenant.execute("CREATE DATABASE theirs")
        with session.use(server.node, "theirs"):
            pass
        tenant.execute("DROP DATABASE theirs")


def test_it_is_closed_when_nobody_comes(server: Server) -> None:
    with session.use(server.node, "postgres") as left:
        pass
    wait_until(lambda: left.closed)


def test_few_are_kept() -> None:
    closed: list[int] = []
    kept, node_id = Kept[int](closed.append), uuid4()
    for number, database in enumerate(("a", "b", "c")):
        kept.leave(node_id, database, number)
    kept.leave(uuid4(), "a", 3)
    assert closed == [0]
    assert kept.take(node_id, "a") is None
    assert kept.take(node_id, "c") == 2
    kept.drop(node_id)
    assert closed == [0, 1]
    wait_until(lambda: closed == [0, 1, 3])


def test_mysql_uses_it_again_as_a_new_one(mysql: MySQLServer) -> None:
    def connection_id(connection: mysql_session.Session) -> object:
        with connection.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID(), @@lock_wait_timeout")
            number, wait = cursor.fetchone() or (None, None)
            assert wait == 10
            cursor.execute("SET lock_wait_timeout = 77")
        return number

    with mysql_session.use(mysql.node) as first:
        number = connection_id(first)
    with mysql_session.use(mysql.node) as second:
        assert connection_id(second) == number
    with mysql_session.connect(mysql.node) as other:
        other.kill(number)
    with mysql_session.use(mysql.node) as third:
        assert connection_id(third) != number


def test_mysql_closes_one_whose_work_failed(mysql: MySQLServer) -> None:
    with (
        pytest.raises(pymysql.MySQLError),
        mysql_session.use(mysql.node) as first,
        first.cursor() as cursor,
    ):
        cursor.execute("SELECT nothing")
    assert not first.open
