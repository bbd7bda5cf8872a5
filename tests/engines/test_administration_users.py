"""Users of a real server: made, changed and deleted, whatever SQL has done with them."""

from __future__ import annotations

import pytest
from psycopg import OperationalError, errors, sql

from openrdb.engines.postgresql.scram import verifier
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import User
from tests.support.postgresql_server import VERIFIER, Connection, Server
from tests.support.service import PASSWORD

NAMES = ("a$1", "all", "MiXed-9_", "x" * 63)
OF_SQL = ("o\"n'e {}%s$1", "Ünïcødé", "_x", "1 / a#b?c", ".", "é" * 31)
"""Names that the API refuses for new users; existing users with such names are managed."""


def names(server: Server) -> set[str]:
    return {user.name for user in server.inside.users()} - {"admin"}


def create(server: Server, name: str, *, is_admin: bool = False) -> None:
    server.inside.check_create_user(name)
    server.inside.create_user(name, VERIFIER, is_admin=is_admin)


def delete(server: Server, name: str) -> None:
    server.inside.check_delete_user(name)
    server.inside.delete_user(name)
    assert name not in names(server)
    with server.superuser() as connection:
        query = "SELECT count(*) FROM pg_roles WHERE rolname = %s"
        assert connection.execute(query, [name]).fetchone() == (0,)


def test_names_are_taken_as_they_are(server: Server) -> None:
    for name in NAMES:
        create(server, name)
        with pytest.raises(InvalidArguments, match="invalid"):
            server.inside.check_create_user(name)
        server.inside.set_privilege("rdb", name, "all")
        with server.session(name) as session:
            assert session.execute("SELECT current_user").fetchone() == (name,)
            table = sql.Identifier(f"t {name}"[:63])
            session.execute(sql.SQL("CREATE TABLE {} (id serial)").format(table))
    assert names(server) == set(NAMES)
    for name in NAMES:
        server.inside.set_privilege("rdb", name, "readonly")
        (privilege,) = server.inside.privileges(user=name)
        assert privilege.permission == "readonly"
        delete(server, name)
    assert names(server) == set()


def test_users_that_only_sql_makes(server: Server) -> None:
    inside = server.inside
    with server.session() as admin:
        for name in OF_SQL:
            with pytest.raises(InvalidArguments):
                inside.check_create_user(name)
            role = sql.Identifier(name)
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'wrong'").format(role))
    assert names(server) == set(OF_SQL)
    for name in OF_SQL:
        inside.check_update_user(name)
        inside.update_user(name, verifier=VERIFIER, is_admin=None)
        inside.set_privilege("rdb", name, "readonly")
        with server.session(name) as session:
            assert session.execute("SELECT current_user").fetchone() == (name,)
        delete(server, name)
    assert names(server) == set()


def test_roles_made_by_sql(server: Server) -> None:
    with server.session() as admin:
        admin.execute(f"CREATE ROLE login LOGIN PASSWORD '{PASSWORD}'")
        admin.execute("CREATE ROLE team; CREATE ROLE half LOGIN CREATEROLE")
    assert names(server) == {"login", "half"}
    # Up to 15 who may make roles may give an administrator another password.
    assert User("half", is_admin=True) in server.inside.users()
    with pytest.raises(InvalidArguments):
        server.inside.check_create_user("team")
    for check in (server.inside.check_update_user, server.inside.check_delete_user):
        with pytest.raises(NotFound):
            check("team")
    server.inside.set_privilege("rdb", "login", "readonly")
    server.session("login").close()
    delete(server, "login")


def test_a_new_password_ends_no_session(server: Server) -> None:
    create(server, "bob")
    server.inside.set_privilege("rdb", "bob", "readonly")
    with server.session("bob") as session:
        other = "Another-horse-8-battery"
        server.inside.update_user("bob", verifier=verifier(other), is_admin=None)
        assert session.execute("SELECT 1").fetchone() == (1,)
        server.session("bob", password=other).close()
        with pytest.raises(OperationalError, match="password authentication failed"):
            server.session("bob")
    assert User("bob", is_admin=False) in server.inside.users()


def test_administrators_come_and_go(server: Server) -> None:
    """What an administrator may do beside making roles and databases, on 16 and later as before."""
    create(server, "early")
    create(server, "boss")
    server.inside.set_privilege("rdb", "boss", "readonly")
    server.inside.update_user("boss", verifier=None, is_admin=True)
    create(server, "late")
    server.inside.create_database("shop")
    levels = {one.database: one.permission for one in server.inside.privileges(user="boss")}
    assert levels == {"rdb": "readonly", "shop": "all"}
    with server.session("boss") as boss:
        boss.execute("CREATE ROLE team; GRANT team TO early")
        boss.execute("CREATE DATABASE own")
        for name in ("early", "late"):
            boss.execute(f"ALTER ROLE {name} PASSWORD 'changed' CONNECTION LIMIT 3")
            boss.execute(f"GRANT {name} TO boss")
            boss.execute(f"REVOKE {name} FROM boss")
        # From 16 on they cannot give themselves the option that they have by their role.
        option = "WITH ADMIN OPTION" if server.major < 16 else ""
        boss.execute(f"GRANT team, early TO boss {option}")
        boss.execute("DROP ROLE late; SET ROLE _rdb_admin")
        server.inside.update_user("boss", verifier=None, is_admin=False)
        with pytest.raises(OperationalError):
            boss.execute("SELECT 1")
    with server.session("boss") as boss:
        boss.execute("SELECT 1")
        for statement in (
            "CREATE ROLE another",
            "CREATE DATABASE another",
            "ALTER ROLE early PASSWORD 'again'",
            "GRANT early TO boss",
            "GRANT team TO boss",
            "DROP ROLE team",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                boss.execute(statement)
    assert User("boss", is_admin=False) in server.inside.users()
    levels = {one.database: one.permission for one in server.inside.privileges(user="boss")}
    assert levels == {"rdb": "readonly", "shop": "none"}, "those from before"
    assert member(server, "early", "team"), "what he had granted stays granted"
    server.inside.update_user("boss", verifier=None, is_admin=True)
    with server.session("boss") as boss:
        boss.execute("DROP DATABASE own")
        boss.execute("ALTER ROLE early PASSWORD 'again'; DROP ROLE team")


def member(server: Server, user: str, role: str) -> bool:
    with server.superuser() as connection:
        row = connection.execute("SELECT pg_has_role(%s, %s, 'MEMBER')", [user, role]).fetchone()
        assert row is not None
        return bool(row[0])


def test_the_last_administrator_can_be_deleted_and_another_made(server: Server) -> None:
    create(server, "boss", is_admin=True)
    with server.session("boss") as boss:
        boss.execute("CREATE ROLE app LOGIN; CREATE ROLE team; GRANT team TO app")
    server.inside.update_user("admin", verifier=None, is_admin=False)
    delete(server, "boss")
    assert not any(user.is_admin for user in server.inside.users())
    assert member(server, "app", "team")
    server.inside.update_user("admin", verifier=None, is_admin=True)
    with server.session() as admin:
        admin.execute("ALTER ROLE app PASSWORD 'changed'; DROP ROLE app; DROP ROLE team")


POSSESSIONS = """
    CREATE TABLE kept (id serial PRIMARY KEY, name text);
    INSERT INTO kept (name) VALUES ('row');
    CREATE TABLE parts (id int) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9);
    CREATE VIEW seen AS SELECT * FROM kept;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM kept;
    CREATE SEQUENCE numbers;
    CREATE SCHEMA yard;
    CREATE TYPE yard.mood AS ENUM ('good', 'bad');
    CREATE DOMAIN yard.short AS text CHECK (length(VALUE) < 9);
    CREATE FUNCTION yard.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE PROCEDURE yard.nothing() LANGUAGE sql AS '';
    CREATE AGGREGATE yard.total (int) (SFUNC = int4pl, STYPE = int);
    CREATE OPERATOR yard.|+| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
    CREATE COLLATION yard.plain (LOCALE = 'C');
    CREATE TEXT SEARCH CONFIGURATION yard.words (COPY = simple);
    CREATE TEXT SEARCH DICTIONARY yard.terms (TEMPLATE = simple);
    CREATE CONVERSION yard.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
    CREATE STATISTICS yard.correlated ON id, name FROM kept;
    CREATE PUBLICATION news FOR TABLE kept;
    CREATE EXTENSION hstore;
    SELECT lo_from_bytea(4711, 'large');
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO admin;
    ALTER DEFAULT PRIVILEGES IN SCHEMA yard GRANT EXECUTE ON FUNCTIONS TO admin;
    GRANT SELECT ON kept TO admin WITH GRANT OPTION;
    ALTER TABLE kept ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON kept TO eve, admin USING (true);
    CREATE TEMPORARY TABLE passing (id int);
"""


def test_all_that_a_user_can_own_and_be_granted(server: Server) -> None:
    create(server, "eve", is_admin=True)
    create(server, "bob")
    with server.session() as admin:
        admin.execute("CREATE TABLE given (id int, secret int); CREATE TYPE kind AS ENUM ('a')")
        admin.execute("CREATE FUNCTION two() RETURNS int LANGUAGE sql AS 'SELECT 2'")
        admin.execute("SELECT lo_create(4712)")
        admin.execute("GRANT SELECT ON given TO bob WITH GRANT OPTION")
        admin.execute("GRANT USAGE ON TYPE kind TO eve; GRANT EXECUTE ON FUNCTION two TO eve")
        admin.execute("GRANT SELECT ON LARGE OBJECT 4712 TO eve")
        admin.execute("GRANT INSERT (id) ON given TO eve WITH GRANT OPTION")
        admin.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO eve")
        admin.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON TYPES TO eve")
        admin.execute("CREATE ROLE team; GRANT team TO bob")
    with server.superuser("rdb") as connection:
        connection.execute("GRANT team TO eve; ALTER ROLE eve SET work_mem = '1MB'")
        connection.execute("SET ROLE bob; GRANT SELECT ON public.given TO eve")
    with server.session("eve") as eve:
        eve.execute(POSSESSIONS)
        eve.execute("GRANT INSERT (id) ON given TO bob; CREATE ROLE made; GRANT made TO bob")
        delete(server, "eve")
        with pytest.raises(OperationalError):
            eve.execute("SELECT 1")
    with server.session() as admin:
        assert admin.execute("SELECT name FROM kept").fetchone() == ("row",)
        owners = (
            "SELECT DISTINCT pg_get_userbyid(relowner) ~ '^_rdb_former_0_' FROM pg_class "
            "WHERE relname = ANY(%s)"
        )
        made = ["kept", "parts", "part", "seen", "counted", "numbers", "kept_id_seq"]
        assert admin.execute(owners, [made]).fetchall() == [(True,)]
        assert admin.execute("SELECT yard.one()").fetchone() == (1,)
    assert member(server, "bob", "made")


def test_who_owns_what_only_the_owner_may_end(server: Server) -> None:
    create(server, "eve", is_admin=True)
    with server.session("eve") as eve:
        eve.execute("CREATE DATABASE own")
    with pytest.raises(PreconditionFailed) as refused:
        server.inside.check_delete_user("eve")
    assert "eve owns the database own" in refused.value.help_message
    with server.session() as admin:
        admin.execute("CREATE DATABASE shared")
    with server.session("admin", "shared") as admin:
        admin.execute("CREATE SCHEMA yard; GRANT ALL ON SCHEMA yard TO eve")
    with server.session("eve") as eve:
        eve.execute("DROP DATABASE own")
    with server.session("eve", "shared") as eve:
        eve.execute("CREATE TABLE yard.hers ()")
    with pytest.raises(PreconditionFailed) as refused:
        server.inside.check_delete_user("eve")
    assert "objects in the database shared" in refused.value.help_message
    with server.session("eve", "shared") as eve:
        eve.execute("DROP TABLE yard.hers")
    with server.session() as admin:
        admin.execute("ALTER DATABASE shared ALLOW_CONNECTIONS false")
    with pytest.raises(PreconditionFailed, match="precondition") as refused:
        server.inside.check_delete_user("eve")
    assert "shared, which cannot be entered" in refused.value.help_message
    with server.session() as admin:
        admin.execute("ALTER DATABASE shared ALLOW_CONNECTIONS true")
    delete(server, "eve")


def test_a_deletion_that_is_hindered_changes_nothing(server: Server) -> None:
    create(server, "eve", is_admin=True)
    with server.session("eve") as eve:
        eve.execute("CREATE TABLE hers (); GRANT ALL ON hers TO admin")
    with server.session() as admin:
        admin.execute("BEGIN; LOCK TABLE hers")
        with pytest.raises(PreconditionFailed, match="precondition") as refused:
            server.inside.delete_user("eve")
        assert "another session is in the way" in refused.value.help_message
    server.session("eve").close()
    delete(server, "eve")


def test_an_owner_of_thousands(server: Server) -> None:
    """More relations than one transaction could lock."""
    create(server, "eve", is_admin=True)
    with server.session("eve") as eve:
        make_tables(eve, 500)
    server.inside.set_privilege("rdb", "eve", "readonly")
    (privilege,) = server.inside.privileges(user="eve")
    assert privilege.permission == "readonly"
    delete(server, "eve")


def make_tables(session: Connection, number: int) -> None:
    for first in range(0, number, 100):
        names = range(first, min(first + 100, number))
        statements = [f"CREATE TABLE t{name} (id serial PRIMARY KEY, x text)" for name in names]
        session.execute("; ".join(statements))


@pytest.mark.parametrize("name", ["_rdb_superadmin", "postgres", "pg_monitor"])
def test_reserved_names(server: Server, name: str) -> None:
    inside = server.inside
    for check in (inside.check_create_user, inside.check_update_user, inside.check_delete_user):
        with pytest.raises(InvalidArguments) as refused:
            check(name)
        assert refused.value.details[0][0] == "name"
