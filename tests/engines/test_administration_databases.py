"""Databases of a real server: made by the API or by SQL, listed with sizes, and ended."""

from __future__ import annotations

import threading

import pytest
from psycopg import OperationalError, errors, sql

from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import Database
from tests.support.postgresql_server import VERIFIER, Server

NAMES = ("o\"n'e {};--$1", "Ünïcødé", "1st", "X" * 63)
RESERVED = ("rdb", "postgres", "template0", "template1", "_rdb_more", "pg_more")


def listed(server: Server, *, sizes: bool = False) -> dict[str, Database]:
    return {found.name: found for found in server.inside.databases(sizes=sizes)}


def test_managed_and_unmanaged(server: Server) -> None:
    server.inside.create_database("shop")
    with server.session() as admin:
        admin.execute("CREATE DATABASE own")
        admin.execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0 IS_TEMPLATE true"
        )
        admin.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    found = listed(server, sizes=True)
    assert {name: (one.owner, one.managed) for name, one in found.items()} == {
        "rdb": ("_rdb_superadmin", True),
        "shop": ("_rdb_superadmin", True),
        "own": ("admin", False),
        "latin": ("admin", False),
        "closed": ("admin", False),
    }
    assert all(one.size > 1_000_000 for one in found.values())
    assert {one.size for one in listed(server).values()} == {0}
    assert {one.database for one in server.inside.privileges()} == {"rdb", "shop"}
    with server.session("admin", "rdb") as admin:
        admin.execute("CREATE TABLE big AS SELECT generate_series(1, 30000) AS n")
    assert listed(server, sizes=True)["rdb"].size > found["rdb"].size + 500_000
    with pytest.raises(InvalidArguments) as refused:
        server.inside.check_set_privilege("own", "admin")
    assert refused.value.details[0][0] == "database_name"
    for name in ("own", "latin", "closed", "shop"):
        server.inside.check_delete_database(name)
        server.inside.delete_database(name)
        server.inside.delete_database(name)
    assert set(listed(server)) == {"rdb"}


def test_names_are_taken_as_they_are(server: Server) -> None:
    for name in NAMES:
        server.inside.check_create_database(name)
        server.inside.create_database(name)
        server.inside.create_database(name)
        with pytest.raises(InvalidArguments):
            server.inside.check_create_database(name)
        with server.session("admin", name) as admin:
            admin.execute("CREATE SCHEMA yard; CREATE TABLE yard.kept (id serial)")
    assert set(listed(server)) == {"rdb", *NAMES}
    levels = {one.database: one.permission for one in server.inside.privileges()}
    assert levels == dict.fromkeys(("rdb", *NAMES), "all")
    for name in NAMES:
        server.inside.delete_database(name)
    assert set(listed(server)) == {"rdb"}


def test_names_that_are_refused(server: Server) -> None:
    for name in (*RESERVED, "", "x" * 64, "é" * 32, "a\nb", "a\x7fb", "a/b", "50%", ".."):
        with pytest.raises(InvalidArguments) as refused:
            server.inside.check_create_database(name)
        assert refused.value.details[0][0] == "name"
    for name in RESERVED[:4]:
        with pytest.raises(InvalidArguments) as refused:
            server.inside.check_delete_database(name)
        assert refused.value.details[0][0] == "name"
    for name in (*RESERVED[4:], "nowhere"):
        with pytest.raises(NotFound):
            server.inside.check_delete_database(name)


def test_open_sessions_end_with_it(server: Server) -> None:
    server.inside.create_database("shop")
    with server.session("admin", "shop") as one, server.session("admin", "shop") as two:
        one.execute("BEGIN; CREATE TABLE open (); SELECT pg_advisory_lock(1)")
        waiting = threading.Thread(target=_fails, args=(two, "SELECT pg_advisory_lock(1)"))
        waiting.start()
        server.inside.delete_database("shop")
        waiting.join(30)
        assert not waiting.is_alive()
        with pytest.raises(OperationalError):
            one.execute("SELECT 1")
    assert set(listed(server)) == {"rdb"}


def _fails(session: object, query: str) -> None:
    with pytest.raises(OperationalError):
        session.execute(query)  # type: ignore[attr-defined]


def test_what_is_in_the_way_is_named(server: Server) -> None:
    """A subscription, which only a superuser can make."""
    server.inside.create_database("shop")
    with server.superuser("shop") as connection:
        connection.execute(
            "CREATE SUBSCRIPTION news CONNECTION 'host=nowhere' PUBLICATION news "
            "WITH (connect = false, slot_name = NONE)"
        )
        with pytest.raises(PreconditionFailed) as refused:
            server.inside.delete_database("shop")
        assert "subscription" in refused.value.help_message
        connection.execute("DROP SUBSCRIPTION news")
    server.inside.delete_database("shop")


def test_nobody_comes_in_who_was_not_let(server: Server) -> None:
    server.inside.create_database("shop")
    server.inside.create_user("bob", VERIFIER, is_admin=False)
    for database in ("rdb", "shop", "postgres", "template1"):
        with pytest.raises(OperationalError, match="permission denied"):
            server.session("bob", database)
    with server.session() as admin, pytest.raises(errors.InsufficientPrivilege):
        admin.execute("DROP DATABASE shop")


def test_listed_while_others_come_and_go(server: Server) -> None:
    """Nothing that ends while it is looked at is an error."""
    stop = threading.Event()

    def churn() -> None:
        with server.session() as admin:
            while not stop.is_set():
                admin.execute("CREATE DATABASE passing")
                admin.execute("DROP DATABASE passing")
                server.inside.create_database("managed")
                server.inside.delete_database("managed")

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for _ in range(25):
            assert "rdb" in listed(server, sizes=True)
            found = {one.database for one in server.inside.privileges()}
            assert {"rdb"} <= found <= {"rdb", "managed"}
    finally:
        stop.set()
        churning.join(60)


def test_a_database_that_was_dropped_halfway(server: Server) -> None:
    """As a crash during DROP DATABASE leaves it."""
    server.inside.create_database("shop")
    with server.superuser() as connection:
        connection.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'shop'")
    assert {one.database for one in server.inside.privileges()} == {"rdb"}
    server.inside.create_user("boss", VERIFIER, is_admin=True)
    server.inside.delete_database("shop")
    assert set(listed(server)) == {"rdb"}
    statement = sql.SQL("SELECT count(*) FROM pg_database WHERE datname = {}")
    with server.superuser() as connection:
        assert connection.execute(statement.format("shop")).fetchone() == (0,)
