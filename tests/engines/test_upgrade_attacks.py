"""Code of a tenant's that runs while their server is upgraded: never with the rights of a superuser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgresql_server import VERIFIER, Server
from tests.support.upgraded import servers as upgraded_servers
from tests.support.upgraded import upgraded

# What tries to become a superuser, and says who it is.
ATTACK = """
    CREATE SCHEMA evil;
    -- Volatile: what is said to be immutable may change nothing itself.
    CREATE FUNCTION evil.attempt() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        attempt text;
    BEGIN
        FOREACH attempt IN ARRAY ARRAY[
            'SET ROLE _rdb_superadmin', 'SET ROLE NONE',
            'SET SESSION AUTHORIZATION _rdb_superadmin', 'RESET SESSION AUTHORIZATION',
            'ALTER ROLE bob SUPERUSER', 'CREATE ROLE evil SUPERUSER',
            'ALTER SYSTEM SET work_mem = ''6MB''', 'GRANT _rdb_admin TO bob'
        ] LOOP
            BEGIN
                EXECUTE attempt;
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
    END $$;
    CREATE FUNCTION evil.f(place text, x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
        RAISE LOG 'SEEN % as % of %', place, current_user, session_user;
        PERFORM evil.attempt();
        RAISE LOG 'SEEN % as % of %', place, current_user, session_user;
        RETURN x;
    END $$;
"""
ANALYZED = """
    CREATE TABLE evil.t AS SELECT n AS x, n % 7 AS y FROM generate_series(1, 100) n;
    CREATE INDEX ON evil.t (evil.f('index', x));
    CREATE INDEX ON evil.t (x) WHERE evil.f('partial', x) > 0;
    CREATE STATISTICS evil.s ON evil.f('statistics', x), y FROM evil.t;
    CREATE FUNCTION evil.difference(a int, b int) RETURNS float8 IMMUTABLE LANGUAGE sql
    AS $$ SELECT evil.f('range', a - b) $$;
    CREATE TYPE evil.range AS RANGE (SUBTYPE = int, SUBTYPE_DIFF = evil.difference);
    CREATE TABLE evil.ranges AS SELECT evil.range(n, n + 2) FROM generate_series(1, 100) n;
    CREATE MATERIALIZED VIEW evil.m AS SELECT x FROM evil.t;
    CREATE INDEX ON evil.m (evil.f('matview', x));
    CREATE TABLE evil.p (x int) PARTITION BY LIST (x);
    CREATE TABLE evil.p1 PARTITION OF evil.p FOR VALUES IN (1);
    CREATE INDEX ON evil.p (evil.f('partition', x));
    INSERT INTO evil.p VALUES (1);
    CREATE TABLE evil.fails AS SELECT n AS x FROM generate_series(0, 9) n;
    CREATE FUNCTION evil.fail(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
        IF session_user <> 'bob' THEN RAISE 'no statistics for %', session_user; END IF; RETURN x;
    END $$;
    CREATE INDEX ON evil.fails (evil.fail(x));
    CREATE SCHEMA shut;
    CREATE TABLE shut.unreached AS SELECT n AS x FROM generate_series(0, 9) n;
    REVOKE ALL ON SCHEMA shut FROM bob;
"""
PLACES = {"index", "partial", "statistics", "range", "matview", "partition"}
# pg_upgrade makes all of it again as the superuser: what is evaluated by that is the attack's.
DEFINED = """
    CREATE DOMAIN evil.key AS int CHECK (evil.f('domain', VALUE) > 0);
    COMMENT ON CONSTRAINT key_check ON DOMAIN evil.key IS 'its comment';
    CREATE TABLE evil.bound (x evil.key) PARTITION BY LIST (x);
    CREATE TABLE evil.bound1 PARTITION OF evil.bound FOR VALUES IN (1);
    CREATE TABLE evil.folded (x int) PARTITION BY LIST ((x + evil.f('key', 1)));
    CREATE TABLE evil.folded1 PARTITION OF evil.folded FOR VALUES IN (2);
    CREATE TABLE evil.made (x int, y int GENERATED ALWAYS AS (x + evil.f('generated', 1)) STORED);
    CREATE INDEX ON evil.made ((x + evil.f('index', 1)));
    CREATE FUNCTION evil.definer() RETURNS int SECURITY DEFINER LANGUAGE sql
    SET search_path TO pg_catalog AS 'SELECT 1';
    CREATE DOMAIN evil.unchecked AS int;
    CREATE TABLE evil.later (x int);
    INSERT INTO evil.later VALUES (-1);
    ALTER TABLE evil.later ADD y evil.unchecked DEFAULT 5;
    ALTER DOMAIN evil.unchecked ADD CONSTRAINT "a 'check'" CHECK (evil.f('missing', VALUE) <> 6);
    CREATE TABLE evil.filed (x evil.unchecked) PARTITION BY LIST (x);
    CREATE TABLE evil.filed1 PARTITION OF evil.filed FOR VALUES IN (7);
    ALTER DOMAIN evil.unchecked ADD CONSTRAINT filed
    CHECK (pg_catalog.lo_from_bytea(424242, 'it ran') > 0) NOT VALID;
"""
CHECKS = """
    SELECT contypid::regtype::text, conname, pg_get_constraintdef(oid), convalidated,
        obj_description(oid, 'pg_constraint')
    FROM pg_constraint WHERE contypid <> 0 AND contype = 'c' AND oid >= 16384 ORDER BY 1, 2
"""
FUNCTIONS = """
    SELECT oid::regprocedure::text, prosecdef, proconfig, pg_get_userbyid(proowner)
    FROM pg_proc WHERE pronamespace = 'evil'::regnamespace ORDER BY 1
"""


@pytest.fixture(params=[15, 16, 17, 18])
def servers(
    cache: Path, worker_id: str, request: pytest.FixtureRequest
) -> Iterator[tuple[Server, Server]]:
    with upgraded_servers(cache, worker_id, "PostgreSQL-14", f"PostgreSQL-{request.param}") as both:
        old, _ = both
        old.inside.create_user("bob", VERIFIER, is_admin=False)
        old.inside.create_database("shop")
        old.inside.set_privilege("shop", "bob", "all")
        with old.session("bob", "shop") as session:
            session.execute(ATTACK)
        yield both


def upgrade(old: Server, new: Server) -> None:
    assert old._process is not None
    old._process.kill()
    old._process.wait(60)
    upgraded(old, new)


def seen(server: Server) -> list[str]:
    """Return what the tenant's code has said in sessions: places with names of roles."""
    text = "".join(path.read_text() for path in sorted(server.paths.log.iterdir()))
    lines = [line for line in text.splitlines() if "LOG:  SEEN" in line]
    # Lines of autovacuum name no database: the server runs it by itself, as the table's owner.
    return [line.partition("SEEN ")[2] for line in lines if "@" in line.partition("LOG:")[0]]


def superusers(server: Server) -> set[object]:
    with server.superuser() as session:
        query = "SELECT rolname FROM pg_roles WHERE rolsuper OR rolname = 'evil'"
        members = "SELECT 1 FROM pg_auth_members WHERE member = 'bob'::regrole"
        assert session.execute(members).fetchall() == []
        return {name for (name,) in session.execute(query).fetchall()}


def test_statistics_are_gathered_by_nobody_powerful(servers: tuple[Server, Server]) -> None:
    old, new = servers
    powerful = superusers(old)
    with old.session("bob", "shop") as session:
        session.execute(ANALYZED)
    upgrade(old, new)
    try:
        new.engine.analyze()
        said = seen(new)
        assert {line.split()[0] for line in said} == (PLACES if new.major < 18 else set())
        assert {line.partition(" as ")[2] for line in said} <= {"bob of _rdb_restore"}
        assert superusers(new) <= powerful
        with new.superuser("shop") as session:
            found = (
                "SELECT DISTINCT tablename::text FROM pg_stats WHERE schemaname IN ('evil', 'shut')"
            )
            assert {name for (name,) in session.execute(found).fetchall()} >= (
                {"t", "ranges", "m", "p", "p1", "unreached"} if new.major < 18 else set()
            )
            own = "SELECT count(*) FROM pg_stats WHERE tablename = 'pg_class'"
            assert session.execute(own).fetchone() != (0,) or new.major >= 18
            left = """
                SELECT count(*) FROM pg_roles r LEFT JOIN pg_auth_members m
                ON r.oid IN (m.roleid, m.member)
                WHERE rolname = '_rdb_restore' AND (rolcanlogin OR m.roleid IS NOT NULL)
            """
            assert session.execute(left).fetchone() == (0,)
            for acl in ("nspacl FROM pg_namespace", "datacl FROM pg_database"):
                granted = f"SELECT 1 FROM (SELECT {acl}) x(acl) WHERE acl::text ~ '_rdb_restore'"
                assert session.execute(granted).fetchall() == []
    finally:
        new._stop()
        old._start()


def test_what_is_defined_again_gives_no_power(servers: tuple[Server, Server]) -> None:
    old, new = servers
    powerful = superusers(old)
    with old.session("bob", "shop") as session:
        session.execute(DEFINED)
        before = [session.execute(query).fetchall() for query in (CHECKS, FUNCTIONS)]
    upgrade(old, new)
    try:
        assert superusers(new) <= powerful
        with new.superuser("shop") as session:
            assert [session.execute(query).fetchall() for query in (CHECKS, FUNCTIONS)] == before
            written = "SELECT FROM pg_largeobject_metadata WHERE oid = 424242"
            assert session.execute(written).fetchall() == []
            assert session.execute("SELECT y::int FROM evil.later").fetchall() == [(5,)]
            assert session.execute("SHOW work_mem").fetchone() != ("6MB",)
    finally:
        new._stop()
        old._start()
