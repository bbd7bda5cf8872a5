"""Code of a tenant's that runs while their backup is loaded: never where anybody is a superuser."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.support.postgresql_server import VERIFIER, Server
from tests.support.transfers import Transfers

# Whatever it tries, it says who it is.
SEEN = """
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.f(place text, x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    DECLARE
        attempt text;
    BEGIN
        RAISE LOG 'SEEN % as % of %', place, current_user, session_user;
        FOREACH attempt IN ARRAY ARRAY[
            'ALTER ROLE bob SUPERUSER', 'SET ROLE _rdb_superadmin', 'SET ROLE NONE',
            'SET SESSION AUTHORIZATION _rdb_superadmin', 'RESET SESSION AUTHORIZATION',
            'GRANT _rdb_admin TO bob', 'COPY (SELECT 1) TO PROGRAM ''true''',
            'ALTER SYSTEM SET work_mem = ''6MB''', 'CREATE ROLE evil SUPERUSER'
        ] LOOP
            BEGIN
                EXECUTE attempt;
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
        RAISE LOG 'SEEN % as % of %', place, current_user, session_user;
        RETURN x;
    END $$;
    CREATE DOMAIN evil.d AS int CHECK (evil.f('domain', VALUE) >= 0);
    CREATE TABLE evil.t (
        x int CHECK (evil.f('check', x) >= 0), y evil.d,
        z int GENERATED ALWAYS AS (evil.f('generated', x)) STORED
    );
    CREATE INDEX ON evil.t (evil.f('index', x));
    CREATE STATISTICS evil.s ON evil.f('statistics', x), y FROM evil.t;
    CREATE TABLE evil.p (x int) PARTITION BY LIST (evil.f('partition', x));
    CREATE TABLE evil.p1 PARTITION OF evil.p FOR VALUES IN (1);
    CREATE VIEW evil.literal AS SELECT '{1}'::evil.d[] AS d;
    CREATE TABLE evil.defaults (d evil.d[] DEFAULT '{2}'::evil.d[]);
    CREATE FUNCTION evil.touch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM evil.f('trigger', 1); RETURN new; END $$;
    CREATE TRIGGER touch BEFORE INSERT ON evil.t FOR EACH ROW EXECUTE FUNCTION evil.touch();
    ALTER TABLE evil.t ENABLE ALWAYS TRIGGER touch;
    CREATE TABLE evil.r (x int);
    INSERT INTO evil.r VALUES (1);
    ALTER TABLE evil.r ENABLE ROW LEVEL SECURITY;
    ALTER TABLE evil.r FORCE ROW LEVEL SECURITY;
    CREATE POLICY p ON evil.r USING (evil.f('policy', x) >= 0);
    CREATE MATERIALIZED VIEW evil.m AS SELECT evil.f('matview', x) FROM evil.t;
    CREATE MATERIALIZED VIEW evil.n AS SELECT x FROM evil.r;
    CREATE RULE r AS ON INSERT TO evil.r DO ALSO SELECT evil.f('rule', 1);
    INSERT INTO evil.t (x, y) VALUES (1, 1);
    INSERT INTO evil.p VALUES (1);
"""


@pytest.fixture
def transfers(server: Server, short_tmp: Path) -> Transfers:
    server.inside.create_user("bob", VERIFIER, is_admin=False)
    server.inside.create_database("shop")
    server.inside.set_privilege("shop", "bob", "all")
    return Transfers(server.node, short_tmp)


def seen(server: Server) -> list[str]:
    """Return what the tenant's code has said, in sessions: places with names of roles."""
    text = "".join(path.read_text() for path in sorted(server.paths.log.iterdir()))
    lines = [line for line in text.splitlines() if "SEEN " in line and "LOG:  SEEN" in line]
    return [line.partition("SEEN ")[2] for line in lines if "@" in line.partition("LOG:")[0]]


def powers(server: Server) -> list[object]:
    with server.superuser() as superuser:
        roles = "SELECT rolname FROM pg_roles WHERE rolsuper OR rolname = 'evil' ORDER BY 1"
        members = "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members"
        settings = "SELECT name, setting FROM pg_file_settings WHERE name = 'work_mem'"
        found = [superuser.execute(query).fetchall() for query in (roles, members, settings)]
        return [sorted(rows) for rows in found]


@pytest.mark.parametrize("user", ["admin", "bob"])
def test_no_code_runs_as_a_superuser(server: Server, transfers: Transfers, user: str) -> None:
    with server.session(user, "shop") as session:
        session.execute(SEEN)
    powerful = powers(server)
    before = len(seen(server))
    done = transfers.dump("shop")
    assert done.status == "done", done
    assert len(seen(server)) == before, "a dump runs nothing"
    restored = transfers.restore(done, "shop")
    assert restored.status == "done", restored
    said = seen(server)[before:]
    assert {line.split()[0] for line in said} >= {
        *("check", "domain", "generated", "index", "matview", "partition")
    }
    roles = {line.split()[0]: line.partition(" as ")[2] for line in said}
    owners = dict.fromkeys(("matview", "policy", "index"), f"{user} of _rdb_restore")
    assert roles == dict.fromkeys(roles, "_rdb_restore of _rdb_restore") | owners
    assert powers(server) == powerful


TAKEN = {
    "a grant": "GRANT SELECT ON admins.secret TO bob",
    "an owned function": "CREATE FUNCTION public.more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a dropped table": "DROP TABLE admins.empty",
    "default privileges": "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO bob",
    "a trigger": "CREATE TRIGGER t BEFORE INSERT ON admins.empty EXECUTE FUNCTION mine.t()",
    "a rule": "CREATE RULE r AS ON INSERT TO admins.empty DO ALSO SELECT 1",
    "a policy": "CREATE POLICY p ON admins.empty USING (true)",
}


@pytest.mark.parametrize("attempt", TAKEN)
def test_no_code_takes_what_is_another_users(
    server: Server, transfers: Transfers, attempt: str
) -> None:
    with server.session("admin", "shop") as admin:
        admin.execute("CREATE SCHEMA admins; CREATE TABLE admins.empty ()")
        admin.execute("CREATE TABLE admins.secret AS SELECT 1 AS one")
    with server.session("bob", "shop") as bob:
        bob.execute("CREATE SCHEMA mine")
        bob.execute(
            "CREATE FUNCTION mine.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'"
        )
        bob.execute(
            "CREATE FUNCTION mine.f() RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN "
            f"IF session_user = '_rdb_restore' THEN EXECUTE $${TAKEN[attempt]}$$; END IF; "
            "RETURN true; END $f$"
        )
        bob.execute("CREATE TABLE mine.t (x int CHECK (mine.f())); INSERT INTO mine.t VALUES (1)")
    done = transfers.dump("shop")
    restored = transfers.restore(done, "shop")
    assert (restored.status, restored.kind) == ("failed", "altered"), restored
    with server.session("admin", "shop") as admin:
        assert admin.execute("SELECT * FROM admins.secret").fetchone() == (1,)
    with server.superuser() as superuser:
        left = superuser.execute("SELECT 1 FROM pg_database WHERE datname ~ '^_rdb'").fetchall()
    assert not left


SLOW = """
    CREATE FUNCTION public.slow() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
        IF session_user = '_rdb_restore' THEN
            WHILE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'meanwhile') LOOP
                PERFORM pg_sleep(0.05);
            END LOOP;
        END IF;
        RETURN true;
    END $$;
    CREATE TABLE public.t (x int CHECK (public.slow()));
    INSERT INTO public.t VALUES (1);
"""


def test_a_database_that_is_being_loaded_is_nobodys(server: Server, transfers: Transfers) -> None:
    with server.session("admin", "shop") as admin:
        admin.execute(SLOW)
    done = transfers.dump("shop")
    running = transfers.start(transfers.order(transfers.restore_spec(done, "shop")))
    activity = (
        "SELECT datname FROM pg_stat_activity WHERE usename = '_rdb_restore' AND query ~ 'COPY'"
    )
    with server.superuser() as superuser:
        while (found := superuser.execute(activity).fetchone()) is None:
            assert running.poll() is None
    loaded = str(found[0])
    assert loaded not in {one.name for one in server.inside.databases(sizes=False)}
    for user in ("admin", "bob"):
        with pytest.raises(
            psycopg.OperationalError, match=r"permission denied|pg_hba\.conf rejects"
        ):
            server.session(user, loaded)
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
        server.session("_rdb_restore", loaded)
    other = transfers.restore(done, "copy")
    assert (other.status, other.kind) == ("failed", "not_ready"), other
    # Which also sees to roles with names of ours; it ends the function's loop.
    server.inside.create_user("meanwhile", VERIFIER, is_admin=False)
    assert transfers.end(running).status == "done"
    assert "_rdb_restore" not in {one.name for one in server.inside.users()}


QUIET = {
    "a function": "CREATE OR REPLACE FUNCTION admins.whose() RETURNS text LANGUAGE sql "
    "SECURITY DEFINER AS 'SELECT current_user::text'",
    "a view": "CREATE OR REPLACE VIEW admins.v AS SELECT 2 AS one",
    "a policy": "ALTER POLICY p ON admins.secret USING (true)",
    "rows": "UPDATE admins.secret SET one = 2",
    "rows elsewhere": "INSERT INTO mine.loot SELECT one FROM admins.secret",
    "rows of a partition": "DELETE FROM admins.part",
    "a session's settings": "SET session_replication_role = replica; UPDATE admins.secret SET one = 2",
}


@pytest.mark.parametrize("attempt", QUIET)
def test_no_code_changes_what_is_loaded(server: Server, transfers: Transfers, attempt: str) -> None:
    """Not even where it hides that it was refused."""
    with server.session("admin", "shop") as admin:
        admin.execute("""
            CREATE SCHEMA admins;
            CREATE FUNCTION admins.whose() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
            CREATE VIEW admins.v AS SELECT 1 AS one;
            CREATE TABLE admins.secret AS SELECT 1 AS one;
            ALTER TABLE admins.secret ENABLE ROW LEVEL SECURITY;
            CREATE POLICY p ON admins.secret USING (false);
            CREATE TABLE admins.whole (n int) PARTITION BY LIST (n);
            CREATE TABLE admins.part PARTITION OF admins.whole DEFAULT;
            INSERT INTO admins.whole VALUES (1);
        """)
    with server.session("bob", "shop") as bob:
        bob.execute("CREATE SCHEMA mine; CREATE TABLE mine.loot (n int)")
        bob.execute(
            "CREATE FUNCTION mine.f() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN "
            "IF session_user = '_rdb_restore' THEN BEGIN EXECUTE $$"
            f"{QUIET[attempt]}"
            "$$; EXCEPTION WHEN OTHERS THEN NULL; END; END IF; RETURN 1; END $f$"
        )
        bob.execute(
            "CREATE TABLE mine.zz (x int CHECK (mine.f() = 1)); INSERT INTO mine.zz VALUES (1)"
        )
        bob.execute("CREATE INDEX ON mine.zz ((mine.f() + x))")
    restored = transfers.restore(transfers.dump("shop"), "shop")
    assert restored.status == "done", restored
    with server.superuser("shop") as superuser:
        found = {
            what: superuser.execute(query).fetchone()
            for what, query in {
                "function": "SELECT prosecdef FROM pg_proc WHERE proname = 'whose'",
                "view": "SELECT one FROM admins.v",
                "policy": "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy",
                "rows": "SELECT one FROM admins.secret",
                "loot": "SELECT count(*) FROM mine.loot",
                "partition": "SELECT count(*) FROM admins.part",
                "triggers": "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal",
                "guards": "SELECT count(*) FROM pg_proc WHERE proname ~ '_rdb_refuse'",
            }.items()
        }
    assert found == {
        **{"function": (False,), "view": (1,), "policy": ("false",), "rows": (1,)},
        **{"loot": (0,), "partition": (1,), "triggers": (0,), "guards": (0,)},
    }


def test_no_code_sets_anything_for_later_restores(server: Server, transfers: Transfers) -> None:
    with server.session("bob", "shop") as bob:
        bob.execute("""
            CREATE SCHEMA mine;
            CREATE FUNCTION mine.f() RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN
                IF session_user = '_rdb_restore' THEN
                    ALTER ROLE _rdb_restore SET array_nulls = off;
                    EXECUTE format('ALTER ROLE _rdb_restore IN DATABASE %I SET work_mem = 64',
                        current_database());
                END IF;
                RETURN true;
            END $f$;
            CREATE TABLE mine.t (x int CHECK (mine.f()));
            INSERT INTO mine.t VALUES (1);
        """)
    with server.session("admin", "shop") as admin:
        admin.execute("CREATE TABLE public.listed AS SELECT '{NULL}'::text[] AS list")
    done = transfers.dump("shop")
    for _ in range(2):
        assert transfers.restore(done, "shop").status == "done"
    with server.session("admin", "shop") as admin:
        assert admin.execute("SELECT list FROM public.listed").fetchone() == ([None],)
    # Another instance does not have the role, which the backup would need.
    assert transfers.dump("shop", "second").status == "done"
    assert json.loads(transfers.contents("second").read_text())["users"] == ["admin", "bob"]
