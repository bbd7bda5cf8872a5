"""A server's files upgraded to a newer major version keep all that a tenant has, and add no rights."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from openrdb.engines.postgresql import clusters
from openrdb.errors import HostError, PreconditionFailed
from tests.support.postgresql_server import VERIFIER, Server
from tests.support.service import PASSWORD
from tests.support.upgraded import kill, servers_of_debian, upgraded, upgraded_server
from tests.support.upgraded import servers as upgraded_servers

EXTENSIONS = ("pg_stat_statements", "citext", "ltree", "pgcrypto")
DATABASE = '-c sh op"'
"""Which no program takes for an option."""
OPTIONS = """
    SELECT attname, attoptions FROM pg_attribute WHERE attrelid = 'kept'::regclass AND attnum > 0
    ORDER BY attnum
"""
OF_TYPE = """
    SELECT attoptions[1] FROM pg_attribute WHERE attrelid = to_regclass('pair') ORDER BY attnum
"""
SETTINGS = """
    SELECT datname, rolname, setconfig FROM pg_db_role_setting
    LEFT JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole
    WHERE setrole <> 10 ORDER BY 1, 2
"""
OWNERS = """
    SELECT count(*), extowner::regrole::text FROM pg_extension WHERE extname <> 'plpgsql' GROUP BY 2
    UNION ALL
    SELECT count(*), refobjid::regrole::text FROM pg_shdepend JOIN pg_database d ON d.oid = dbid
    WHERE classid = 'pg_extension'::regclass AND datname = current_database() GROUP BY 2
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
        session.execute("CREATE TEXT SEARCH CONFIGURATION own (COPY = simple)")
        session.execute("ALTER ROLE writer IN DATABASE rdb SET client_min_messages = debug5")
        session.execute("ALTER ROLE made SET search_path = 'a b', \"$user\"")
    with server.superuser("rdb") as superuser:
        superuser.execute("ALTER DATABASE rdb SET role = reader")
        superuser.execute("ALTER DATABASE rdb SET default_text_search_config = own")
        superuser.execute("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")


def test_an_upgraded_copy(servers: tuple[Server, Server]) -> None:
    old, new = servers
    fill(old)
    privileges, before = old.inside.privileges(), settings(old)
    with upgraded_server(old, new):
        assert settings(new) == before
        with new.superuser("postgres") as superuser:
            superuser.execute("ALTER DATABASE rdb RESET role")
        check(new)
        assert new.inside.privileges() == [one for one in privileges if one.user != "made"]
        names = {path.name for path in new.paths.data.iterdir()}
        assert not [name for name in names if name.startswith(".") or "upgrade" in name]
    old._start()  # its files are what they were
    with old.session() as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def settings(server: Server) -> list[tuple[object, ...]]:
    with server.superuser("postgres") as superuser:
        return superuser.execute(SETTINGS).fetchall()


def check(server: Server) -> None:
    """Data, statistics and extensions are there; users have what they had, administrators power over
    them, and nobody more."""
    with server.session() as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
        query = "SELECT count(*) FROM pg_stats WHERE tablename = 'kept' AND schemaname = 'public'"
        assert session.execute(query).fetchone() == (1,)
        assert session.execute("SHOW data_checksums").fetchone() == ("on",)
        assert session.execute(OUTDATED).fetchall() == []
        assert session.execute(OWNERS).fetchall() == [(5, "admin"), (5, "admin")]
        session.execute("DROP EXTENSION ltree")
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
            session.execute(
                "CREATE TYPE pair AS (a int, b int); CREATE TABLE pairs (p pair, q pair[])"
            )
            session.execute(
                "INSERT INTO pairs SELECT (n, n)::pair, ARRAY[(n, n)::pair] "
                "FROM generate_series(1, 9) n"
            )
            session.execute("ALTER TYPE pair ADD ATTRIBUTE c int; ANALYZE pairs")
            before = session.execute(OF_TYPE).fetchall()
            assert len({one for (one,) in before}) == 2
        with upgraded_server(old, new), new.session() as session:
            assert session.execute("SELECT n FROM shown").fetchall() == []
            options = session.execute(OPTIONS).fetchall()
            sums = "SELECT sum((p).a + (q[1]).b) FROM pairs"
            assert session.execute(sums).fetchone() == (90,)
            assert session.execute(OF_TYPE).fetchall() == before  # for later binaries
            address = f"{new.spec.address}:{new.spec.port}"
            url = f"postgresql://admin:{PASSWORD}@{address}/rdb"
            dumped = subprocess.run(
                [str(new.bundle.program("pg_dump")), url],
                env=os.environ | new.bundle.environment,
                check=True,
                capture_output=True,
                text=True,
            )
            assert "CREATE TYPE" in dumped.stdout and "pg_attver" not in dumped.stdout
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


BESIDE = """
    CREATE EXTENSION pgrouting CASCADE;
    CREATE EXTENSION timescaledb;
    CREATE FUNCTION format(text, anyelement) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'ALTER ROLE admin SUPERUSER'; RETURN ''; END $$;
    CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
    CREATE FUNCTION both_of(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
    CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = both_of);
    CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN new.d := public.twice(new.n); RETURN new; END';
    CREATE TABLE own (n int, d even);
    CREATE INDEX ON own (twice(n));
    CREATE TRIGGER note BEFORE INSERT ON own FOR EACH ROW EXECUTE FUNCTION note();
    CREATE VIEW shown AS SELECT twice(n) ### 1 AS n FROM own;
    INSERT INTO own VALUES (1)
"""
IN_PUBLIC = """
    SELECT p.oid::regprocedure::text FROM pg_proc p
    WHERE proowner = 'admin'::regrole AND pronamespace = 'public'::regnamespace
    UNION ALL SELECT o.oid::regoperator::text FROM pg_operator o WHERE oprowner = 'admin'::regrole
    UNION ALL SELECT t.oid::regtype::text FROM pg_type t
    WHERE typowner = 'admin'::regrole AND typtype = 'd' ORDER BY 1
"""


def test_what_users_have_beside_them(debian_servers: tuple[Server, Server]) -> None:
    """It is what it was, and no script has taken it for what it means."""
    old, new = debian_servers
    with old.session() as session:
        session.execute(BESIDE)
        before = session.execute(IN_PUBLIC).fetchall()
    with upgraded_server(old, new), new.session() as session:
        assert session.execute(IN_PUBLIC).fetchall() == before
        assert session.execute("SELECT n FROM shown").fetchall() == [(3,)]
        session.execute("INSERT INTO own VALUES (2)")
        assert session.execute("SELECT d FROM own ORDER BY n").fetchall() == [(2,), (4,)]
        with pytest.raises(psycopg.errors.CheckViolation):
            session.execute("SELECT 1::even")
        superusers = "SELECT rolname FROM pg_roles WHERE rolsuper AND rolname !~ '^_rdb_'"
        assert session.execute(superusers).fetchall() == []


OWNED = """
    SELECT extname, extnamespace::regnamespace::text, extowner::regrole::text,
        obj_description(oid, 'pg_extension') = 'of the fleet''s', extversion
    FROM pg_extension WHERE extname = ANY (%s) ORDER BY 1
"""


NEEDS = {
    "a view": (
        "CREATE EXTENSION pgrouting CASCADE; CREATE VIEW way AS SELECT pgr_version()",
        r"view public\.way depends on function .*pgr_version\(\)",
    ),
    "a member": (
        "CREATE EXTENSION pgrouting CASCADE; CREATE TABLE own (n int);"
        "ALTER EXTENSION pgrouting ADD TABLE own",
        r"table public\.own goes with pgrouting",
    ),
    "a cast, which is nobody's": (
        "CREATE EXTENSION pgrouting CASCADE; CREATE TYPE mood AS ENUM ('fine');"
        "CREATE FUNCTION moved(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';"
        "CREATE CAST (mood AS int) WITH FUNCTION moved(mood);"
        "ALTER EXTENSION pgrouting ADD CAST (mood AS int)",
        r"cast from public\.mood to integer goes with pgrouting",
    ),
    "what is said to depend on it": (
        "CREATE EXTENSION pgrouting CASCADE; CREATE MATERIALIZED VIEW own AS SELECT 1 AS n;"
        "ALTER MATERIALIZED VIEW own DEPENDS ON EXTENSION pgrouting",
        r"materialized view public\.own goes with pgrouting",
    ),
    "a cast of what is in its schema": (
        "CREATE EXTENSION postgis; CREATE SCHEMA routes; CREATE EXTENSION pgrouting SCHEMA routes;"
        "CREATE TYPE routes.mood AS ENUM ('fine');"
        "CREATE FUNCTION moved(routes.mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';"
        "CREATE CAST (routes.mood AS int) WITH FUNCTION moved(routes.mood)",
        r'pgrouting cannot be created again: the schema "(routes|pg_catalog)" has functions',
    ),
    "a check": (
        "CREATE EXTENSION pgrouting CASCADE; CREATE SCHEMA app;"
        "CREATE DOMAIN app.known AS text CHECK (VALUE <> pgr_version())",
        r"constraint known_check depends on function .*pgr_version\(\)",
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
    with old.session() as session:
        session.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with old.session(database="words") as session:
        session.execute(
            """
            CREATE TABLE words (id int PRIMARY KEY, named text COLLATE "fr-x-icu", own text);
            CREATE INDEX named ON words (named);
            CREATE INDEX of_libc ON words (own COLLATE "fr_FR");
            CREATE INDEX bytes ON words (own COLLATE "C");
            INSERT INTO words SELECT n, n, n FROM generate_series(1, 100) AS n;
            CREATE EXTENSION timescaledb;
            CREATE TABLE measured (at timestamptz NOT NULL, device text);
            SELECT create_hypertable('measured', 'at');
            CREATE INDEX ON measured (device);
            INSERT INTO measured VALUES ('2026-01-01', 'one')
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
        for database in ("words", "latin", "postgres"):
            with new.superuser(database) as superuser:
                superuser.execute("VACUUM (FREEZE)")


def test_why_a_program_of_its_fails_is_told(servers: tuple[Server, Server]) -> None:
    old, new = servers
    with old.superuser("rdb") as superuser:
        superuser.execute("SET allow_system_table_mods = on")
        superuser.execute("CREATE TABLE broken (n int)")
        superuser.execute("UPDATE pg_class SET relnamespace = 7777 WHERE relname = 'broken'")
    kill(old)
    with pytest.raises(HostError, match="7777"):
        upgraded(old, new)


def test_names_of_another_encoding(debian_servers: tuple[Server, Server]) -> None:
    old, new = debian_servers
    with old.session() as session:
        session.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with old.session(database="latin") as session:
        session.execute("CREATE EXTENSION pgrouting CASCADE")
        session.execute('CREATE VIEW "é" AS SELECT pgr_version()')
    kill(old)
    assert 'view public."é" depends on' in refusal(old, new)
