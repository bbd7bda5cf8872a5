"""Whose rights code in a dump has while it is loaded: its owner's, as always, and nobody else's."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.postgresql_server import VERIFIER, Server
from tests.support.transfers import Transfers

SECRETS = """
    CREATE SCHEMA admins;
    CREATE TABLE admins.secret AS SELECT 4711 AS one;
    CREATE SEQUENCE admins.numbers; SELECT setval('admins.numbers', 100);
    CREATE VIEW admins.shown AS SELECT lower('ADMIN') AS said;
    SELECT lo_from_bytea(471100, 'of admin');
    REVOKE ALL ON admins.secret, admins.numbers FROM bob;
"""
# Each is tried in a block of its own; what can be read goes to where its owner can see it later.
ATTEMPTS = """
    CREATE SCHEMA aaa;
    CREATE SEQUENCE aaa.seen;
    SELECT lo_from_bytea(815, 'nothing');
    CREATE FUNCTION aaa.lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'bob'$$;
    CREATE FUNCTION aaa.f(place text, x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    DECLARE
        attempt text;
        found int := 0;
    BEGIN
        IF session_user <> '_rdb_restore' THEN
            RETURN x;
        END IF;
        BEGIN
            EXECUTE 'SELECT one FROM admins.secret' INTO found;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        IF found > 0 THEN
            FOREACH attempt IN ARRAY ARRAY[
                format('SELECT lo_put(815, 0, %L)', place),
                format('SELECT setval(''aaa.seen'', %s)', found)
            ] LOOP
                BEGIN
                    EXECUTE attempt;
                EXCEPTION WHEN OTHERS THEN NULL;
                END;
            END LOOP;
        END IF;
        FOREACH attempt IN ARRAY ARRAY[
            'SELECT setval(''admins.numbers'', 666)', 'SELECT nextval(''admins.numbers'')',
            'SELECT lo_put(471100, 8, '', and bob'')', 'SELECT lo_unlink(471100)',
            'SELECT lo_truncate(lo_open(471100, 131072), 2)',
            'ALTER ROLE _rdb_restore SET search_path = aaa'
        ] LOOP
            BEGIN
                EXECUTE attempt;
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
        RETURN x + found;
    END $$;
    CREATE DOMAIN aaa.d AS int CHECK (aaa.f('domain', VALUE) >= 0);
    CREATE TABLE aaa.t (
        x int CHECK (aaa.f('check', x) >= 0), y aaa.d,
        z int GENERATED ALWAYS AS (aaa.f('generated', x)) STORED
    );
    CREATE TABLE aaa.late (LIKE aaa.t INCLUDING ALL);
    CREATE INDEX ON aaa.t (aaa.f('index', x));
    CREATE VIEW aaa.literal AS SELECT '{1}'::aaa.d[] AS d;
    CREATE FUNCTION aaa.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER touch BEFORE INSERT ON aaa.t FOR EACH ROW WHEN (new.x > ('{3}'::aaa.d[])[1])
        EXECUTE FUNCTION aaa.touch();
    CREATE POLICY p ON aaa.t USING (x > ('{3}'::aaa.d[])[1]);
    CREATE STATISTICS aaa.s ON aaa.f('statistics', x), y FROM aaa.t;
    CREATE RULE r AS ON INSERT TO aaa.late DO ALSO SELECT '{1}'::aaa.d[];
    INSERT INTO aaa.t (x, y) VALUES (1, 1);
    INSERT INTO aaa.late (x, y) VALUES (1, 1);
"""


@pytest.fixture
def transfers(server: Server, short_tmp: Path) -> Transfers:
    server.inside.create_user("bob", VERIFIER, is_admin=False)
    server.inside.create_user("carol", VERIFIER, is_admin=False)
    server.inside.create_database("shop")
    for user in ("bob", "carol"):
        server.inside.set_privilege("shop", user, "all")
    return Transfers(server.node, short_tmp)


def test_code_reads_and_changes_nothing_of_others(server: Server, transfers: Transfers) -> None:
    with server.session("admin", "shop") as admin:
        admin.execute(SECRETS)
    with server.session("bob", "shop") as bob:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            bob.execute("SELECT * FROM admins.secret")
        bob.execute(ATTEMPTS)
    restored = transfers.restore(transfers.dump("shop"), "shop")
    assert restored.status == "done", restored
    with server.superuser("shop") as superuser:
        found = {
            what: superuser.execute(sql.SQL(query)).fetchone()
            for what, query in {
                "generated": "SELECT z FROM aaa.t",
                "generated late": "SELECT z FROM aaa.late",
                "seen": "SELECT last_value FROM aaa.seen",
                "written": "SELECT convert_from(lo_get(815), 'UTF8')",
                "numbers": "SELECT last_value FROM admins.numbers",
                "large object": "SELECT convert_from(lo_get(471100), 'UTF8')",
                "settings": "SELECT count(*) FROM pg_db_role_setting s "
                "JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'shop'",
            }.items()
        }
    assert found == {
        **{"generated": (1,), "generated late": (1,), "seen": (1,), "written": ("nothing",)},
        **{"numbers": (100,), "large object": ("of admin",), "settings": (0,)},
    }


SETTINGS = {
    "search_path": "aaa, pg_catalog",
    "standard_conforming_strings": "off",
    "IntervalStyle": "sql_standard",
    "client_encoding": "LATIN1",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_code_gives_no_other_meaning_to_definitions(
    server: Server, transfers: Transfers, setting: str
) -> None:
    """A view that was made with another `search_path` would call functions of another's."""
    with server.session("bob", "shop") as bob:
        bob.execute("""
            CREATE SCHEMA aaa;
            CREATE FUNCTION aaa.lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'bob'$$;
        """)
        bob.execute(
            "CREATE FUNCTION aaa.f(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN "
            "IF session_user = '_rdb_restore' THEN PERFORM "
            f"set_config('{setting}', '{SETTINGS[setting]}', false); END IF; RETURN x; END $$"
        )
        bob.execute("CREATE DOMAIN aaa.d AS int CHECK (aaa.f(VALUE) >= 0)")
        bob.execute("CREATE VIEW aaa.literal AS SELECT '{1}'::aaa.d[] AS d")
    with server.session("admin", "shop") as admin:
        admin.execute("CREATE SCHEMA zzz; CREATE VIEW zzz.shown AS SELECT lower('ADMIN') AS said")
    restored = transfers.restore(transfers.dump("shop"), "shop")
    assert (restored.status, restored.kind) == ("failed", "altered"), restored
    with server.session("admin", "shop") as admin:
        assert admin.execute("SELECT said FROM zzz.shown").fetchone() == ("admin",)


OF_ADMIN = """
    CREATE SCHEMA util; GRANT USAGE ON SCHEMA util TO bob;
    CREATE TABLE util.words (w text PRIMARY KEY); INSERT INTO util.words VALUES ('good');
    GRANT SELECT, REFERENCES ON util.words TO bob;
    CREATE FUNCTION util.is_good(w text) RETURNS bool STABLE LANGUAGE plpgsql AS
        'BEGIN RETURN EXISTS (SELECT FROM util.words o WHERE o.w = $1); END';
    CREATE FUNCTION util.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE SCHEMA lent; GRANT USAGE, CREATE ON SCHEMA lent TO bob;
"""
OF_BOB = """
    CREATE TABLE lent.t (
        id serial PRIMARY KEY, w text REFERENCES util.words, CHECK (util.is_good(w))
    );
    INSERT INTO lent.t (w) VALUES ('good'), ('good');
    CREATE INDEX ON lent.t (upper(w));
    CREATE STATISTICS lent.s ON id, w FROM lent.t;
    CREATE TRIGGER touch BEFORE INSERT ON lent.t FOR EACH ROW EXECUTE FUNCTION util.touch();
    CREATE TABLE lent.whole (n int PRIMARY KEY) PARTITION BY RANGE (n);
    CREATE TABLE lent.part PARTITION OF lent.whole DEFAULT;
    INSERT INTO lent.whole VALUES (7);
    ALTER TABLE lent.part OWNER TO bob;
    COMMENT ON INDEX lent.t_upper_idx IS 'of bob';
    REVOKE INSERT, TRIGGER ON lent.t FROM bob;
    REVOKE UPDATE ON SEQUENCE lent.t_id_seq FROM bob;
"""
SINCE = """
    REVOKE CREATE, USAGE ON SCHEMA lent FROM bob;
    REVOKE REFERENCES ON util.words FROM bob;
    REVOKE EXECUTE ON FUNCTION util.touch() FROM PUBLIC;
    CREATE TABLE lent.zzz (w text REFERENCES util.words); CREATE INDEX ON lent.zzz (w);
"""
_ACLS = """
    SELECT relname::text, relacl::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname IN ('util', 'lent')
    UNION ALL SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname IN ('util', 'lent')
    UNION ALL SELECT proname, proacl::text FROM pg_proc WHERE pronamespace = 'util'::regnamespace
    ORDER BY 1
"""


def test_what_owners_have_lost_since_is_no_obstacle(server: Server, transfers: Transfers) -> None:
    with server.session("admin", "shop") as admin, server.session("bob", "shop") as bob:
        admin.execute(OF_ADMIN)
        bob.execute(OF_BOB)
        admin.execute(SINCE)
    with server.superuser("shop") as superuser:
        before = superuser.execute(_ACLS).fetchall()
    restored = transfers.restore(transfers.dump("shop"), "shop")
    assert restored.status == "done", restored
    with server.superuser("shop") as superuser:
        assert superuser.execute(_ACLS).fetchall() == before
        rows = superuser.execute("SELECT id, w FROM lent.t ORDER BY id").fetchall()
        assert rows == [(1, "good"), (2, "good")]
        assert superuser.execute("SELECT last_value FROM lent.t_id_seq").fetchone() == (2,)
        assert superuser.execute("SELECT n FROM lent.whole").fetchone() == (7,)


def test_names_with_spaces_are_told_apart(server: Server, transfers: Transfers) -> None:
    with server.session("admin", "shop") as admin:
        admin.execute('CREATE ROLE "x carol" IN ROLE carol; GRANT "x carol" TO admin')
        admin.execute(
            'CREATE SCHEMA s; CREATE TABLE s.t (n int); GRANT ALL ON SCHEMA s TO "x carol"'
        )
        admin.execute('ALTER TABLE s.t OWNER TO "x carol"')
    done = transfers.dump("shop")
    assert transfers.restore(done, "shop").status == "done"
    with server.session("carol", "shop") as carol:
        carol.execute('CREATE SCHEMA own; CREATE TABLE own."t x" (n int)')
    restored = transfers.restore(transfers.dump("shop"), "shop")
    assert (restored.status, restored.kind) == ("failed", "ambiguous_owners"), restored
    assert restored.reason.endswith("rename one of carol, x carol")


SLOW = """
    CREATE SCHEMA bobs;
    CREATE FUNCTION bobs.slow() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
        IF session_user = '_rdb_restore' THEN
            WHILE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'meanwhile') LOOP
                PERFORM pg_sleep(0.05);
            END LOOP;
        END IF;
        RETURN true;
    END $$;
    CREATE TABLE bobs.t (x int CHECK (bobs.slow()));
    INSERT INTO bobs.t VALUES (1);
"""


@pytest.mark.parametrize("way", ["a member", "renamed"])
def test_administrators_do_not_join_who_loads(
    server: Server, transfers: Transfers, way: str
) -> None:
    """Up to 15 CREATEROLE would let them; later the server refuses it."""
    with server.session("bob", "shop") as bob:
        bob.execute(SLOW)
    done = transfers.dump("shop")
    running = transfers.start(transfers.order(transfers.restore_spec(done, "shop")))
    activity = (
        "SELECT datname FROM pg_stat_activity WHERE usename = '_rdb_restore' AND query ~ 'COPY'"
    )
    with server.superuser() as superuser:
        while (found := superuser.execute(activity).fetchone()) is None:
            assert running.poll() is None
    role, joined = ("other" if way == "renamed" else "_rdb_restore"), True
    with server.session("admin", "rdb") as admin:
        try:
            if way == "renamed":
                admin.execute("ALTER ROLE _rdb_restore RENAME TO other")
            admin.execute(f"GRANT {role} TO admin")
        except psycopg.errors.InsufficientPrivilege:
            joined = False
    refusal = "" if way == "renamed" and joined else refused(server, str(found[0]))
    with server.superuser() as superuser:
        superuser.execute("CREATE ROLE meanwhile")
    state = transfers.end(running)
    assert (state.status, state.kind) == (("failed", "altered") if joined else ("done", "")), state
    assert re.search(r"pg_hba\.conf rejects|^$", refusal), refusal
    with server.superuser() as superuser:
        if joined:
            superuser.execute(f"REVOKE {role} FROM admin")
        superuser.execute("DROP ROLE meanwhile")
        if joined and way == "renamed":
            superuser.execute("DROP OWNED BY other; DROP ROLE other")
    with server.session("bob", "shop") as bob:
        assert bob.execute("SELECT x FROM bobs.t").fetchone() == (1,)


def refused(server: Server, database: str) -> str:
    """Return why an administrator cannot come into a database."""
    with pytest.raises(psycopg.OperationalError) as caught:
        server.session("admin", database)
    return str(caught.value)
