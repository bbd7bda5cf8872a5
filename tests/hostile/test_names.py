"""Names, encodings and settings of the administrator's choice hinder no call of the API."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.support.service import PASSWORD
from tests.support.target import Target

NAMES = ("{0}{x}", "a\"b';--", "%s%(x)s /", "ж" * 31, "\n", "_rdb_taken")
SETTINGS = (
    "role = 'admin'",
    "session_authorization = 'admin'",
    "search_path = 'taken'",
    "client_encoding = 'SQL_ASCII'",
    "standard_conforming_strings = off",
    "local_preload_libraries = 'taken'",
    "exit_on_error = on",
    "default_transaction_read_only = on",
    "default_transaction_isolation = 'serializable'",
    "statement_timeout = 1",
    "lock_timeout = 1",
    "idle_session_timeout = 1",
    "idle_in_transaction_session_timeout = 1",
    "transaction_timeout = 1",
    "quote_all_identifiers = on",
    "row_security = on",
    "DateStyle = 'German'",
    "debug_print_parse = on",
    "default_tablespace = 'taken'",
)
LATIN1 = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
SQL_ASCII = "TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"


@pytest.fixture
def cleared(target: Target) -> Iterator[Target]:
    """The target; the roles and databases that the test makes are dropped after it."""
    with target.superuser() as superuser:
        before = {
            catalogue: [row[0] for row in superuser.execute(f"SELECT oid FROM {catalogue}")]
            for catalogue in ("pg_database", "pg_authid")
        }
    yield target
    with target.superuser() as superuser:
        for word, catalogue, column in (
            ("DATABASE", "pg_database", "datname"),
            ("ROLE", "pg_authid", "rolname"),
        ):
            # Some names are no UTF-8: a client could not say them.
            made = superuser.execute(
                f"UPDATE {catalogue} SET {column} = 'made_' || oid WHERE oid <> ALL(%s) "
                f"RETURNING {column}",
                [before[catalogue]],
            )
            for (name,) in made.fetchall():
                if word == "ROLE":
                    superuser.execute(f"DROP OWNED BY {name} CASCADE".encode())
                superuser.execute(f"DROP {word} {name}".encode())


def test_names_are_quoted(cleared: Target) -> None:
    target = cleared
    target.make_user("mole", is_admin=True)
    with target.admin() as admin, target.admin("mole") as mole:
        for name in NAMES:
            role = sql.Identifier(name)
            mole.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            admin.execute(sql.SQL("CREATE DATABASE {}").format(role))
            member = mole if target.major >= 16 else admin
            member.execute(sql.SQL("GRANT {} TO mole").format(role))
    users = [user["name"] for user in target.done("GET", "/users")["users"]]
    assert set(NAMES) - {"_rdb_taken"} <= set(users)
    databases = {row["name"]: row for row in target.done("GET", "/databases")["databases"]}
    assert set(NAMES) <= set(databases)
    assert not any(databases[name]["managed"] for name in NAMES)
    target.done("GET", "/privileges")
    target.set_level("mole", "readonly")  # out of all the roles, whatever they are called
    assert target.level("mole") == "readonly"
    for name in NAMES:
        if name != "_rdb_taken":
            target.set_level(name, "readwrite")
    target.done("DELETE", "/users/mole")


def test_settings_of_a_database_do_not_reach_the_superuser(cleared: Target) -> None:
    target = cleared
    target.make_user("mole")
    with target.admin() as admin:
        admin.execute("CREATE DATABASE odd")
        with target.admin(dbname="odd") as odd:
            odd.execute("CREATE TABLE granted ()")
            odd.execute("GRANT SELECT ON granted TO mole")
        for setting in SETTINGS:
            if setting.startswith("transaction_timeout") and target.major < 17:
                continue
            admin.execute(f"ALTER DATABASE odd SET {setting}")
    target.done("DELETE", "/users/mole")
    assert "mole" not in {user["name"] for user in target.done("GET", "/users")["users"]}
    target.done("DELETE", "/databases/odd")


@pytest.mark.parametrize("encoding", [LATIN1, SQL_ASCII])
def test_other_encodings(cleared: Target, encoding: str) -> None:
    """Roles and databases made in one have names there that are no UTF-8 elsewhere."""
    target = cleared
    with target.admin() as admin:
        admin.execute('CREATE ROLE "café" LOGIN'.encode())
        admin.execute(f"CREATE DATABASE odd {encoding}".encode())
    with target.admin(dbname="odd", client_encoding="LATIN1") as odd:
        odd.execute("SET client_encoding = SQL_ASCII")
        odd.execute('CREATE ROLE "x\xe9" LOGIN'.encode("latin-1"))
        odd.execute('CREATE DATABASE "y\xe9"'.encode("latin-1"))
        odd.execute("CREATE TABLE granted ()")
        odd.execute('GRANT SELECT ON granted TO "café"'.encode())
    users = [user["name"] for user in target.done("GET", "/users")["users"]]
    assert "x\ufffd" in users
    databases = [row["name"] for row in target.done("GET", "/databases")["databases"]]
    assert "y\ufffd" in databases
    target.done("GET", "/privileges")
    assert target.call("PATCH", "/users/x\ufffd", password=PASSWORD).status_code == 404
    assert target.call("DELETE", "/users/x\ufffd").status_code == 404
    assert target.call("DELETE", "/databases/y\ufffd").status_code == 404
    target.done("DELETE", "/users/café")
    target.done("DELETE", "/databases/odd")


def test_a_closed_database_is_named(cleared: Target) -> None:
    """Nobody can take what a user has there: the user stays as he was."""
    target = cleared
    target.make_user("mole")
    with target.admin() as admin:
        admin.execute("CREATE DATABASE closed")
        with target.admin(dbname="closed") as closed:
            closed.execute("CREATE TABLE granted ()")
            closed.execute("GRANT SELECT ON granted TO mole")
        admin.execute("ALTER DATABASE closed ALLOW_CONNECTIONS false")
        admin.execute("ALTER DATABASE closed IS_TEMPLATE true")
        admin.execute("ALTER DATABASE closed CONNECTION LIMIT 0")
        refused = target.call("DELETE", "/users/mole")
        assert refused.status_code == 412
        assert "closed" in refused.text
        assert "mole" in {user["name"] for user in target.done("GET", "/users")["users"]}
        target.done("DELETE", "/databases/closed")
        target.done("DELETE", "/users/mole")


def test_a_verifier_is_shown_to_nobody(cleared: Target) -> None:
    """Not even while the administrator makes the statement that has it wait."""
    target = cleared
    target.make_user("mole")
    with target.admin() as holder, target.admin() as watcher, target.superuser() as superuser:
        if target.major < 16:
            watcher.execute("GRANT pg_read_all_stats TO admin")
            holder.execute("BEGIN")
            holder.execute("ALTER ROLE mole CONNECTION LIMIT 5")
        else:
            # There he has no right to the user: the superuser holds it in his place.
            superuser.execute("BEGIN")
            superuser.execute("ALTER ROLE mole CONNECTION LIMIT 5")
        change = threading.Thread(
            target=target.call, args=("PATCH", "/users/mole"), kwargs={"password": PASSWORD + "2"}
        )
        change.start()
        waiting = "SELECT pid FROM pg_locks WHERE NOT granted"
        while not (blocked := watcher.execute(waiting).fetchall()):
            assert change.is_alive()
        query = "SELECT query FROM pg_stat_activity WHERE pid = %s"
        with target.superuser() as other:
            for session in (watcher, other):
                (seen,) = session.execute(query, list(blocked[0])).fetchall()
                assert "SCRAM" not in (seen[0] or "")
        holder.execute("ROLLBACK")
        superuser.execute("ROLLBACK")
        change.join()
        if target.major < 16:
            watcher.execute("REVOKE pg_read_all_stats FROM admin")
    # It was that statement that waited.
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(target.line(), user="mole", password=PASSWORD + "2")


def test_a_verifier_is_in_no_log(cleared: Target) -> None:
    """Whatever is logged of the administrator's own statements."""
    target = cleared
    target.set_settings(log_min_duration_statement="0")
    with target.admin() as admin:
        admin.execute("SELECT 'a statement of his own'")
    target.make_user("mole")
    target.done("PATCH", "/users/mole", password=PASSWORD + "2")
    instance = target.service.data_dir / "instances" / target.instance.id
    logs = instance.rglob("postgresql-*.log")
    log = "".join(path.read_text(errors="replace") for path in logs)
    assert log
    if target.major == 18:
        assert "a statement of his own" in log
    assert "SCRAM-SHA-256$" not in log
    target.set_settings(log_min_duration_statement="-1")
