"""Permission levels on a real server: exact, whatever was there before, for all that comes later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import errors, sql

from openrdb.engines.postgresql.admin.record import LEVELS as LEVELS_TABLE
from openrdb.errors import NotFound, PreconditionFailed
from openrdb.spec import Permission
from tests.support.postgresql_server import VERIFIER, Connection, Server

LEVELS: tuple[Permission, ...] = ("none", "readonly", "readwrite", "all")
DATABASE = "shop"


@pytest.fixture
def shop(server: Server) -> Server:
    """A database, its administrator, and the users bob and carol, who may do nothing."""
    server.inside.create_database(DATABASE)
    for name in ("bob", "carol"):
        server.inside.create_user(name, VERIFIER, is_admin=False)
    return server


def level(server: Server, user: str = "bob") -> str:
    (found,) = server.inside.privileges(database=DATABASE, user=user)
    return found.permission


def assert_effective(server: Server, user: str, expected: str) -> None:
    """What the level says, by trying it on everything that there is."""
    at = LEVELS.index(expected)  # type: ignore[arg-type]
    with server.superuser(DATABASE) as connection:
        relations = connection.execute(
            "SELECT quote_ident(nspname), quote_ident(relname), relkind FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r','p','v','m','f','S') "
            "AND nspname !~ '^pg_' AND nspname <> 'information_schema' "
            "AND relowner <> (SELECT oid FROM pg_roles WHERE rolname = %s)",
            [user],
        ).fetchall()
        schemas = connection.execute(
            "SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^pg_' "
            "AND nspname <> 'information_schema'"
        ).fetchall()
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(user)))
        for privilege, least in (("CONNECT", 1), ("TEMPORARY", 2), ("CREATE", 3)):
            query = "SELECT has_database_privilege(current_database(), %s)"
            row = connection.execute(query, [privilege]).fetchone()
            assert row == (at >= least,), privilege
        for (schema,) in schemas:
            may(connection, f"CREATE TABLE {schema}.probe ()", at >= 3)
        for schema, name, kind in relations:
            if kind == "S":
                may(connection, f"SELECT last_value FROM {schema}.{name}", at >= 1)
                may(connection, f"SELECT setval('{schema}.{name}', 1)", at >= 2)
            elif kind != "f":
                may(connection, f"SELECT FROM {schema}.{name} LIMIT 0", at >= 1)
                may(connection, f"TABLE {schema}.{name} LIMIT 0", at >= 1)
            if kind in "rp":
                may(connection, f"DELETE FROM {schema}.{name} WHERE false", at >= 2)
                may(connection, f"TRUNCATE {schema}.{name} CASCADE", at >= 2)
        connection.execute("RESET ROLE")


def may(connection: Connection, statement: str, allowed: bool) -> None:
    connection.execute("BEGIN")
    try:
        connection.execute(statement)
        done = True
    except errors.InsufficientPrivilege:
        done = False
    finally:
        connection.execute("ROLLBACK")
    assert done == allowed, statement


@contextmanager
def acting(server: Server, *users: str) -> Iterator[dict[str, Connection]]:
    """Sessions that are already there when the level changes."""
    sessions = {user: server.superuser(DATABASE) for user in users}
    for user, session in sessions.items():
        session.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(user)))
        session.execute("SET search_path = public")
    yield sessions
    for session in sessions.values():
        session.close()


# -- what is made later, by anybody ------------------------------------------------------------------

LATER = """
    CREATE SCHEMA "Yard {{}}";
    CREATE SCHEMA inner_yard CREATE TABLE t (id serial) CREATE VIEW v AS SELECT 1 AS one;
    CREATE TABLE "Yard {{}}"."t%{{}}" (id serial, n int GENERATED ALWAYS AS IDENTITY, x text);
    CREATE TABLE inner_yard.copy (LIKE "Yard {{}}"."t%{{}}" INCLUDING ALL);
    CREATE TABLE {0}_as AS SELECT 1 AS one;
    SELECT 1 AS one INTO {0}_into;
    CREATE VIEW {0}_view AS SELECT 1 AS one;
    CREATE RECURSIVE VIEW {0}_recursive (n) AS SELECT 1;
    CREATE MATERIALIZED VIEW {0}_materialized AS SELECT 1 AS one;
    CREATE TABLE {0}_parts (id int, n int) PARTITION BY RANGE (id);
    CREATE TABLE {0}_part PARTITION OF {0}_parts FOR VALUES FROM (0) TO (9);
    CREATE TABLE {0}_child () INHERITS ({0}_as);
    CREATE UNLOGGED TABLE {0}_unlogged (id int);
    CREATE SEQUENCE {0}_numbers;
    CREATE TABLE {0}_late (id int);
    ALTER TABLE {0}_late ADD n serial;
    ALTER TABLE {0}_late ADD m bigint GENERATED BY DEFAULT AS IDENTITY;
    CREATE TEMPORARY TABLE passing (id serial);
    DO 'BEGIN CREATE TABLE {0}_within (id serial); END';
    CREATE TABLE moved (id int);
    ALTER TABLE moved SET SCHEMA inner_yard;
    ALTER TABLE inner_yard.moved RENAME TO renamed;
"""


@pytest.mark.parametrize("maker", ["admin", "carol", "newcomer"])
def test_what_is_made_later(shop: Server, maker: str) -> None:
    """By the administrator, by another user, by a role that is made by SQL only then."""
    shop.inside.set_privilege(DATABASE, "carol", "all")
    shop.inside.create_user("dave", VERIFIER, is_admin=False)
    wanted: dict[str, Permission] = {"bob": "readonly", "dave": "readwrite", "admin": "all"}
    for user, permission in wanted.items():
        shop.inside.set_privilege(DATABASE, user, permission)
    with shop.superuser(DATABASE) as connection:
        if maker == "newcomer":
            connection.execute("CREATE ROLE newcomer")
            connection.execute("GRANT CREATE, TEMPORARY ON DATABASE shop TO newcomer")
            connection.execute("GRANT CREATE ON SCHEMA public TO newcomer")
        connection.execute(f"SET ROLE {maker}; SET search_path = public")
        connection.execute(LATER.format(maker))
        connection.execute("RESET ROLE")
        if maker == "admin":
            connection.execute(
                "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN "
                "DATA WRAPPER nothing; GRANT USAGE ON FOREIGN SERVER nowhere TO admin"
            )
            connection.execute("SET ROLE admin")
            connection.execute("CREATE FOREIGN TABLE abroad (id int) SERVER nowhere")
            connection.execute("CREATE EXTENSION pg_stat_statements")
    for user, permission in wanted.items():
        assert level(shop, user) == permission
        assert_effective(shop, user, permission)
    with shop.superuser(DATABASE) as connection:  # everybody may see its views
        connection.execute("DROP EXTENSION IF EXISTS pg_stat_statements")
    for permission in reversed(LEVELS):
        shop.inside.set_privilege(DATABASE, "bob", permission)
        assert level(shop) == permission
        assert_effective(shop, "bob", permission)


def test_what_is_being_made_while_a_level_is_set(shop: Server) -> None:
    """In a transaction that ends only after the level was asked for."""
    with shop.session("admin", DATABASE) as admin:
        admin.execute("BEGIN; CREATE TABLE early (id serial)")
        setting = threading.Thread(
            target=shop.inside.set_privilege, args=(DATABASE, "bob", "readonly")
        )
        setting.start()
        with shop.superuser(DATABASE) as connection:
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
            while connection.execute(waiting, [LEVELS_TABLE]).fetchone() is None:
                assert setting.is_alive()
        admin.execute("COMMIT")
        setting.join(30)
        admin.execute("CREATE TABLE later (id serial)")
    assert level(shop) == "readonly"
    assert_effective(shop, "bob", "readonly")


# -- what is not of ours -------------------------------------------------------------------------------

PREPARED = """
    CREATE SCHEMA yard;
    CREATE TABLE yard.t (id serial, secret text);
    CREATE FUNCTION yard.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TYPE yard.mood AS ENUM ('good', 'bad');
    SELECT lo_create(4711);
"""
FOREIGN = {
    "table": "GRANT TRIGGER ON yard.t TO bob",
    "revoked": "REVOKE SELECT ON yard.t FROM bob",
    "column": "GRANT UPDATE (secret) ON yard.t TO bob",
    "option": "GRANT SELECT ON yard.t TO bob WITH GRANT OPTION",
    "sequence": "GRANT USAGE ON SEQUENCE yard.t_id_seq TO bob",
    "schema": "GRANT CREATE ON SCHEMA yard TO bob",
    "function": "GRANT EXECUTE ON FUNCTION yard.one TO bob",
    "type": "GRANT USAGE ON TYPE yard.mood TO bob",
    "large object": "GRANT SELECT ON LARGE OBJECT 4711 TO bob",
    "default": "ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO bob",
    "default in schema": "ALTER DEFAULT PRIVILEGES IN SCHEMA yard GRANT USAGE ON TYPES TO bob",
    "member": "GRANT carol TO bob",
    "member of a member": "CREATE ROLE team; GRANT team TO bob; GRANT carol TO team",
    "owner": "GRANT bob TO admin; GRANT ALL ON SCHEMA yard TO bob; ALTER TABLE yard.t OWNER TO bob;"
    "REVOKE ALL ON SCHEMA yard FROM bob; GRANT USAGE ON SCHEMA yard TO bob; REVOKE bob FROM admin",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_grants_by_sql_are_custom(shop: Server, what: str) -> None:
    with shop.session("admin", DATABASE) as admin:
        admin.execute(PREPARED)
        shop.inside.set_privilege(DATABASE, "carol", "readwrite")
        shop.inside.set_privilege(DATABASE, "bob", "readonly")
        assert level(shop) == "readonly"
        for statement in FOREIGN[what].split(";"):
            admin.execute(statement)
        assert level(shop) == "custom"
        for permission in ("readonly", "all"):
            shop.inside.set_privilege(DATABASE, "bob", permission)  # type: ignore[arg-type]
            assert level(shop) == permission
            assert_effective(shop, "bob", permission)
        assert level(shop, "carol") == "readwrite"


def test_grants_by_others_than_the_owner(shop: Server) -> None:
    with shop.session("admin", DATABASE) as admin:
        admin.execute(PREPARED)
        admin.execute('CREATE TABLE "odd {} %s" (id int)')
        for statement in (
            "ALL ON SCHEMA yard",
            'ALL ON TABLE "odd {} %s"',
            "SELECT (secret) ON TABLE yard.t",
            "ALL ON FUNCTION yard.one",
            "ALL ON TYPE yard.mood",
            "ALL ON LARGE OBJECT 4711",
        ):
            admin.execute(f"GRANT {statement} TO carol WITH GRANT OPTION")
            with shop.superuser(DATABASE) as carol:
                carol.execute("SET ROLE carol; SET search_path = public")
                carol.execute(f"GRANT {statement} TO bob")
        admin.execute(
            "CREATE SCHEMA shut; CREATE TABLE shut.t (); GRANT USAGE ON SCHEMA shut TO carol"
        )
        admin.execute("GRANT ALL ON shut.t TO carol WITH GRANT OPTION")
        with shop.superuser(DATABASE) as carol:
            carol.execute("SET ROLE carol; GRANT ALL ON shut.t TO bob")
        admin.execute("REVOKE USAGE ON SCHEMA shut FROM carol")
    for permission in ("none", "all", "readonly"):
        shop.inside.set_privilege(DATABASE, "bob", permission)  # type: ignore[arg-type]
        assert level(shop) == permission
        assert_effective(shop, "bob", permission)
    assert level(shop, "carol") == "custom"
    shop.inside.delete_user("carol")


def test_memberships_that_do_not_matter_here_stay(shop: Server) -> None:
    """A role without rights in a database changes nobody's level there, nor is it left."""
    with shop.session("admin", DATABASE) as admin:
        admin.execute("CREATE ROLE team; GRANT team TO bob; GRANT team TO admin")
        for permission in ("readonly", "none"):
            shop.inside.set_privilege(DATABASE, "bob", permission)  # type: ignore[arg-type]
            assert level(shop) == permission
        shop.inside.create_database("another")
        roles = (
            "SELECT pg_has_role('bob', 'team', 'MEMBER'), pg_has_role('admin', 'team', 'MEMBER')"
        )
        assert admin.execute(roles).fetchone() == (True, True)
        admin.execute("CREATE TABLE t (); GRANT SELECT ON t TO team")
        assert level(shop) == "custom"
        assert level(shop, "admin") == "all", "who has all has no more by a role"


def test_large_objects_and_temporary_tables_are_left_alone(shop: Server) -> None:
    shop.inside.set_privilege(DATABASE, "bob", "readwrite")
    with shop.session("bob", DATABASE) as bob:
        bob.execute(
            "SELECT lo_from_bytea(4711, 'mine'); CREATE TEMPORARY TABLE passing AS SELECT 1"
        )
        assert level(shop) == "readwrite"
        shop.inside.set_privilege(DATABASE, "bob", "readonly")
        assert bob.execute("SELECT lo_get(4711) FROM passing").fetchone() == (b"mine",)
    assert level(shop) == "readonly"


def test_none_ends_sessions(shop: Server) -> None:
    shop.inside.set_privilege(DATABASE, "bob", "readonly")
    with shop.session("bob", DATABASE) as bob:
        shop.inside.set_privilege(DATABASE, "bob", "none")
        with pytest.raises(psycopg.OperationalError):
            bob.execute("SELECT 1")


def test_refusals(shop: Server) -> None:
    for database, user in (("nowhere", "bob"), (DATABASE, "nobody"), ("postgres", "bob")):
        with pytest.raises(NotFound):
            shop.inside.check_set_privilege(database, user)
    with shop.session("admin", DATABASE) as admin:
        admin.execute("BEGIN; CREATE TABLE open ()")
        with pytest.raises(PreconditionFailed) as hindered:
            shop.inside.set_privilege(DATABASE, "bob", "readonly")
        assert "another session is in the way" in hindered.value.help_message
    assert level(shop) == "none"


# -- all at once ---------------------------------------------------------------------------------------


def test_changes_at_once(shop: Server) -> None:
    """Levels are set while SQL grants, makes and drops; the last one set is the one there is."""
    with shop.session("admin", DATABASE) as admin:
        for number in range(30):
            admin.execute(f"CREATE TABLE t{number} (id int)")
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def granting() -> None:
        with shop.session("admin", DATABASE) as admin:
            while not stop.is_set():
                for number in range(30):
                    try:
                        admin.execute(f"GRANT INSERT ON t{number} TO bob")
                        admin.execute(f"REVOKE ALL ON t{number} FROM bob")
                    except (errors.InternalError_, errors.DeadlockDetected):
                        pass  # the tenant's own: the server lets two at once fail

    def churning() -> None:
        with shop.session("admin", DATABASE) as admin:
            while not stop.is_set():
                admin.execute("CREATE TABLE staging (id serial PRIMARY KEY)")
                admin.execute("DROP TABLE staging")

    noise = [guarded(granting), guarded(churning)]
    for turn in range(6):
        shop.inside.set_privilege(DATABASE, "bob", LEVELS[turn % 4])
        shop.inside.set_privilege(DATABASE, "carol", LEVELS[(turn + 1) % 4])
        assert level(shop, "carol") == LEVELS[(turn + 1) % 4]
    stop.set()
    for thread in noise:
        thread.join(60)
    assert not failures
    shop.inside.set_privilege(DATABASE, "bob", "readwrite")
    assert level(shop) == "readwrite"
    assert_effective(shop, "bob", "readwrite")


ROLES = st.sampled_from(["bob", "carol"])
SCHEMA = st.sampled_from(["public", "a", "b"])
NAME = st.sampled_from(["t", "u"])
STATEMENT = st.one_of(
    st.builds("CREATE SCHEMA {0}".format, SCHEMA),
    st.builds("DROP SCHEMA {0} CASCADE".format, st.sampled_from(["a", "b"])),
    st.builds("CREATE TABLE {0}.{1} (id serial, x text)".format, SCHEMA, NAME),
    st.builds("CREATE VIEW {0}.{1} AS SELECT 1 AS one".format, SCHEMA, NAME),
    st.builds("CREATE SEQUENCE {0}.{1}".format, SCHEMA, NAME),
    st.builds("DROP TABLE {0}.{1} CASCADE".format, SCHEMA, NAME),
    st.builds("ALTER TABLE {0}.{1} ADD more serial".format, SCHEMA, NAME),
    st.builds("ALTER TABLE {0}.{1} OWNER TO {2}".format, SCHEMA, NAME, ROLES),
    st.builds(
        "{0} {1} ON {2}.{3} {4} {5}".format,
        st.just("GRANT"), st.sampled_from(["ALL", "SELECT", "INSERT (x)", "TRIGGER"]), SCHEMA, NAME,
        st.just("TO"), st.sampled_from(["bob", "carol", "bob WITH GRANT OPTION", "team"]),
    ),
    st.builds("REVOKE ALL ON {0}.{1} FROM {2} CASCADE".format, SCHEMA, NAME, ROLES),
    st.builds("GRANT ALL ON SCHEMA {0} TO {1} WITH GRANT OPTION".format, SCHEMA, ROLES),
    st.builds("GRANT {0} TO {1}".format, st.sampled_from(["bob", "carol", "team"]), ROLES),
    st.builds("REVOKE {0} FROM {1}".format, st.sampled_from(["bob", "carol", "team"]), ROLES),
    st.builds("ALTER DEFAULT PRIVILEGES GRANT ALL ON {0} TO {1}".format,
              st.sampled_from(["TABLES", "SCHEMAS", "FUNCTIONS", "SEQUENCES", "TYPES"]), ROLES),
    st.builds("CREATE FUNCTION {0}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'".format, SCHEMA),
    st.builds("GRANT EXECUTE ON FUNCTION {0}.f TO {1}".format, SCHEMA, ROLES),
)  # fmt: skip
STEP = st.one_of(
    st.tuples(st.sampled_from(["admin", "bob", "carol"]), STATEMENT),
    st.tuples(st.sampled_from(["admin", "bob", "carol"]), STATEMENT),
    st.tuples(st.sampled_from(["level"]), st.tuples(ROLES, st.sampled_from(LEVELS))),
)


@settings(
    max_examples=6,
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEP, min_size=15, max_size=30), last=st.sampled_from(LEVELS))
def test_a_level_set_is_the_level(shop: Server, steps: list[Any], last: Permission) -> None:
    """Whatever was granted, made and owned before, and whatever the others make afterwards."""
    shop.inside.delete_database(DATABASE)
    shop.inside.create_database(DATABASE)
    with shop.superuser(DATABASE) as connection:
        connection.execute("DROP ROLE IF EXISTS team; CREATE ROLE team")
    with acting(shop, "admin", "bob", "carol") as sessions:
        for actor, what in [*steps, ("level", ("bob", last))]:
            if actor == "level":
                user, permission = what
                shop.inside.set_privilege(DATABASE, user, permission)
                assert level(shop, user) == permission
                assert_effective(shop, user, permission)
                continue
            with suppress(errors.Error):  # the server may not let this role do it
                sessions[actor].execute(what)
        sessions["admin"].execute("CREATE TABLE IF NOT EXISTS public.afterwards (id serial)")
    assert level(shop) == last
    assert_effective(shop, "bob", last)
