"""A server's files upgraded to a newer major version keep all that a tenant has, and add no rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from openrdb.engines.postgresql import clusters
from openrdb.errors import PreconditionFailed
from tests.support.postgresql_server import VERIFIER, Server
from tests.support.upgraded import servers as upgraded_servers
from tests.support.upgraded import upgraded

EXTENSIONS = ("pg_stat_statements", "citext", "ltree", "pgcrypto")
DATABASE = '-c sh op"'
"""Which no program takes for an option."""
OPTIONS = """
    SELECT attname, attoptions FROM pg_attribute WHERE attrelid = 'kept'::regclass AND attnum > 0
    ORDER BY attnum
"""
OUTDATED = """
    SELECT name FROM pg_available_extensions
    WHERE installed_version IS NOT NULL AND installed_version <> default_version
"""


@pytest.fixture(params=[("PostgreSQL-14", "PostgreSQL-15"), ("PostgreSQL-14", "PostgreSQL-18")])
def servers(
    cache: Path, worker_id: str, request: pytest.FixtureRequest
) -> Iterator[tuple[Server, Server]]:
    """A running server with content, and what is to run its upgraded copy."""
    with upgraded_servers(cache, worker_id, *request.param) as both:
        yield both


def fill(server: Server) -> None:
    inside = server.inside
    for name in ("reader", "writer"):
        inside.create_user(name, VERIFIER, is_admin=False)
    inside.create_database(DATABASE)
    inside.set_privilege(DATABASE, "writer", "readwrite")
    inside.set_privilege("rdb", "reader", "readonly")
    with server.session() as session:
        for extension in EXTENSIONS:
            session.execute(f"CREATE EXTENSION {extension}")
        session.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) n")
        session.execute("ANALYZE kept")
        session.execute("CREATE ROLE made LOGIN")
        session.execute("CREATE EXTENSION rdb_logical")
        session.execute("SELECT rdb_logical.create_publication_for_all_tables('every', 'insert')")
    with server.superuser("rdb") as superuser:
        superuser.execute("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")


def test_an_upgraded_copy(servers: tuple[Server, Server]) -> None:
    old, new = servers
    fill(old)
    privileges = old.inside.privileges()
    kill(old)
    upgraded(old, new)
    try:
        check(new)
        assert new.inside.privileges() == [one for one in privileges if one.user != "made"]
        names = {path.name for path in new.paths.data.iterdir()}
        assert not [name for name in names if name.startswith(".") or "upgrade" in name]
    finally:
        new._stop()
    old._start()  # its files are what they were
    with old.session() as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def kill(server: Server) -> None:
    """Kill a server: the copy recovers by itself."""
    assert server._process is not None
    server._process.kill()
    server._process.wait(60)


def check(server: Server) -> None:
    """Data, statistics and extensions are there; users have what they had, administrators power over
    them, and nobody more."""
    with server.session() as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
        query = "SELECT count(*) FROM pg_stats WHERE tablename = 'kept' AND schemaname = 'public'"
        assert session.execute(query).fetchone() == (1,)
        assert session.execute("SHOW data_checksums").fetchone() == ("on",)
        assert session.execute(OUTDATED).fetchall() == []
        assert session.execute("SELECT FROM pg_replication_slots").fetchall() == []
        session.execute("SELECT rdb_logical.drop_publication_for_all_tables('every')")
        session.execute("ALTER ROLE made CREATEDB")
        session.execute("GRANT made TO admin")
        session.execute("DROP ROLE made")
        session.execute("CREATE TABLE later AS SELECT 7 AS n")
        for role in set(clusters.UNGRANTABLE) - (
            {"pg_signal_backend"} if server.major > 15 else set()
        ):
            with pytest.raises(psycopg.Error):
                session.execute(f"GRANT {role} TO admin")
    with server.session("reader") as session:
        assert session.execute("SELECT n FROM later").fetchall() == [(7,)]
    with server.session(database=DATABASE) as session:
        session.execute("CREATE TABLE later AS SELECT 7 AS n")
    with server.session("writer", DATABASE) as session:
        session.execute("INSERT INTO later VALUES (8)")


def test_a_name_that_pg_upgrade_does_not_take(servers: tuple[Server, Server]) -> None:
    old, new = servers
    with old.session() as session:
        session.execute('CREATE DATABASE "two\nlines"')
    with pytest.raises(PreconditionFailed) as refused:
        upgraded(old, new)
    assert r"'two\nlines' has a line break" in refused.value.help_message


def test_columns_that_know_when_they_were_defined(
    debian_cache: Path, cache: Path, worker_id: str
) -> None:
    """Debian's 17.12 writes that among the options of columns, and 18.6 does not know it."""
    names = ("PostgreSQL-17", "PostgreSQL-18")
    with upgraded_servers(debian_cache, worker_id, *names, newer=cache) as (old, new):
        with old.session() as session:
            session.execute("CREATE TABLE kept (n int, m int)")
            session.execute("ALTER TABLE kept ALTER n SET (n_distinct = 7)")
            session.execute("CREATE VIEW shown AS SELECT n FROM kept")
        kill(old)
        upgraded(old, new)
        try:
            with new.session() as session:
                assert session.execute("SELECT n FROM shown").fetchall() == []
                options = session.execute(OPTIONS).fetchall()
        finally:
            new._stop()
    assert options == [("n", ["n_distinct=7"]), ("m", None)]
