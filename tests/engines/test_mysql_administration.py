"""MySQL's users, databases and privileges: what is listed is what tenants' sessions can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from openrdb.engines.mysql import accounts
from openrdb.engines.mysql.admin.administration import Administration
from openrdb.engines.mysql.admin.databases import check_name
from openrdb.engines.mysql.sql import quoted_identifier
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import Database, Permission, User
from openrdb.system.bundle import Bundle
from tests.support.mysql_server import Server, serving
from tests.support.service import PASSWORD

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
GONE = "Lost connection|gone away|interrupted|closed|disconnected"
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


def furnish(server: Server, database: str, user: str = "admin") -> None:
    """Have in a database what the probes look for."""
    quoted = quoted_identifier(database)
    with server.session(user) as run:
        run(f"CREATE TABLE {quoted}.t (a int)")
        for right in ("create view", "create routine", "event", "trigger"):
            run(PROBES[right].format(d=quoted))


def level(server: Server, database: str, user: str) -> Permission:
    (found,) = server.administration.privileges(database=database, user=user)
    return found.permission


@pytest.fixture
def shop(mysql: Server) -> Iterator[str]:
    """A database, and another whose name would be a pattern that it matches."""
    for database in ("shop", "sho_"):
        mysql.administration.create_database(database)
        furnish(mysql, database)
    yield "shop"
    nobody(mysql)
    for database in ("shop", "sho_"):
        mysql.administration.delete_database(database)


def nobody(server: Server) -> None:
    with server.superuser() as session, session.cursor() as cursor:
        cursor.execute(f"DROP USER IF EXISTS {', '.join(ACCOUNTS)}")


def people(server: Server) -> None:
    """A user with an account for each of the ways that tests come, an administrator, and roles."""
    nobody(server)
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


CLERK = ["GRANT SELECT ON shop.* TO chief", "GRANT chief TO clerk", "GRANT clerk TO bob@'%'"]
CONTRADICTION = [
    "GRANT SELECT ON *.* TO bob@'127.0.0.1'",
    "REVOKE SELECT ON shop.* FROM bob@'127.0.0.1'",
    "GRANT SELECT ON shop.* TO bob@'%'",
]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(grants(), max_size=8), levels)
@example(CLERK, ("bob", "none"))
@example(CONTRADICTION, ("bob", "readonly"))
@example(["GRANT SELECT, INSERT ON shop.* TO ''@'%'"], ("bob", "none"))
@example(["GRANT SELECT, INSERT ON *.* TO bob@'%'"], ("bob", "readonly"))
@example(["GRANT SELECT (a) ON shop.t TO bob@'127.0.0.1'"], ("bob", "none"))
@example(["GRANT EXECUTE ON PROCEDURE shop.p TO bob@'%'"], ("bob", "readonly"))
@example(["GRANT INSERT ON sho_.* TO bob@'%'"], ("bob", "readonly"))
@example([], ("boss", "readonly"))
@example(["REVOKE SELECT, INSERT ON shop.* FROM boss"], ("boss", "readonly"))
@example(
    ["GRANT INSERT ON shop.* TO boss", "REVOKE INSERT, DROP ON shop.* FROM boss"], ("boss", "none")
)
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
    if wanted[0] != "boss":
        assert level(mysql, "shop", wanted[0]) == wanted[1]
    elif not any("*.*" in statement for statement in before):
        assert level(mysql, "shop", "boss") == ("all" if wanted[1] == "none" else wanted[1])
    for user in ("bob", "boss"):
        listed = level(mysql, "shop", user)
        if listed != "custom":
            has = "all" if User(user, True) in mysql.administration.users() else listed
            for way in ({}, {"unix_socket": str(mysql.socket)}):
                with mysql.session(user, **way) as run:
                    assert rights(run, "shop") == RIGHTS[has], (user, way)


# -- users -----------------------------------------------------------------------------------------

ODD_USERS = ["a$1", "all", "pg_x", "MiXed-9_", "n" * 32]
OF_SQL = ["o'brien", 'we"ird', "per%cent_", "back\\slash", "ünï 名", "a@b", "`", "_x", "1/#?", ".."]
"""Names that the API refuses for new users; existing users with such names are managed."""


@pytest.mark.parametrize("name", ODD_USERS)
def test_users_of_any_name(mysql: Server, name: str) -> None:
    inside = mysql.administration
    inside.check_create_user(name)
    for _ in range(2):  # as after a crash in its middle
        inside.create_user(name, mysql.verifier, is_admin=False)
    manage(mysql, name)


@pytest.mark.parametrize("name", OF_SQL)
def test_users_that_only_sql_makes(mysql: Server, name: str) -> None:
    inside = mysql.administration
    with pytest.raises(InvalidArguments):
        inside.check_create_user(name)
    with mysql.session() as admin:
        admin("CREATE USER %s@'%%' IDENTIFIED BY 'Wrong-horse-7-battery'", name)
    inside.check_update_user(name)
    inside.update_user(name, verifier=mysql.verifier, is_admin=None)
    manage(mysql, name)


def manage(mysql: Server, name: str) -> None:
    inside = mysql.administration
    with pytest.raises(InvalidArguments):
        inside.check_create_user(name)
    inside.set_privilege("rdb", name, "readonly")
    assert level(mysql, "rdb", name) == "readonly"
    with mysql.session(name, database="rdb") as run:
        assert run("SELECT USER()") == [(f"{name}@127.0.0.1",)]
    inside.check_delete_user(name)
    for _ in range(2):
        inside.delete_user(name)
    assert [one.name for one in inside.users()] == ["admin"]
    with pytest.raises(NotFound):
        inside.check_delete_user(name)


def test_a_name_is_one_user(mysql: Server) -> None:
    """Whatever accounts it has; roles and the anonymous user are none."""
    inside = mysql.administration
    with mysql.session() as admin:
        admin("CREATE USER two@'127.0.0.1' IDENTIFIED BY 'old', two@'10.%' IDENTIFIED BY 'old'")
        admin("CREATE USER ''@'192.0.2.1'")
        admin("CREATE ROLE reader")
    assert [one.name for one in inside.users()] == ["admin", "two"]
    inside.update_user("two", verifier=mysql.verifier, is_admin=None)
    with mysql.superuser() as session, session.cursor() as cursor:
        assert cursor.execute("SELECT 1 FROM mysql.user WHERE user = ''") == 0, "dropped"
    with mysql.session("two") as session:
        inside.update_user("two", verifier=accounts.verifier("An0ther-one"), is_admin=None)
        assert session("SELECT 1") == [(1,)], "sessions outlive a password"
        with pytest.raises(pymysql.MySQLError, match="Access denied"), mysql.session("two"):
            pass
        inside.delete_user("two")
        with pytest.raises(pymysql.MySQLError, match=GONE):
            session("SELECT 1")
    with mysql.session() as admin:
        admin("DROP ROLE reader")
    assert [one.name for one in inside.users()] == ["admin"]


def test_an_administrator_comes_and_goes(mysql: Server) -> None:
    inside = mysql.administration
    inside.create_database("office")
    inside.create_user("carol", mysql.verifier, is_admin=False)
    assert level(mysql, "office", "carol") == "none"
    inside.update_user("carol", verifier=None, is_admin=True)
    assert User("carol", True) in inside.users()
    with mysql.session("carol") as run:
        run("CREATE DATABASE hers")
        run("CREATE USER dave IDENTIFIED BY 'x'")
        run("GRANT SELECT, SHOW VIEW ON office.* TO dave")
        assert level(mysql, "office", "dave") == "readonly"
        run("CREATE TABLE office.t (a int)")
        inside.update_user("carol", verifier=None, is_admin=False)
        with pytest.raises(pymysql.MySQLError, match=GONE):
            run("SELECT 1")
    assert User("carol", False) in inside.users()
    with mysql.superuser() as session, session.cursor() as cursor:
        cursor.execute("SHOW GRANTS FOR carol")
        assert cursor.fetchall()[0] == ("GRANT USAGE ON *.* TO `carol`@`%`",)
        cursor.execute("SELECT 1 FROM mysql.global_grants WHERE user = 'carol'")
        assert cursor.fetchall() == ()
    assert level(mysql, "office", "carol") == "none", "as before"
    with mysql.session("carol") as run:
        for what in ("TABLE office.t", "DATABASE hers"):
            with pytest.raises(pymysql.MySQLError, match="denied"):
                run(f"DROP {what}")
    for name in ("carol", "dave"):
        inside.delete_user(name)
    for name in ("hers", "office"):
        inside.delete_database(name)


def test_a_definer_stays(mysql: Server) -> None:
    """What runs as a user would end to run with it, and then be the next one's of that name."""
    inside = mysql.administration
    inside.create_database("works")
    inside.create_user("definer", mysql.verifier, is_admin=False)
    inside.set_privilege("works", "definer", "all")
    furnish(mysql, "works", "definer")
    with pytest.raises(PreconditionFailed) as refused:
        inside.check_delete_user("definer")
    for what in ("view `works`.`v`", "procedure `works`.`p`", "event `works`.`e`"):
        assert what in refused.value.help_message
    inside.delete_database("works")
    inside.check_delete_user("definer")
    inside.delete_user("definer")


@pytest.mark.parametrize("name", ["root", "_rdb_superadmin", "_RDBx", "mysql.sys"])
def test_our_users_are_nobodys(mysql: Server, name: str) -> None:
    inside = mysql.administration
    for check in (inside.check_create_user, inside.check_update_user, inside.check_delete_user):
        with pytest.raises(InvalidArguments):
            check(name)
    with pytest.raises(NotFound):
        inside.set_privilege("rdb", name, "none")


def names(inside: Administration) -> set[str]:
    return {one.name for one in inside.databases(sizes=False)}


# -- databases -------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.text(st.sampled_from("aZ09_`'\"\\%. -/#éßΩжא名\u3000\uffff"), min_size=1, max_size=64)
    | st.text(min_size=1, max_size=64)
)
@example("é" * 64)
@example("名" * 51)
@example("n" * 64)
@example("../../etc")
@example("100_{};--")
def test_a_name_is_refused_or_works(mysql: Server, name: str) -> None:
    try:
        check_name("name", name)
    except InvalidArguments:
        return
    inside = mysql.administration
    inside.check_create_database(name)
    for _ in range(2):  # as after a crash in its middle
        inside.create_database(name)
    assert Database(name, "_rdb_superadmin", True, 0) in inside.databases(sizes=False)
    with mysql.session(database=name) as run:
        run("CREATE TABLE t (a int)")
        assert run("SELECT DATABASE()") == [(name,)]
    assert next(one.size for one in inside.databases(sizes=True) if one.name == name) > 0
    assert level(mysql, name, "admin") == "all"
    inside.check_delete_database(name)
    for _ in range(2):
        inside.delete_database(name)
    assert names(inside) == {"rdb"}


def test_identifiers_are_quoted(mysql: Server) -> None:
    with mysql.superuser() as session, session.cursor() as cursor:

        @settings(max_examples=200, deadline=None)
        @given(st.text("`'\"\\%.;-/*# a\u3000名", min_size=1) | st.text(min_size=1, max_size=64))
        def denotes_itself(name: str) -> None:
            if name.isprintable() and name == name.strip() and max(name) <= "\uffff":
                cursor.execute(f"SELECT 1 AS {quoted_identifier(name)}")
                assert cursor.description[0][0] == name
                assert cursor.fetchall() == ((1,),)

        denotes_itself()


@given(st.text() | st.text(min_size=60, max_size=70))
@example("")
def test_any_name_is_accepted_or_refused(name: str) -> None:
    try:
        check_name("name", name)
    except InvalidArguments as refused:
        assert refused.details[0][0] == "name"
    else:
        assert 1 <= len(name) <= 64


@pytest.mark.parametrize(
    "name", ["", "n" * 65, "名" * 52, "a\x00", "a\n", "end ", "🐘", "mysql", "SYS", "rdb", "_rdb"]
)
def test_reserved_and_malformed_names(name: str) -> None:
    with pytest.raises(InvalidArguments):
        check_name("name", name)


def test_what_sql_made_is_unmanaged(mysql: Server) -> None:
    inside = mysql.administration
    inside.create_user("guest", mysql.verifier, is_admin=False)
    with mysql.session() as admin:
        admin("CREATE DATABASE wild")
        admin("CREATE TABLE wild.t (a text)")
        admin("INSERT INTO wild.t SELECT REPEAT('x', 60000)")
        admin("GRANT SELECT ON wild.* TO guest")
    (wild,) = (one for one in inside.databases(sizes=True) if one.name == "wild")
    assert (wild.owner, wild.managed) == ("admin", False)
    assert 60_000 < wild.size < 1_000_000
    assert inside.privileges(database="wild") == []
    with pytest.raises(InvalidArguments, match="invalid argument") as refused:
        inside.set_privilege("wild", "guest", "readonly")
    assert refused.value.details[0][0] == "database_name"
    inside.check_delete_database("wild")
    inside.delete_database("wild")
    inside.create_database("wild")
    assert level(mysql, "wild", "guest") == "none", "the server keeps grants of what is dropped"
    inside.delete_database("wild")
    inside.delete_user("guest")


def test_names_differ_by_case(mysql: Server) -> None:
    inside = mysql.administration
    inside.create_database("Case")
    with mysql.session() as admin:
        admin("CREATE DATABASE `case`")
    managed = {one.name: one.managed for one in inside.databases(sizes=True)}
    assert managed == {"rdb": True, "Case": True, "case": False}
    for name in ("case", "Case"):
        inside.delete_database(name)


def test_what_is_in_the_way_of_deleting(mysql: Server) -> None:
    inside = mysql.administration
    for name in ("parent", "child"):
        inside.create_database(name)
    with mysql.session(database="parent") as run:
        run("CREATE TABLE t (a int PRIMARY KEY)")
        run("CREATE TABLE child.t (a int, FOREIGN KEY (a) REFERENCES parent.t (a))")
        run("BEGIN")
        run("SELECT * FROM t")
        run("ALTER DATABASE child READ ONLY = 1")
    with mysql.session(database="child") as run:
        with pytest.raises(PreconditionFailed, match="precondition") as refused:
            inside.delete_database("parent")
        assert "foreign key" in refused.value.help_message
        run("SELECT * FROM t")
        inside.delete_database("child")
        with pytest.raises(pymysql.MySQLError, match=GONE):
            run("SELECT 1")
    inside.delete_database("parent")


def test_what_is_taken_is_taken_at_once(mysql: Server) -> None:
    inside = mysql.administration
    inside.create_database("till")
    inside.create_user("erin", mysql.verifier, is_admin=False)
    inside.set_privilege("till", "erin", "readwrite")
    with mysql.session("erin", "till") as within, mysql.session("erin") as elsewhere:
        elsewhere("CREATE TEMPORARY TABLE till.t (a int)")
        inside.set_privilege("till", "erin", "all")
        assert within("SELECT 1") == [(1,)], "nothing is taken"
        inside.set_privilege("till", "erin", "none")
        with pytest.raises(pymysql.MySQLError, match=GONE):
            within("SELECT 1")
        with pytest.raises(pymysql.MySQLError, match="denied"):
            elsewhere("CREATE TEMPORARY TABLE till.u (a int)")
    inside.delete_user("erin")
    inside.delete_database("till")


def test_the_first_database_and_the_servers_stay(mysql: Server) -> None:
    inside = mysql.administration
    for name in ("rdb", "mysql", "sys", "information_schema", "performance_schema"):
        with pytest.raises(InvalidArguments):
            inside.check_delete_database(name)
    for name in ("absent", "🐘"):
        with pytest.raises(NotFound):
            inside.check_delete_database(name)
    with pytest.raises(NotFound):
        inside.check_set_privilege("mysql", "admin")


def test_names_in_lower_case(mysql_bundle: Bundle) -> None:
    with serving(mysql_bundle, lower_case_table_names="1") as server:
        inside = server.administration
        inside.create_database("ShÖp")
        assert names(inside) == {"rdb", "shöp"}
        with pytest.raises(InvalidArguments):
            inside.check_create_database("shöP")
        inside.create_user("Frank", server.verifier, is_admin=False)
        inside.set_privilege("SHÖP", "Frank", "readonly")
        assert level(server, "shöp", "Frank") == "readonly"
        inside.check_delete_database("SHÖP")
        inside.delete_database("SHÖP")
        assert names(inside) == {"rdb"}
