"""MySQL's users, databases and privileges: what is listed is what tenants' sessions can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrdb.engines.base import Permission
from openrdb.engines.mysql.sql import quoted_identifier
from tests.engines.mysql_server import Server
from tests.service import PASSWORD

ODD_NAMES = [
    "we`ird\"'\\; DROP DATABASE rdb; -- ",
    "100%_%s{}",
    "_",
    "../../etc",
    "SELECT",
    "é" * 64,
    "名" * 51,
    "n" * 64,
]
"""Names of databases; a trailing dot instead of the space, which the server refuses."""

READ = {"select", "show view"}
WRITE = READ | {"insert", "update", "delete", "create temporary", "lock", "execute"}
RIGHTS: dict[Permission, set[str]] = {"none": set(), "readonly": READ, "readwrite": WRITE}
PROBES = {
    "select": "SELECT * FROM {d}.t",
    "show view": "SHOW CREATE VIEW {d}.v",
    "insert": "INSERT INTO {d}.t SELECT 1 WHERE FALSE",
    "update": "UPDATE {d}.t SET a = 1 WHERE FALSE",
    "delete": "DELETE FROM {d}.t WHERE FALSE",
    "create temporary": "CREATE TEMPORARY TABLE {d}.passing (a int)",
    "execute": "CALL {d}.p()",
    "create": "CREATE TABLE {d}.t (a int)",
    "drop": "DROP TABLE {d}.absent",
    "alter": "ALTER TABLE {d}.absent ADD b int",
    "index": "CREATE INDEX i ON {d}.absent (a)",
    "create view": "CREATE VIEW {d}.v AS SELECT 1",
    "create routine": "CREATE PROCEDURE {d}.p() SELECT 1",
    "alter routine": "ALTER PROCEDURE {d}.absent COMMENT ''",
    "event": "CREATE EVENT {d}.e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
    "trigger": "CREATE TRIGGER {d}.r BEFORE INSERT ON {d}.t FOR EACH ROW SET NEW.a = 1",
    "lock": "LOCK TABLES {d}.t READ",
}
"""What takes a right, and changes nothing: it fails afterwards, as there is one or is none."""
DENIED = {1044, 1142, 1143, 1227, 1370}
NOTHING_TO_REVOKE = {1141, 1147, 1403, 3530, 3879}
RIGHTS["all"] = set(PROBES)


def rights(run: Any, database: str) -> set[str]:
    """What a session can do in a database, with all roles that it may take."""
    run("SET ROLE ALL")
    found = set()
    for right, statement in PROBES.items():
        try:
            run(statement.format(d=quoted_identifier(database)))
        except pymysql.MySQLError as error:
            if error.args[0] in DENIED:
                continue
        found.add(right)
    return found


def furnish(server: Server, database: str) -> None:
    """Have in a database what the probes look for."""
    quoted = quoted_identifier(database)
    with server.session() as run:
        run(f"CREATE TABLE {quoted}.t (a int)")
        for right in ("create view", "create routine", "event", "trigger"):
            run(PROBES[right].format(d=quoted))


def level(server: Server, database: str, user: str) -> Permission:
    (found,) = server.administration.privileges(database=database, user=user)
    return found.permission


@pytest.fixture(scope="module")
def shop(mysql: Server) -> Iterator[str]:
    """A database, and another whose name would be a pattern that it matches."""
    for database in ("shop", "sho_"):
        mysql.administration.create_database(database)
        furnish(mysql, database)
    yield "shop"
    for database in ("shop", "sho_"):
        mysql.administration.delete_database(database)


def people(server: Server) -> None:
    """A user with an account for each of the ways that tests come, an administrator, and roles."""
    with server.superuser() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP USER IF EXISTS {', '.join(ACCOUNTS)}")
    for user in ("bob", "boss"):
        server.administration.create_user(user, server.verifier, is_admin=user == "boss")
    with server.session() as run:
        run("CREATE USER bob@'127.0.0.1' IDENTIFIED BY %s", PASSWORD)
        run("CREATE USER ''@'%', alice")
        run("CREATE ROLE clerk, chief")


# -- levels ----------------------------------------------------------------------------------------

ACCOUNTS = ["bob@'%'", "bob@'127.0.0.1'", "boss", "''@'%'", "clerk", "chief", "alice"]
PRIVILEGES = [
    *("SELECT", "SHOW VIEW", "INSERT", "UPDATE", "DELETE", "CREATE TEMPORARY TABLES"),
    *("LOCK TABLES", "EXECUTE", "CREATE", "DROP", "EVENT", "TRIGGER", "GRANT OPTION"),
    "SELECT, SHOW VIEW",
    "SELECT, SHOW VIEW, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE",
]
OBJECTS = {
    "shop.*": PRIVILEGES,
    "sho_.*": PRIVILEGES,
    "`sh%`.*": PRIVILEGES,
    "*.*": PRIVILEGES,
    "shop.t": ["SELECT", "INSERT (a)", "SELECT (a), UPDATE (a)", "GRANT OPTION"],
    "PROCEDURE shop.p": ["EXECUTE", "ALTER ROUTINE", "GRANT OPTION"],
}
ROLES = ["clerk TO bob@'%'", "chief TO clerk", "alice TO bob@'127.0.0.1'", "clerk TO boss"]


@st.composite
def grants(draw: st.DrawFn) -> str:
    """A statement by SQL that may change what somebody can do."""
    grant = draw(st.booleans())
    if draw(st.integers(0, 4)) == 0:
        edge = draw(st.sampled_from(ROLES))
        return f"GRANT {edge}" if grant else f"REVOKE {edge.replace(' TO ', ' FROM ')}"
    on = draw(st.sampled_from(list(OBJECTS)))
    privilege = draw(st.sampled_from(OBJECTS[on]))
    account = draw(st.sampled_from(ACCOUNTS))
    if not grant:
        return f"REVOKE {privilege} ON {on} FROM {account}"
    if privilege == "GRANT OPTION":
        return f"GRANT USAGE ON {on} TO {account} WITH GRANT OPTION"
    return f"GRANT {privilege} ON {on} TO {account}"


levels = st.tuples(st.sampled_from(["bob", "boss"]), st.sampled_from(list(RIGHTS)))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(grants(), max_size=8), levels)
def test_a_level_set_is_the_level_listed_and_had(
    mysql: Server, shop: str, before: list[str], wanted: tuple[str, Permission]
) -> None:
    """After whatever was granted by SQL; and what is listed of others is what they have."""
    people(mysql)
    with mysql.session() as admin:
        for statement in before:
            try:
                admin(statement)
            except pymysql.MySQLError as error:
                assert error.args[0] in NOTHING_TO_REVOKE, (statement, error)
    mysql.administration.set_privilege("shop", *wanted)
    assert level(mysql, "shop", wanted[0]) == wanted[1]
    for user in ("bob", "boss"):
        listed = level(mysql, "shop", user)
        if listed != "custom":
            for way in ({}, {"unix_socket": str(mysql.socket)}):
                with mysql.session(user, **way) as run:
                    assert rights(run, "shop") == RIGHTS[listed], (user, way)
