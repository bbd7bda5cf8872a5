"""Administrators: what they have whatever level is set, what they may do and grant, and that none is
hidden."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import OperationalError, errors

from openrdb.errors import InvalidArguments, NotFound
from openrdb.spec import User
from tests.support.postgresql_server import VERIFIER, Connection, Server
from tests.support.service import PASSWORD

LOGIN = f"LOGIN PASSWORD '{PASSWORD}'"


@pytest.fixture
def shop(server: Server) -> Iterator[Server]:
    """A database, the administrator boss, and bob, who has nothing."""
    server.inside.create_database("shop")
    server.inside.create_user("boss", VERIFIER, is_admin=True)
    server.inside.create_user("bob", VERIFIER, is_admin=False)
    yield server
    with server.superuser() as superuser:
        superuser.execute("DROP ROLE IF EXISTS _rdb_stealth, _rdb_former_7")


def levels(server: Server, user: str) -> dict[str, str]:
    return {one.database: one.permission for one in server.inside.privileges(user=user)}


def refused(session: Connection, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(statement)


# -- levels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["none", "readonly", "readwrite", "all"])
def test_access_whatever_level_is_set(shop: Server, level: str) -> None:
    shop.inside.set_privilege("shop", "boss", level)  # type: ignore[arg-type]
    assert levels(shop, "boss") == {"rdb": "all", "shop": "all" if level == "none" else level}
    with shop.session("admin", "shop") as admin:
        admin.execute("CREATE TABLE t (id serial); CREATE SCHEMA yard; CREATE TABLE yard.t ()")
    with shop.session("boss", "shop") as boss:
        boss.execute("INSERT INTO t VALUES (1); TABLE yard.t; CREATE TABLE yard.own (id int)")
        shop.inside.set_privilege("shop", "boss", level)  # type: ignore[arg-type]
        boss.execute("ALTER TABLE yard.own ADD x int")
    shop.inside.update_user("boss", verifier=None, is_admin=False)
    assert levels(shop, "boss") == {"rdb": "none", "shop": level}
    for database, entered in (("rdb", False), ("shop", level != "none")):
        if entered:
            with shop.session("boss", database) as boss:
                boss.execute("TABLE t")
                if level != "all":
                    refused(boss, "CREATE TABLE more ()", "DROP TABLE yard.own")
        else:
            with pytest.raises(OperationalError, match="permission denied"):
                shop.session("boss", database)
    shop.inside.update_user("boss", verifier=None, is_admin=True)
    with shop.session("boss", "rdb") as boss:
        boss.execute("CREATE TABLE again ()")
    with shop.session("boss", "shop") as boss:
        boss.execute("DROP TABLE yard.own")


def test_who_becomes_one_while_others_act_as_them(shop: Server) -> None:
    """Roles cannot be members of each other: who was granted is put aside."""
    with shop.session() as admin:
        admin.execute("CREATE ROLE team; GRANT bob TO team; GRANT bob TO admin")
    shop.inside.update_user("bob", verifier=None, is_admin=True)
    with shop.session("bob", "shop") as bob:
        bob.execute("CREATE TABLE t (); CREATE ROLE another; DROP ROLE another")
    assert levels(shop, "bob") == {"rdb": "all", "shop": "all"}
    shop.inside.update_user("bob", verifier=None, is_admin=False)
    with shop.session("admin", "shop") as admin:
        admin.execute("DROP TABLE t; DROP ROLE team")


# -- what they may do ----------------------------------------------------------------------------------


def test_databases_can_be_opened_to_roles_made_by_sql(shop: Server) -> None:
    with shop.session("admin", "shop") as admin:
        admin.execute(f"CREATE TABLE t (); CREATE ROLE x {LOGIN}")
        assert levels(shop, "x") == {"rdb": "none", "shop": "none"}
        admin.execute("GRANT CONNECT, TEMPORARY ON DATABASE shop TO x; GRANT SELECT ON t TO x")
        with shop.session("x", "shop") as x:
            x.execute("TABLE t; CREATE TEMPORARY TABLE passing ()")
        assert levels(shop, "x") == {"rdb": "none", "shop": "custom"}
        for level in ("readonly", "none"):
            shop.inside.set_privilege("shop", "x", level)  # type: ignore[arg-type]
            assert levels(shop, "x") == {"rdb": "none", "shop": level}
        with pytest.raises(OperationalError, match="permission denied"):
            shop.session("x", "shop")
        admin.execute("GRANT CONNECT ON DATABASE shop TO x; REVOKE CONNECT ON DATABASE shop FROM x")
        shop.inside.delete_user("boss")
        admin.execute("DROP ROLE x")
    assert levels(shop, "bob") == {"rdb": "none", "shop": "none"}
    assert levels(shop, "admin")["shop"] == "all"


MAKING = (
    "CREATE TABLE trap ()",
    "CREATE TEMPORARY TABLE trap ()",
    "CREATE SCHEMA trap",
    "CREATE FUNCTION trap() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION hstore",
    "CREATE TYPE trap AS ENUM ()",
    "CREATE PUBLICATION trap",
    "GRANT CREATE ON DATABASE {0} TO admin",
    "GRANT CREATE ON SCHEMA public TO admin",
    "ALTER DATABASE {0} SET search_path = 'trap'",
    "BEGIN; LOCK TABLE pg_database IN ROW EXCLUSIVE MODE",
)


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_databases_that_tools_come_into(shop: Server, database: str) -> None:
    """The superuser works in one of them, and the other is copied: nothing can be made there."""
    with shop.session("admin", database) as admin:
        for statement in MAKING:
            try:
                admin.execute(statement.format(database))
            except errors.InsufficientPrivilege:
                admin.execute("ROLLBACK")
        admin.execute("SELECT lo_create(4711); ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO bob")
    with shop.superuser(database) as superuser:
        made = (
            "SELECT count(*) FROM pg_class WHERE relname = 'trap' UNION ALL "
            "SELECT count(*) FROM pg_proc WHERE proname = 'trap' UNION ALL "
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'trap' UNION ALL "
            "SELECT count(*) FROM pg_type WHERE typname = 'trap' UNION ALL "
            "SELECT count(*) FROM pg_publication UNION ALL "
            "SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql' UNION ALL "
            "SELECT count(*) FROM pg_db_role_setting WHERE setrole <> 10 UNION ALL "
            "SELECT count(*) FROM pg_database, aclexplode(datacl) WHERE datname = current_database() "
            "AND privilege_type <> 'CONNECT' AND grantee <> 10"
        )
        assert {number for (number,) in superuser.execute(made)} == {0}
    with pytest.raises(OperationalError, match="permission denied"):
        shop.session("bob", database)
    shop.inside.create_database("later")
    with shop.superuser("later") as superuser:
        copied = (
            "SELECT (SELECT count(*) FROM pg_largeobject_metadata) + count(*) FROM pg_default_acl"
        )
        assert superuser.execute(copied).fetchone() == (0,)
    with shop.session("admin", database) as admin:
        admin.execute("SELECT lo_unlink(4711)")
        admin.execute(
            "GRANT CONNECT ON DATABASE postgres TO bob; REVOKE CONNECT ON DATABASE postgres FROM bob"
        )
        admin.execute("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM bob")


NO_MEMBERS = (errors.InternalError_, errors.FeatureNotSupported)
"""How `pg_database_owner` refuses to be granted."""
GRANTABLE = {
    "pg_monitor": 14,
    "pg_read_all_settings": 14,
    "pg_read_all_stats": 14,
    "pg_stat_scan_tables": 14,
    "pg_checkpoint": 15,
    "pg_signal_backend": 16,
    "pg_signal_autovacuum_worker": 18,
}


def test_predefined_roles(shop: Server) -> None:
    with shop.session() as admin:
        named = admin.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^pg_'").fetchall()
        for (role,) in named:
            try:
                admin.execute(f"GRANT {role} TO bob".encode())
                done = True
            except (errors.InsufficientPrivilege, *NO_MEMBERS):
                done = False
            assert done == (shop.major >= GRANTABLE.get(role, 99)), role
        for role, since in GRANTABLE.items():
            if shop.major >= since:
                admin.execute(f"REVOKE {role} FROM bob".encode())


def test_signals_reach_users_and_nobody_of_ours(shop: Server) -> None:
    shop.inside.set_privilege("shop", "bob", "readonly")
    with shop.session() as admin, shop.superuser() as superuser, shop.session("bob", "shop") as bob:
        processes = (
            "SELECT pid FROM pg_stat_activity WHERE usename IS NULL "
            "AND backend_type !~ 'autovacuum worker'"
        )
        own = [row[0] for row in superuser.execute(processes).fetchall()]
        for victim in (superuser.info.backend_pid, *own):
            for function in ("pg_terminate_backend", "pg_cancel_backend"):
                try:
                    done = admin.execute(f"SELECT {function}(%s)", [victim]).fetchone()
                except errors.InsufficientPrivilege:
                    continue
                assert done == (False,), "no process that takes such orders"
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [bob.info.backend_pid])
        with pytest.raises(OperationalError):
            bob.execute("SELECT 1")


def test_statistics_of_extensions(shop: Server) -> None:
    with shop.session("admin", "shop") as admin:
        for name in ("pg_stat_statements", "pg_buffercache", "pg_freespacemap"):
            admin.execute(f"CREATE EXTENSION {name}".encode())
        admin.execute("SELECT pg_stat_statements_reset(); CREATE TABLE t (id int)")
        admin.execute("SELECT count(*) FROM pg_buffercache; SELECT * FROM pg_freespace('t')")
    shop.inside.set_privilege("shop", "bob", "all")
    with shop.session("bob", "shop") as bob:
        refused(bob, "SELECT pg_stat_statements_reset()", "SELECT * FROM pg_buffercache")


def test_triggers_can_be_left_out_where_the_server_can_grant_it(shop: Server) -> None:
    """As tools for loading data do. Levels are applied all the same."""
    shop.inside.set_privilege("shop", "bob", "readonly")
    with shop.session("admin", "shop") as admin:
        if shop.major < 15:
            refused(admin, "SET session_replication_role = replica")
            return
        admin.execute("SET session_replication_role = replica; CREATE TABLE t ()")
        admin.execute("CREATE DATABASE own")
        admin.execute("ALTER DATABASE own SET session_replication_role = replica")
        # Only a warning says that nothing was granted.
        admin.execute("GRANT SET ON PARAMETER session_replication_role TO bob")
        refused(admin, "ALTER DATABASE shop SET session_replication_role = replica")
    with shop.superuser("own") as superuser:
        shown = superuser.execute("SHOW session_replication_role").fetchone()
        assert shown == ("origin",), "not in our own sessions"
    with shop.session("bob", "shop") as bob:
        bob.execute("TABLE t")
        refused(bob, "SET session_replication_role = replica")


ON_THEIR_ROLE = (
    "ALTER ROLE _rdb_admin LOGIN PASSWORD 'taken' SUPERUSER",
    "ALTER ROLE _rdb_admin LOGIN CREATEROLE PASSWORD 'taken'",
    "ALTER ROLE _rdb_admin RENAME TO taken",
    "ALTER ROLE _rdb_former_0 RENAME TO taken",
    "DROP ROLE _rdb_admin",
    "DROP OWNED BY _rdb_admin",
    "DROP OWNED BY _rdb_former",
    "REASSIGN OWNED BY _rdb_admin TO admin",
    "REVOKE _rdb_admin FROM boss",
    "REVOKE pg_monitor FROM _rdb_admin",
    "REVOKE CONNECT ON DATABASE shop FROM _rdb_admin CASCADE",
    "GRANT _rdb_admin TO bob",
    "GRANT bob TO _rdb_former_0",
    "GRANT bob TO pg_monitor",
)


@pytest.mark.parametrize("statement", ON_THEIR_ROLE)
def test_what_is_done_to_their_role_is_refused_or_undone(shop: Server, statement: str) -> None:
    """Up to 15 CREATEROLE reaches it: by the next change through the API it is as before."""
    with shop.session("admin", "shop") as admin:
        try:
            admin.execute(statement.encode())
        except errors.Error as error:
            assert not isinstance(error, psycopg.OperationalError)
    for role in ("_rdb_admin", "_rdb_former_0"):
        with pytest.raises(OperationalError):
            shop.session(role, password="taken")
    shop.inside.update_user("bob", verifier=None, is_admin=True)
    shop.inside.update_user("bob", verifier=None, is_admin=False)
    with shop.session("boss", "shop") as boss:
        boss.execute(
            "CREATE TABLE t (); GRANT CONNECT ON DATABASE shop TO bob; SHOW data_directory"
        )
        boss.execute("REVOKE CONNECT ON DATABASE shop FROM bob")
    for name in ("taken", "bob"):
        if name in {user.name for user in shop.inside.users()}:
            shop.inside.check_delete_user(name)
            shop.inside.delete_user(name)
    for database in ("rdb", "shop", "postgres"):
        with shop.superuser(database) as superuser:
            if superuser.execute("SELECT 1 FROM pg_roles WHERE rolname = 'taken'").fetchone():
                superuser.execute("DROP OWNED BY taken")
    with shop.superuser() as superuser:
        superuser.execute("DROP ROLE IF EXISTS taken")


# -- nobody is hidden ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_rdb_stealth", "_rdb_former_7"])
def test_a_reserved_name_hides_nobody(shop: Server, name: str) -> None:
    with shop.session("boss") as boss:
        boss.execute(f"CREATE ROLE {name} CREATEDB CREATEROLE {LOGIN}".encode())
    if shop.major >= 16:
        with pytest.raises(OperationalError, match=r"pg_hba\.conf rejects"):
            shop.session(name, "postgres")
        with pytest.raises(OperationalError, match=r"pg_hba\.conf rejects"):
            shop.session(name)
    assert User(name, is_admin=True) in shop.inside.users()
    shop.inside.check_update_user(name)
    shop.inside.check_delete_user(name)
    # When its maker is deleted, its sessions end and it cannot log in again.
    shop.inside.delete_user("boss")
    with pytest.raises(OperationalError, match=r"not permitted to log in|rejects"):
        shop.session(name)
    shop.inside.create_user("next", VERIFIER, is_admin=True)
    with shop.superuser() as superuser:
        rights = "SELECT rolcanlogin, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = %s"
        left = superuser.execute(rights, [name]).fetchone()
        assert left in (None, (False, False, False)), "an empty one of former users' is dropped"
    with shop.session("next") as another:
        another.execute("SELECT 1")


def test_what_a_role_with_a_reserved_name_owns_is_theirs(shop: Server) -> None:
    with shop.session("boss") as boss:
        boss.execute("CREATE ROLE _rdb_stealth; GRANT _rdb_stealth TO boss")
        boss.execute("CREATE SCHEMA hidden AUTHORIZATION _rdb_stealth")
    shop.inside.update_user("boss", verifier=None, is_admin=False)
    with shop.session("admin") as admin:
        admin.execute("DROP SCHEMA hidden; DROP ROLE _rdb_stealth")


def test_a_reserved_name_can_be_deleted(shop: Server) -> None:
    with shop.session("boss") as boss:
        boss.execute(
            f"CREATE ROLE _rdb_stealth CREATEDB {LOGIN}; CREATE ROLE postgres LOGIN".encode()
        )
    for name in ("_rdb_stealth", "postgres"):
        shop.inside.check_delete_user(name)
        shop.inside.delete_user(name)
        assert name not in {user.name for user in shop.inside.users()}
        for check in (shop.inside.check_delete_user, shop.inside.check_update_user):
            with pytest.raises((InvalidArguments, NotFound)):
                check(name)


def test_who_may_make_roles_is_shown_as_an_administrator(shop: Server) -> None:
    with shop.session("boss") as boss:
        boss.execute(f"CREATE ROLE half CREATEROLE {LOGIN}")
    assert User("half", is_admin=True) in shop.inside.users()
    shop.inside.update_user("half", verifier=None, is_admin=False)
    assert User("half", is_admin=False) in shop.inside.users()
    shop.inside.set_privilege("rdb", "half", "readonly")
    with shop.session("half") as half:
        refused(half, "ALTER ROLE bob PASSWORD 'taken'", "CREATE ROLE another")
