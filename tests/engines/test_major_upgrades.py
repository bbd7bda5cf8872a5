"""A server's files upgraded to a newer major version keep all that a tenant has, and add no rights."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from openrdb.engines.postgresql import clusters
from openrdb.errors import PreconditionFailed
from tests.support.debian_server import debian_server
from tests.support.postgresql_server import VERIFIER, Server
from tests.support.service import PASSWORD, ROOT, port_of_server
from tests.support.upgraded import servers as upgraded_servers
from tests.support.upgraded import servers_of_debian, upgraded

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
    with upgraded_server(old, new):
        check(new)
        assert new.inside.privileges() == [one for one in privileges if one.user != "made"]
        names = {path.name for path in new.paths.data.iterdir()}
        assert not [name for name in names if name.startswith(".") or "upgrade" in name]
    old._start()  # its files are what they were
    with old.session() as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def kill(server: Server) -> None:
    """Kill a server: the copy recovers by itself."""
    assert server._process is not None
    server._process.kill()
    server._process.wait(60)


@contextmanager
def upgraded_server(old: Server, new: Server) -> Iterator[None]:
    """Kill a server, and let its upgraded copy run."""
    kill(old)
    upgraded(old, new)
    try:
        yield
    finally:
        new._stop()


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
        with upgraded_server(old, new), new.session() as session:
            assert session.execute("SELECT n FROM shown").fetchall() == []
            options = session.execute(OPTIONS).fetchall()
    assert options == [("n", ["n_distinct=7"]), ("m", None)]


RENEWED = {"pgrouting": "pgr_version()", "timescaledb": "time_bucket('1 day', now())"}


@pytest.fixture
def debian_servers(debian_cache: Path, worker_id: str) -> Iterator[tuple[Server, Server]]:
    with servers_of_debian(debian_cache, worker_id) as both:
        yield both


def test_extensions_with_modules_of_their_version(debian_servers: tuple[Server, Server]) -> None:
    """They are the newer server's, and whose they were: also of who may create none any more."""
    old, new = debian_servers
    old.inside.create_user("bob", VERIFIER, is_admin=True)
    old.inside.create_database("maps")
    with old.session("bob", "maps") as session:
        session.execute("CREATE SCHEMA extensions; CREATE EXTENSION pgrouting CASCADE")
        session.execute("CREATE EXTENSION timescaledb SCHEMA extensions")
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
        session.execute("COMMENT ON EXTENSION pgrouting IS 'of the fleet''s'")
    old.inside.update_user("bob", verifier=None, is_admin=False)
    with old.session(database="maps") as session:
        of_old = session.execute(OWNED, [list(RENEWED)]).fetchall()
    with upgraded_server(old, new):
        with new.session(database="maps") as session:
            of_new = session.execute(OWNED, [list(RENEWED)]).fetchall()
            session.execute("SET search_path = public, extensions")
            for call in RENEWED.values():
                session.execute(f"SELECT {call}")
            assert session.execute("SELECT n FROM kept").fetchall() == [(7,)]
            may = "SELECT has_database_privilege('bob', 'maps', 'CREATE')"
            assert session.execute(may).fetchone() == (False,)
        new.inside.set_privilege("maps", "bob", "all")
        with new.session("bob", "maps") as session:
            session.execute("SET search_path = public, extensions")
            session.execute("CREATE TABLE measured (at timestamptz NOT NULL)")
            session.execute("SELECT create_hypertable('measured', 'at')")
            session.execute("INSERT INTO measured VALUES (now())")
    assert [row[:4] for row in of_new] == [row[:4] for row in of_old]
    assert all(now[4] != then[4] for now, then in zip(of_new, of_old, strict=True))


def url_of(server: Server) -> str:
    return f"postgresql://admin:{quote(PASSWORD)}@{server.spec.address}:{server.spec.port}/rdb"


def test_hypertables_are_copied_as_documented(debian_cache: Path, worker_id: str) -> None:
    guide = (ROOT / "docs" / "extensions.md").read_text()
    (commands,) = re.findall(r"```sh\n(pg_dump \"\$OLD\".*?)```", guide, re.DOTALL)
    with (
        debian_server(debian_cache, "PostgreSQL-17", port_of_server(worker_id, 42)) as old,
        debian_server(debian_cache, "PostgreSQL-18", port_of_server(worker_id, 43)) as new,
    ):
        for server in (old, new):
            with server.session() as session:
                session.execute("CREATE EXTENSION timescaledb")
        with old.session() as session:
            session.execute("CREATE TABLE measured (at timestamptz NOT NULL, value float)")
            session.execute("SELECT create_hypertable('measured', by_range('at'))")
            session.execute("CREATE INDEX of_values ON measured (value)")
            session.execute(
                "INSERT INTO measured SELECT now() + n * interval '1 hour', n "
                "FROM generate_series(1, 100) n"
            )
        told = {
            "OLD": url_of(old),
            "NEW": url_of(new),
            "PATH": f"{old.bundle.path / 'bin'}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env=os.environ | told,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "ERROR" not in done.stderr, done.stderr
        with new.session() as session:
            query = "SELECT count(*), sum(value) FROM measured"
            assert session.execute(query).fetchone() == (100, 5050.0)
            query = "SELECT count(*) > 1 FROM show_chunks('measured')"
            assert session.execute(query).fetchone() == (True,)
            query = "SELECT count(*) FROM pg_indexes WHERE indexname = 'of_values'"
            assert session.execute(query).fetchone() == (1,)


OWNED = """
    SELECT extname, extnamespace::regnamespace::text, extowner::regrole::text,
        obj_description(oid, 'pg_extension') = 'of the fleet''s', extversion
    FROM pg_extension WHERE extname = ANY (%s) ORDER BY 1
"""


HYPERTABLE = """
    CREATE EXTENSION timescaledb;
    CREATE TABLE measured (at timestamptz NOT NULL);
    SELECT create_hypertable('measured', 'at')
"""
NEEDS = {
    "a view": (
        "CREATE EXTENSION pgrouting CASCADE; CREATE VIEW way AS SELECT pgr_version()",
        r"view public\.way depends on function .*pgr_version\(\)",
    ),
    "a hypertable": (HYPERTABLE, r"timescaledb has hypertables, as public\.measured"),
    "a member": (
        "CREATE EXTENSION timescaledb; CREATE TABLE own (n int);"
        "ALTER EXTENSION timescaledb ADD TABLE own",
        r"table public\.own goes with timescaledb",
    ),
    "a cast, which is nobody's": (
        "CREATE EXTENSION timescaledb; CREATE TYPE mood AS ENUM ('fine');"
        "CREATE FUNCTION moved(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';"
        "CREATE CAST (mood AS int) WITH FUNCTION moved(mood);"
        "ALTER EXTENSION timescaledb ADD CAST (mood AS int)",
        r"cast from public\.mood to integer goes with timescaledb",
    ),
    "what is said to depend on it": (
        "CREATE EXTENSION timescaledb; CREATE MATERIALIZED VIEW own AS SELECT 1 AS n;"
        "ALTER MATERIALIZED VIEW own DEPENDS ON EXTENSION timescaledb",
        r"materialized view public\.own goes with timescaledb",
    ),
    "a function in its schema": (
        "CREATE EXTENSION timescaledb;CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        r'timescaledb cannot be created again: the schema "public" has functions',
    ),
    "a function in the schema of what it needs": (
        "CREATE SCHEMA routes; CREATE EXTENSION postgis;"
        "CREATE EXTENSION pgrouting SCHEMA routes;"
        "CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        r'pgrouting cannot be created again: the schema "public" has functions',
    ),
    "a check": (
        "CREATE EXTENSION pgrouting CASCADE; CREATE SCHEMA app;"
        "CREATE DOMAIN app.known AS text CHECK (VALUE <> pgr_version())",
        r"constraint known_check depends on function .*pgr_version\(\)",
    ),
    "its schema, which is nobody's": (
        "CREATE EXTENSION timescaledb; ALTER EXTENSION timescaledb DROP SCHEMA _timescaledb_catalog",
        r"timescaledb cannot be created again: there is a schema _timescaledb_catalog",
    ),
}


@pytest.mark.parametrize("kind", NEEDS)
def test_what_needs_such_an_extension(debian_servers: tuple[Server, Server], kind: str) -> None:
    (old, new), (made, why) = debian_servers, NEEDS[kind]
    with old.session() as session:
        session.execute(made)
    kill(old)
    assert re.search(f"the database 'rdb': {why}", refusal(old, new))


def refusal(old: Server, new: Server) -> str:
    with pytest.raises(PreconditionFailed) as refused:
        upgraded(old, new)
    return refused.value.help_message


def test_functions_with_nameless_parameters(debian_servers: tuple[Server, Server]) -> None:
    """The server writes those of a body in SQL's own form with an empty name, if others have one."""
    old, new = debian_servers
    with old.session() as session:
        session.execute("CREATE EXTENSION h3")
        session.execute(
            "CREATE FUNCTION twice(int, OUT a int, OUT b int) LANGUAGE sql "
            "BEGIN ATOMIC SELECT $1, 2 * $1; END"
        )
    with upgraded_server(old, new), new.session() as session:
        assert session.execute("SELECT * FROM twice(3)").fetchone() == (3, 6)
        cells = "SELECT count(*) FROM h3_cells_to_multi_polygon(ARRAY['89283470c27ffff'::h3index])"
        assert session.execute(cells).fetchone() == (1,)


def test_what_the_newer_version_lacks_is_named(debian_servers: tuple[Server, Server]) -> None:
    old, new = debian_servers
    with old.session() as session:
        session.execute("CREATE EXTENSION address_standardizer")
    kill(old)
    why = refusal(old, new)
    assert re.search(r'could not load library "\$libdir/address_standardizer', why), why
    assert "In database: rdb" in why
    assert str(new.paths.root) not in why


def test_indexes_of_collations_that_are_others_are_rebuilt(
    debian_servers: tuple[Server, Server],
) -> None:
    """Also those of the database's own; what sorts by bytes stays."""
    old, new = debian_servers
    old.inside.create_database("words")
    with old.session(database="words") as session:
        session.execute(
            """
            CREATE TABLE words (id int PRIMARY KEY, named text COLLATE "fr-x-icu", own text);
            CREATE INDEX named ON words (named);
            CREATE INDEX of_libc ON words (own COLLATE "fr_FR");
            CREATE INDEX bytes ON words (own COLLATE "C");
            INSERT INTO words SELECT n, n, n FROM generate_series(1, 100) AS n
            """
        )
    files = "SELECT " + ", ".join(
        f"pg_relation_filenode('{name}')" for name in ("named", "of_libc", "bytes", "words_pkey")
    )
    other = """
        SELECT count(*) FROM pg_collation
        WHERE collname IN ('fr-x-icu', 'fr_FR') AND collversion <> pg_collation_actual_version(oid)
    """
    with upgraded_server(old, new), new.session(database="words") as session:
        before = session.execute(files).fetchone()
        assert session.execute(other).fetchone() == (2,)
        new.engine.renew_databases()
        after = session.execute(files).fetchone()
        assert before is not None and after is not None
        changed = [now != then for now, then in zip(after, before, strict=True)]
        assert changed == [True, True, False, False]
        assert session.execute(other).fetchone() == (0,)


def test_names_of_another_encoding(debian_servers: tuple[Server, Server]) -> None:
    old, new = debian_servers
    with old.session() as session:
        session.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with old.session(database="latin") as session:
        session.execute(HYPERTABLE.replace("measured", '"gemessen é"'))
    kill(old)
    assert refusal(old, new).endswith('timescaledb has hypertables, as public."gemessen é"')
