"""Hypertables come along to a newer major version, whose module is of another version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from openrdb.errors import PreconditionFailed
from tests.support.postgresql_server import VERIFIER, Server
from tests.support.ran import NOTES
from tests.support.upgraded import kill, servers_of_debian, upgraded, upgraded_server

Row = tuple[object, ...]

FILL = """
    CREATE SCHEMA app;
    SET search_path = app, public;
    CREATE TABLE devices (id int PRIMARY KEY, name text);
    INSERT INTO devices SELECT n, 'd' || n FROM generate_series(1, 10) AS n;
    CREATE FUNCTION rounded(float) RETURNS float LANGUAGE sql IMMUTABLE AS 'SELECT round($1)';
    CREATE TABLE measured (
        at timestamptz NOT NULL, device int NOT NULL REFERENCES devices,
        value float NOT NULL CHECK (value >= 0), doubled float GENERATED ALWAYS AS (value * 2) STORED,
        gone int, PRIMARY KEY (at, device)
    );
    ALTER TABLE measured DROP gone;
    SELECT create_hypertable('measured', by_range('at', interval '1 day'));
    SELECT add_dimension('measured', by_hash('device', 3));
    CREATE INDEX of_values ON measured (rounded(value));
    CREATE INDEX of_days ON measured (time_bucket('1 day', at)) WHERE value > 10;
    INSERT INTO measured SELECT '2026-01-01'::timestamptz + n * interval '1 hour', n % 10 + 1, n
        FROM generate_series(1, 1000) AS n;
    ALTER TABLE measured ADD note text DEFAULT 'new';
    CREATE VIEW daily AS SELECT time_bucket('1 day', at) AS day, sum(value) FROM measured GROUP BY 1;
    GRANT SELECT ON measured TO bob;
    COMMENT ON TABLE measured IS 'of all devices';
    CREATE TABLE seen (n bigint);
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO app.seen VALUES (new.n); RETURN new; END';
    CREATE TABLE numbered (n bigint NOT NULL);
    CREATE TRIGGER see AFTER INSERT ON numbered FOR EACH ROW EXECUTE FUNCTION see();
    SELECT create_hypertable('numbered', 'n', chunk_time_interval => 100);
    INSERT INTO numbered SELECT generate_series(1, 1000)
"""
CONTENTS = (
    "SELECT m::text FROM app.measured AS m ORDER BY at, device",
    "SELECT d::text FROM app.daily AS d ORDER BY day",
    "SELECT n::text FROM app.numbered AS n ORDER BY n",
    "SELECT count(*) FROM app.seen",
    "SELECT c::text FROM show_chunks('app.measured') AS c ORDER BY 1",
    "SELECT c::text FROM show_chunks('app.numbered') AS c ORDER BY 1",
    """SELECT column_name, time_interval, integer_interval, num_partitions
    FROM timescaledb_information.dimensions ORDER BY hypertable_name, dimension_number""",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'app' ORDER BY 1",
    """SELECT conrelid::regclass::text, pg_get_constraintdef(oid), convalidated FROM pg_constraint
    WHERE connamespace = 'app'::regnamespace AND contype <> 'n' ORDER BY 1, conname""",
    """SELECT relowner::regrole::text, relacl::text, obj_description(oid, 'pg_class')
    FROM pg_class WHERE oid = 'app.measured'::regclass""",
)
# All that belongs to the extension, whose it is, and what is granted on it.
MEMBERS = """
    SELECT pg_describe_object(classid, objid, objsubid) AS what, coalesce(
        (SELECT (relowner::regrole, ARRAY(
                SELECT unnest(coalesce(relacl, acldefault('r', relowner)))::text ORDER BY 1
            ))::text FROM pg_class WHERE classid = 'pg_class'::regclass AND oid = objid),
        (SELECT (nspowner::regrole, ARRAY(
                SELECT one FROM (SELECT unnest(nspacl)::text) AS acl (one) WHERE one !~ '^_rdb_(ad|fo)'
                ORDER BY 1
            ))::text FROM pg_namespace WHERE classid = 'pg_namespace'::regclass AND oid = objid),
        (SELECT (proowner::regrole, prosecdef, provolatile, proconfig, prosrc, probin,
            ARRAY(SELECT unnest(proacl)::text ORDER BY 1))::text
            FROM pg_proc WHERE classid = 'pg_proc'::regclass AND oid = objid),
        (SELECT (evtowner::regrole, evtenabled, evttags)::text
            FROM pg_event_trigger WHERE classid = 'pg_event_trigger'::regclass AND oid = objid)
    ) AS how
    FROM pg_depend WHERE deptype = 'e' AND refobjid = (
        SELECT oid FROM pg_extension WHERE extname = 'timescaledb'
    )
"""
JOBS = "SELECT proc_name, owner::text FROM _timescaledb_config.bgw_job ORDER BY id"
MORE = """
    INSERT INTO app.measured SELECT '2026-01-01'::timestamptz + n * interval '1 hour', n % 10 + 1, n
    FROM generate_series(1, 2000) AS n ON CONFLICT DO NOTHING
"""
INDEX = (
    "CREATE INDEX ON app.measured ((app.one(1) + device)) WITH (timescaledb.transaction_per_chunk)"
)


@pytest.fixture
def servers(debian_cache: Path, worker_id: str) -> Iterator[tuple[Server, Server]]:
    with servers_of_debian(debian_cache, worker_id) as both:
        yield both


def contents(session: Connection) -> list[list[Row]]:
    return [session.execute(query).fetchall() for query in CONTENTS]


def test_all_is_there_and_works(servers: tuple[Server, Server]) -> None:
    old, new = servers
    old.inside.create_user("bob", VERIFIER, is_admin=False)
    old.inside.set_privilege("rdb", "bob", "readonly")
    with old.session() as session:
        session.execute("CREATE EXTENSION timescaledb")
        session.execute(FILL)
    with old.session() as session:
        before = contents(session)
    with upgraded_server(old, new), new.session() as session:
        assert contents(session) == before
        session.execute(MORE)
        assert session.execute("SELECT count(*) FROM app.measured").fetchone() == (2000,)
        session.execute("INSERT INTO app.numbered VALUES (2001)")
        assert session.execute("SELECT count(*) FROM app.seen").fetchone() == (1001,)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            session.execute("INSERT INTO app.measured VALUES (now(), 11, 1)")
        with pytest.raises(psycopg.errors.CheckViolation):
            session.execute("INSERT INTO app.measured VALUES ('2026-01-01', 1, -1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            session.execute(
                "INSERT INTO app.measured SELECT at, device, 1 FROM app.measured LIMIT 1"
            )
        day = "at >= '2026-01-10' AND at < '2026-01-11' AND device = 2"
        plan = session.execute(f"EXPLAIN SELECT * FROM app.measured WHERE {day}").fetchall()
        assert len(set(re.findall(r"_hyper_1_\d+_chunk", str(plan)))) == 1
        dropped = "SELECT count(*) FROM drop_chunks('app.measured', '2026-01-10'::timestamptz)"
        assert session.execute(dropped).fetchone() == (27,)
        session.execute("ALTER TABLE app.measured ADD more int")
        session.execute("DROP TABLE app.numbered")
        with new.session("bob") as other:
            assert other.execute("SELECT count(*) FROM app.measured").fetchone() == (1785,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute("INSERT INTO app.measured VALUES ('2026-01-01', 1, 1)")


def test_the_extension_is_as_one_that_is_created(servers: tuple[Server, Server]) -> None:
    """It has the newer version's functions, and nothing runs with other rights."""
    old, new = servers
    old.inside.create_user("bob", VERIFIER, is_admin=False)
    with old.session() as session:
        session.execute("CREATE EXTENSION timescaledb")
        session.execute(FILL)
    with upgraded_server(old, new):
        new.inside.create_database("fresh")
        with new.session(database="fresh") as session:
            session.execute("CREATE EXTENSION timescaledb")
            fresh, jobs = session.execute(MEMBERS).fetchall(), session.execute(JOBS).fetchall()
        with new.session() as session:
            assert session.execute(JOBS).fetchall() == jobs
            assert set(session.execute(MEMBERS).fetchall()) == set(fresh)
        with new.session() as session:
            session.execute(NOTES)
            session.execute(INDEX)
            assert session.execute("SELECT DISTINCT who, superuser FROM app.ran").fetchall() == [
                ("admin", False)
            ]


REFUSED = {
    "a cast of what is in its schema": (
        "CREATE TYPE mood AS ENUM ('fine');"
        "CREATE FUNCTION moved(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';"
        "CREATE CAST (mood AS int) WITH FUNCTION moved(mood)",
        'timescaledb: the schema "public" has functions',
    ),
    "a view of what the newer version does not have": (
        "CREATE VIEW own AS SELECT * FROM timescaledb_information.chunks",
        "timescaledb: cannot drop view timescaledb_information.chunks because other objects depend"
        ".*view public.own depends on",
    ),
    "a schema of its own, which is nobody's": (
        "ALTER EXTENSION timescaledb DROP SCHEMA _timescaledb_catalog",
        "timescaledb is not what its script has made",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_keeps_it_from_the_newer_version(servers: tuple[Server, Server], kind: str) -> None:
    (old, new), (made, why) = servers, REFUSED[kind]
    with old.session() as session:
        session.execute("CREATE EXTENSION timescaledb")
        session.execute(FILL.replace("GRANT SELECT ON measured TO bob;", ""))
        session.execute("SET search_path = public")
        session.execute(made)
    kill(old)
    with pytest.raises(PreconditionFailed) as refused:
        upgraded(old, new)
    assert re.search(f"the database 'rdb': {why}", refused.value.help_message)


def test_other_databases(servers: tuple[Server, Server]) -> None:
    """Of another encoding, without a hypertable, and with what was made a part of the extension."""
    old, new = servers
    with old.session() as session:
        session.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        session.execute("CREATE DATABASE none")
    with old.session(database="latin") as session:
        session.execute("CREATE EXTENSION timescaledb")
        session.execute('CREATE TABLE "gemessen é" (at timestamptz NOT NULL)')
        session.execute("""SELECT create_hypertable('"gemessen é"', 'at')""")
        session.execute("""INSERT INTO "gemessen é" VALUES ('2026-01-01')""")
    with old.session(database="none") as session:
        session.execute("CREATE SCHEMA extensions")
        session.execute("CREATE EXTENSION timescaledb SCHEMA extensions")
        session.execute("CREATE TABLE own AS SELECT 7 AS n")
        session.execute("ALTER EXTENSION timescaledb ADD TABLE own")
    with upgraded_server(old, new):
        with new.session(database="latin") as session:
            session.execute("""INSERT INTO "gemessen é" VALUES ('2027-01-01')""")
            assert session.execute('SELECT count(*) FROM "gemessen é"').fetchone() == (2,)
        with new.session(database="none") as session:
            assert session.execute("SELECT n FROM own").fetchone() == (7,)
            session.execute("SELECT extensions.time_bucket('1 day', now())")
