"""What is left of an administrator's power after they are dismissed or deleted: nothing."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg
import pytest
from psycopg import OperationalError, errors

from openrdb.engines.postgresql.admin import users
from openrdb.engines.postgresql.admin.administration import Administration
from openrdb.errors import PreconditionFailed
from tests.support.postgresql_server import REPLICATION_SECRET, VERIFIER, Connection, Server
from tests.support.service import PASSWORD

LOGIN = f"LOGIN PASSWORD '{PASSWORD}'"


@pytest.fixture
def shop(server: Server) -> Server:
    """A database, the administrator boss, and bob, who has nothing."""
    server.inside.create_database("shop")
    server.inside.create_user("boss", VERIFIER, is_admin=True)
    server.inside.create_user("bob", VERIFIER, is_admin=False)
    return server


def refused(session: Connection, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(statement)


def dismiss(server: Server) -> None:
    """Dismiss boss, who can still come into the database."""
    server.inside.set_privilege("shop", "boss", "readonly")
    server.inside.update_user("boss", verifier=None, is_admin=False)


# -- roles -------------------------------------------------------------------------------------------


def test_what_they_granted_themselves_goes_with_them(shop: Server) -> None:
    with shop.session("boss") as boss:
        boss.execute("CREATE ROLE r NOLOGIN CREATEROLE; GRANT r TO boss; GRANT r TO bob")
        if shop.major < 16:
            boss.execute("GRANT admin TO boss")
        else:
            boss.execute("GRANT pg_monitor TO boss")
    dismiss(shop)
    with shop.session("boss", "shop") as boss:
        refused(boss, "GRANT r TO boss")
        for role in ("r", "admin", "pg_monitor", "_rdb_admin"):
            refused(boss, f"SET ROLE {role}")
    with shop.superuser() as superuser:
        kept = "SELECT pg_get_userbyid(roleid), pg_get_userbyid(member) FROM pg_auth_members"
        found = superuser.execute(kept).fetchall()
    assert ("r", "bob") in found, "what they granted others stays"
    assert "boss" not in {member for _, member in found}


def test_who_was_dismissed_by_an_earlier_version_leaves_too(shop: Server) -> None:
    """From 16 on nobody can tell their roles from those that others granted to them."""
    if shop.major >= 16:
        return
    with shop.session("admin") as admin:
        admin.execute("CREATE ROLE team; GRANT team TO bob, boss")
    with shop.session("boss") as boss:
        boss.execute("CREATE ROLE ghost CREATEROLE; GRANT ghost TO boss; SET ROLE ghost")
        with shop.superuser() as superuser:  # all that it did
            superuser.execute(
                "ALTER ROLE boss NOCREATEDB NOCREATEROLE; REVOKE _rdb_admin FROM boss"
            )
        shop.engine.ensure_replication_ready(REPLICATION_SECRET)
        with pytest.raises(OperationalError):
            boss.execute("CREATE ROLE evil CREATEROLE")
    shop.inside.set_privilege("rdb", "boss", "readonly")
    with shop.session("boss") as boss:
        refused(boss, "SET ROLE ghost")
    with shop.session("admin") as admin:
        members = (
            "SELECT pg_get_userbyid(member) FROM pg_auth_members JOIN pg_roles r ON r.oid = roleid "
            "WHERE rolname = 'team' ORDER BY 1"
        )
        found = [name for (name,) in admin.execute(members).fetchall()]
        assert found == ["_rdb_admin", "bob", "boss"], "what others granted stays"


def test_the_databases_that_tools_come_into_are_closed_to_them(shop: Server) -> None:
    with shop.session("boss") as boss:
        for database in ("postgres", "template1"):
            boss.execute(f"GRANT CONNECT ON DATABASE {database} TO boss WITH GRANT OPTION")
    dismiss(shop)
    for database in ("postgres", "template1"):
        with pytest.raises(OperationalError, match="permission denied"):
            shop.session("boss", database)
    with shop.session("admin", "postgres") as admin:
        admin.execute("SELECT 1")


def test_a_role_made_in_advance_for_what_they_leave_is_not_theirs(shop: Server) -> None:
    with shop.session("boss", "shop") as boss:
        boss.execute("CREATE TABLE t ()")
        row = boss.execute("SELECT oid FROM pg_roles WHERE rolname = 'boss'").fetchone()
        assert row is not None
        former = f"_rdb_former_{row[0]}"
        boss.execute(f"CREATE ROLE {former}; GRANT {former} TO boss; GRANT {former} TO bob")
        boss.execute(f"CREATE ROLE team; GRANT team TO {former}")
    dismiss(shop)
    shop.inside.set_privilege("shop", "bob", "readonly")
    for user in ("boss", "bob"):
        with shop.session(user, "shop") as session:
            refused(session, f"SET ROLE {former}", "DROP TABLE t")
    with shop.session("admin", "shop") as admin:
        admin.execute("ALTER TABLE t ADD x int")
    with shop.superuser() as superuser:
        members = (
            "SELECT pg_get_userbyid(roleid), pg_get_userbyid(member) FROM pg_auth_members "
            "WHERE %s IN (pg_get_userbyid(roleid), pg_get_userbyid(member))"
        )
        found = set(superuser.execute(members, [former]).fetchall())
        assert found == {("_rdb_former", former), (former, "_rdb_admin")}


def test_a_name_that_is_no_utf8_stops_nothing(shop: Server) -> None:
    with shop.session("boss") as boss:
        boss.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with shop.session("boss", "latin") as boss:
        boss.execute('CREATE ROLE "é" CREATEROLE CREATEDB; CREATE ROLE "ö"; GRANT "ö" TO bob')
    try:
        shop.inside.create_user("next", VERIFIER, is_admin=True)
        dismiss(shop)
        shop.inside.set_privilege("shop", "bob", "readonly")
        with shop.superuser() as superuser:
            superuser.execute("ALTER DATABASE latin OWNER TO admin")
        shop.inside.check_delete_user("boss")
        shop.inside.delete_user("boss")
    finally:
        with shop.superuser("latin") as superuser:
            superuser.execute('DROP ROLE "é", "ö"')
        with shop.superuser() as superuser:
            superuser.execute("DROP DATABASE latin")


def test_a_repetition_ends_their_sessions(shop: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt was killed after it had revoked what makes an administrator."""

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with shop.session("boss") as boss:
        boss.execute("CREATE ROLE ghost CREATEROLE; GRANT ghost TO boss; SET ROLE ghost")
        with monkeypatch.context() as patched:
            patched.setattr(users, "end_sessions", killed)
            patched.setattr(Administration, "_restore_levels", killed)
            with pytest.raises(RuntimeError):
                shop.inside.update_user("boss", verifier=None, is_admin=False)
        shop.inside.update_user("boss", verifier=None, is_admin=False)
        with pytest.raises(OperationalError):
            boss.execute("CREATE ROLE evil CREATEROLE")


def test_sessions_end_before_levels_are_restored(
    shop: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop.session("boss") as boss:
        boss.execute("CREATE ROLE ghost CREATEROLE; GRANT ghost TO boss; SET ROLE ghost")

        def restore(*_: object) -> None:
            with pytest.raises(OperationalError):
                boss.execute("CREATE ROLE evil CREATEROLE")

        monkeypatch.setattr(Administration, "_restore_levels", restore)
        shop.inside.update_user("boss", verifier=None, is_admin=False)
        assert boss.closed


def test_the_option_to_grant_a_role_is_a_way_to_act_as_it(shop: Server) -> None:
    shop.inside.create_user("mate", VERIFIER, is_admin=False)
    shop.inside.set_privilege("shop", "mate", "all")
    with shop.session("mate", "shop") as mate:
        mate.execute("CREATE TABLE t ()")
    with shop.session() as admin:
        only = "INHERIT FALSE, SET FALSE, ADMIN TRUE" if shop.major >= 16 else "ADMIN OPTION"
        admin.execute(f"GRANT mate TO bob WITH {only}")
    shop.inside.set_privilege("rdb", "bob", "readonly")
    (found,) = shop.inside.privileges(database="shop", user="bob")
    assert found.permission == "custom"
    shop.inside.set_privilege("shop", "bob", "readonly")
    (found,) = shop.inside.privileges(database="shop", user="bob")
    assert found.permission == "readonly"
    with shop.session("bob") as bob:
        refused(bob, "GRANT mate TO bob", "SET ROLE mate")


WAYS = {
    "function": (
        "CREATE FUNCTION go() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN {} END$$",
        "SELECT go()",
    ),
    "cascade": (
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1); "
        "CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE); "
        "INSERT INTO child VALUES (1); "
        "CREATE FUNCTION go() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {} RETURN OLD; END$$; "
        "CREATE TRIGGER go BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION go()",
        "DELETE FROM parent",
    ),
    "index": (
        "CREATE FUNCTION go() RETURNS void LANGUAGE plpgsql AS $$BEGIN {} END$$; "
        "CREATE FUNCTION innocent(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
        "$$BEGIN IF session_user = 'bob' THEN PERFORM public.go(); END IF; RETURN $1; END$$; "
        "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 50); "
        "CREATE INDEX i ON t (innocent(id)); GRANT MAINTAIN ON t TO bob",
        "ANALYZE t",
    ),
}
EVIL = """
    IF pg_has_role('boss', '_rdb_admin', 'MEMBER') THEN
        PERFORM pg_advisory_lock(1);
        CREATE ROLE evil CREATEROLE CREATEDB LOGIN;
    END IF;
"""


@pytest.mark.parametrize(
    ("way", "fate"),
    [
        *(("function", "dismissed"), ("function", "deleted"), ("function", "deleted again")),
        # Nobody is deleted while their tables are locked.
        *(("cascade", "dismissed"), ("index", "dismissed")),
    ],
)
def test_what_runs_as_them_is_ended(
    shop: Server, monkeypatch: pytest.MonkeyPatch, way: str, fate: str
) -> None:
    """Without that it goes on with the power that it began with."""

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    if way == "index" and shop.major < 17:
        return  # only the owner and the server itself analyze a table
    making, call = WAYS[way]
    shop.inside.set_privilege("shop", "bob", "readwrite")
    with shop.session("boss", "shop") as boss:
        boss.execute(making.format(EVIL).encode())
    with (
        shop.session("admin", "shop") as holding,
        shop.session("bob", "shop") as bob,
        shop.session() as elsewhere,
    ):
        holding.execute("SELECT pg_advisory_lock(1)")
        elsewhere.execute("BEGIN; SELECT 1")
        running = threading.Thread(target=run_until_ended, args=[bob, call])
        running.start()
        try:
            wait_for_lock(shop)
            if fate == "dismissed":
                shop.inside.update_user("boss", verifier=None, is_admin=False)
            elif fate == "deleted again":
                with monkeypatch.context() as patched:
                    patched.setattr(Administration, "_end_running", killed)
                    with pytest.raises(RuntimeError):
                        shop.inside.delete_user("boss")
            if fate != "dismissed":
                shop.inside.delete_user("boss")
        finally:
            holding.execute("SELECT pg_advisory_unlock(1)")
            running.join(30)
        elsewhere.execute("SELECT 1")
    assert "evil" not in {user.name for user in shop.inside.users()}


def run_until_ended(session: Connection, call: str) -> None:
    with suppress(psycopg.Error):
        session.execute(call.encode())


def wait_for_lock(server: Server) -> None:
    """Wait until somebody waits for the advisory lock."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    deadline = time.monotonic() + 30
    with server.superuser("shop") as superuser:
        while superuser.execute(waiting).fetchone() != (1,):
            assert time.monotonic() < deadline
            time.sleep(0.02)


# -- deletion ----------------------------------------------------------------------------------------


def test_who_was_granted_a_parameter_can_be_deleted(shop: Server) -> None:
    """Also in servers of earlier versions, whose administrators could grant it."""
    if shop.major < 15:
        return
    parameter = "SET ON PARAMETER session_replication_role"
    with shop.superuser() as superuser:
        superuser.execute(f"GRANT {parameter} TO _rdb_admin WITH GRANT OPTION")
    with shop.session() as admin:
        admin.execute(f"GRANT {parameter} TO bob, boss")
    for user in ("bob", "boss"):
        shop.inside.check_delete_user(user)
        shop.inside.delete_user(user)
    with shop.session() as admin:
        admin.execute("SET session_replication_role = replica")


def test_a_killed_deletion_that_is_repeated_and_refused_lets_the_user_in(shop: Server) -> None:
    with shop.superuser() as superuser:
        superuser.execute("ALTER ROLE bob CONNECTION LIMIT 0")
    shop.inside.set_privilege("shop", "bob", "all")
    with shop.superuser("shop") as superuser:
        superuser.execute("CREATE TABLE public.t (); ALTER TABLE public.t OWNER TO bob")
    with shop.session("admin", "shop") as admin:
        admin.execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE")
        with pytest.raises(PreconditionFailed):
            shop.inside.delete_user("bob")
    with shop.superuser() as superuser:
        limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'bob'"
        assert superuser.execute(limit).fetchone() == (-1,)


def test_a_killed_change_that_is_repeated_and_refused_lets_the_user_in(shop: Server) -> None:
    shop.inside.set_privilege("shop", "bob", "all")
    with shop.session("bob", "shop") as bob:
        bob.execute("CREATE TABLE t ()")
    with shop.superuser("shop") as superuser:
        superuser.execute("REVOKE ALL ON DATABASE shop FROM bob")
    with shop.session("admin", "shop") as admin:
        admin.execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE")
        with pytest.raises(PreconditionFailed):
            shop.inside.set_privilege("shop", "bob", "readonly")
    with shop.session("bob", "shop") as bob:
        bob.execute("TABLE t; CREATE TABLE another ()")


def test_a_role_with_a_name_of_a_former_user_s_stops_nothing(shop: Server) -> None:
    with shop.session("admin", "shop") as admin:
        admin.execute("CREATE ROLE _rdb_former_99999; CREATE TABLE t ()")
        admin.execute("CREATE POLICY p ON t TO _rdb_former_99999")
    shop.inside.delete_user("bob")
    with shop.superuser("shop") as superuser:
        superuser.execute("DROP TABLE public.t; DROP ROLE _rdb_former_99999")
