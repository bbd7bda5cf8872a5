"""Whose power in a MySQL server ends when: administrators, accounts that SQL made, and definers.

What a dismissed user leaves behind has only their present rights, and no administrator is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pymysql
import pytest

from openrdb.engines.mysql import reserved
from openrdb.engines.mysql.sql import quoted_account
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import Permission, User
from tests.support.mysql_server import REPLICATION_SECRET, Server
from tests.support.service import PASSWORD

DENIED = r"denied|not allowed|\(1044, |\(1142, |\(1227, |\(1370, "
GONE = "Lost connection|gone away|interrupted|closed|disconnected"

Superuser = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def superuser(mysql: Server) -> Iterator[Superuser]:
    with mysql.superuser() as session, session.cursor() as cursor:

        def run(statement: str) -> list[tuple[Any, ...]]:
            cursor.execute(statement)
            return list(cursor.fetchall())

        yield run


def refused(match: str = DENIED) -> AbstractContextManager[Any]:
    return pytest.raises(pymysql.MySQLError, match=match)


def made(server: Server, name: str, *, is_admin: bool = False, **levels: Permission) -> None:
    server.administration.create_user(name, server.verifier, is_admin=is_admin)
    for database, level in levels.items():
        server.administration.set_privilege(database, name, level)


def levels(server: Server, user: str) -> dict[str, Permission]:
    return {one.database: one.permission for one in server.administration.privileges(user=user)}


def promote(server: Server, name: str, *, is_admin: bool) -> None:
    server.administration.update_user(name, verifier=None, is_admin=is_admin)


# -- administrators --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["none", "readonly", "readwrite", "all"])
def test_a_demoted_administrator_has_the_levels_from_before(
    mysql: Server, office: str, before: Permission
) -> None:
    made(mysql, "carol", office=before)
    promote(mysql, "carol", is_admin=True)
    mysql.administration.create_database("meanwhile")
    listed = "all" if before == "none" else before
    assert levels(mysql, "carol") == {"rdb": "all", office: listed, "meanwhile": "all"}
    with mysql.session("carol") as run:
        run("CREATE TABLE meanwhile.t (a int)")
    promote(mysql, "carol", is_admin=False)
    assert levels(mysql, "carol") == {"rdb": "none", office: before, "meanwhile": "none"}
    mysql.administration.delete_database("meanwhile")


def test_an_administrator_reaches_all_whatever_is_put(
    mysql: Server, office: str, superuser: Superuser
) -> None:
    made(mysql, "boss", is_admin=True)
    with mysql.session("boss", office) as run:
        run("CREATE TABLE t (a int)")
        superuser("GRANT SELECT (a) ON office.t TO boss")
        for level in ("none", "all", "readwrite", "readonly"):
            mysql.administration.set_privilege(office, "boss", level)
            assert levels(mysql, "boss")[office] == ("all" if level == "none" else level)
            run("ALTER TABLE t COMMENT ''")  # by a session that lives on
            with mysql.session("boss", office) as other:
                other("INSERT INTO t VALUES (1)")
    promote(mysql, "boss", is_admin=False)
    assert levels(mysql, "boss") == {"rdb": "none", office: "readonly"}, "what was put last"
    with mysql.session("boss", office) as run, refused():
        run("INSERT INTO t VALUES (1)")


def test_administrators_of_earlier_versions_are_made_whole(
    mysql: Server, office: str, superuser: Superuser
) -> None:
    """A level put for one limited them there, and some privileges are new."""
    made(mysql, "boss", is_admin=True)
    made(mysql, "carol")
    superuser("GRANT SELECT ON *.* TO carol")
    model = quoted_account(reserved.MODEL)
    superuser("REVOKE INSERT, DROP ON office.* FROM boss")
    superuser("REVOKE SELECT ON office.* FROM carol")
    superuser(f"REVOKE REPLICATION CLIENT ON *.* FROM boss, {model}")
    if mysql.spec.engine != "MySQL-8":
        superuser(f"REVOKE FLUSH_PRIVILEGES ON *.* FROM boss, {model}")
    superuser(f"CREATE USER ''@'%', {quoted_account(('x', 'localhost'))}")
    assert levels(mysql, "boss")[office] == "custom"
    limits = {one for (one,) in superuser(f"SHOW GRANTS FOR {model}") if one.startswith("REVOKE")}
    assert limits
    for _ in range(2):
        assert not mysql.engine.ensure_replication_ready(REPLICATION_SECRET)
    assert levels(mysql, "boss")[office] == "all"
    assert levels(mysql, "carol")[office] == "none", "the limits of others stay"
    admin = grants(superuser, "admin@'%'")
    assert grants(superuser, "boss@'%'") == {one.replace("admin", "boss") for one in admin}
    assert limits <= {one for (one,) in superuser(f"SHOW GRANTS FOR {model}")}
    with mysql.session("boss") as run:
        run("CREATE TABLE office.t (a int)")
        run("SHOW BINARY LOGS")
        with refused():
            run("SELECT * FROM mysql.user")
    assert superuser("SELECT 1 FROM mysql.user WHERE user = ''") == []


def grants(superuser: Superuser, account: str) -> set[str]:
    return {one for (one,) in superuser(f"SHOW GRANTS FOR {account}") if "rdb" not in one}


def test_a_dismissed_administrator_keeps_no_role(mysql: Server, office: str) -> None:
    made(mysql, "carol", is_admin=True)
    made(mysql, "dave")
    with mysql.session("carol") as run:
        run("CREATE ROLE ring, chain, reader")
        run("GRANT CREATE USER, CREATE, DROP ON *.* TO ring")
        run("GRANT ring TO chain")
        run("GRANT SELECT, SHOW VIEW ON office.* TO reader")
        run("GRANT chain, admin, reader TO carol WITH ADMIN OPTION")
        run("SET DEFAULT ROLE ALL TO carol")
        run("GRANT carol TO dave")
        run("SET DEFAULT ROLE carol TO dave")
    assert User("dave", True) in mysql.administration.users()
    with mysql.session("carol") as own, mysql.session("dave") as other:
        other("CREATE TABLE office.t (a int)")
        promote(mysql, "carol", is_admin=False)
        for session in (own, other):
            with refused(GONE):
                session("SELECT 1")
    found = {one.name: one.is_admin for one in mysql.administration.users()}
    assert (found["carol"], found["dave"]) == (False, False)
    for user in ("carol", "dave"):
        assert levels(mysql, user)[office] == "none"
        with mysql.session(user) as run:
            run("SET ROLE ALL")
            for statement in (
                "SELECT * FROM office.t",
                "DROP TABLE office.t",
                "CREATE USER x",
                "GRANT admin TO carol",
                "CREATE DATABASE x",
            ):
                with refused():
                    run(statement)
            for role in ("admin", "chain", "ring", "reader"):
                with refused("not granted"):
                    run(f"SET ROLE {role}")


def test_who_rules_by_one_privilege_is_an_administrator(mysql: Server, office: str) -> None:
    made(mysql, "carol")
    for privilege in ("CREATE USER", "ROLE_ADMIN"):
        with mysql.session() as run:
            run(f"GRANT {privilege} ON *.* TO carol WITH GRANT OPTION")
        assert User("carol", True) in mysql.administration.users(), privilege
        promote(mysql, "carol", is_admin=False)
        assert User("carol", False) in mysql.administration.users()
        with mysql.session("carol") as run, refused():
            run("CREATE USER x")


# -- accounts that SQL made ------------------------------------------------------------------------

HIDDEN = [
    *("_rdb_stealth@'%'", "_RDBx@'127.0.0.1'", "'mysql.stealth'@'%'", "root@'%'", "`pg_x`@'%'"),
    *("_rdb_superadmin@'%'", "_rdb_administrator@'127.0.0.1'", "_rdb_replication@'127.0.0.1'"),
    *("'mysql.session'@'%'", "'a b'@'%'"),
]
"""With names that the API gives to nobody."""


@pytest.mark.parametrize("account", HIDDEN)
def test_no_account_rules_unseen(
    mysql: Server, office: str, superuser: Superuser, account: str
) -> None:
    inside, name = mysql.administration, account.partition("@")[0].strip("'`")
    accounts = superuser("SELECT user, host FROM mysql.user WHERE user LIKE '%rdb%'")
    with mysql.session() as admin:
        admin(f"CREATE USER {account} IDENTIFIED BY '{PASSWORD}'")
        admin(f"GRANT CREATE USER, CREATE, SELECT ON *.* TO {account} WITH GRANT OPTION")
    assert User(name, True) in inside.users()
    inside.check_update_user(name)
    inside.update_user(name, verifier=None, is_admin=False)
    assert User(name, False) in inside.users()
    inside.check_set_privilege(office, name)
    inside.set_privilege(office, name, "readonly")
    assert levels(mysql, name)[office] == "readonly"
    with mysql.session(name) as run:
        with refused():
            run("CREATE USER x")
        inside.check_delete_user(name)
        inside.delete_user(name)
        with refused(GONE):
            run("SELECT 1")
    with refused("Access denied"), mysql.session(name):
        pass
    assert name not in {one.name for one in inside.users()}
    with pytest.raises((NotFound, InvalidArguments)):
        inside.check_delete_user(name)
    assert accounts == superuser("SELECT user, host FROM mysql.user WHERE user LIKE '%rdb%'")


def test_a_password_set_is_the_only_one(mysql: Server, office: str) -> None:
    """Another administrator may have left one of their own next to it."""
    made(mysql, "boss", is_admin=True)
    with mysql.session() as run:
        run("ALTER USER boss IDENTIFIED BY 'Th3irs-of-before'")
        run("ALTER USER boss IDENTIFIED BY 'x' RETAIN CURRENT PASSWORD")
    with mysql.session("boss", password="Th3irs-of-before") as run:
        assert run("SELECT 1") == [(1,)]
    mysql.administration.update_user("boss", verifier=mysql.verifier, is_admin=None)
    with mysql.session("boss") as run:
        assert run("SELECT 1") == [(1,)]
    for password in ("Th3irs-of-before", "x"):
        with refused("Access denied"), mysql.session("boss", password=password):
            pass


@pytest.mark.parametrize("name", ["", "admin ", "ADMIN", "🐘", "harmless"])
def test_names_are_exact(mysql: Server, office: str, name: str) -> None:
    with mysql.session() as run:
        run("CREATE ROLE harmless")
        run("CREATE USER ''@'192.0.2.1'")
    inside = mysql.administration
    for check in (inside.check_update_user, inside.check_delete_user):
        with pytest.raises(NotFound):
            check(name)
    with pytest.raises(NotFound):
        inside.check_set_privilege(office, name)


def test_an_administrator_by_whom_nobody_logs_in_is_seen(mysql: Server, office: str) -> None:
    """It may be the definer of what others call."""
    with mysql.session() as admin:
        admin("CREATE ROLE _rdb_ring, harmless")
        admin("GRANT ROLE_ADMIN ON *.* TO _rdb_ring")
    users = mysql.administration.users()
    assert User("_rdb_ring", True) in users
    assert "harmless" not in {one.name for one in users}
    mysql.administration.check_delete_user("_rdb_ring")
    mysql.administration.delete_user("_rdb_ring")
    assert "_rdb_ring" not in {one.name for one in mysql.administration.users()}


def test_a_definer_that_looks_like_a_role_is_seen(mysql: Server, office: str) -> None:
    """Its routine gives whoever may call it what it has."""
    with mysql.session() as admin:
        admin("CREATE USER stealth IDENTIFIED BY %s", PASSWORD)
        admin("GRANT ALL ON office.* TO stealth")
        with mysql.session("stealth", office) as run:
            run("CREATE PROCEDURE p() DROP TABLE t")
        admin("ALTER USER stealth IDENTIFIED BY '' PASSWORD EXPIRE ACCOUNT LOCK")
        admin("CREATE ROLE alike")
        names = {one.name for one in mysql.administration.users()}
        assert names & {"stealth", "alike"} == {"stealth"}
        mysql.administration.check_set_privilege(office, "stealth")
        mysql.administration.set_privilege(office, "stealth", "none")
        with refused():
            admin("CALL office.p()")
        admin("DROP PROCEDURE office.p")
        assert "stealth" not in {one.name for one in mysql.administration.users()}


def test_a_dismissed_administrator_is_dismissed_everywhere(mysql: Server, office: str) -> None:
    """By each account of the name, whatever host it is for."""
    made(mysql, "carol", is_admin=True)
    with mysql.session("carol") as run:
        run(f"CREATE USER carol@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        run("GRANT CREATE USER, SELECT, DROP ON *.* TO carol@'127.0.0.1' WITH GRANT OPTION")
        run("GRANT ROLE_ADMIN ON *.* TO carol@'127.0.0.1' WITH GRANT OPTION")
    promote(mysql, "carol", is_admin=False)
    with mysql.session("carol") as run:
        granted = [one for (one,) in run("SHOW GRANTS") if not one.startswith("REVOKE")]
        assert granted == ["GRANT USAGE ON *.* TO `carol`@`127.0.0.1`"]
    assert levels(mysql, "carol") == {"rdb": "none", office: "none"}


CHANGES: dict[str, Callable[[Server], None]] = {
    "create": lambda server: made(server, "new"),
    "update": lambda server: promote(server, "carol", is_admin=False),
    "delete": lambda server: server.administration.delete_user("carol"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_users_drops_the_anonymous_one(mysql: Server, office: str, change: str) -> None:
    """Whatever its name, and whatever host it is for."""
    made(mysql, "carol", is_admin=True)
    with mysql.session("carol") as run:
        run("CREATE USER ''@'%%', ''@'127.0.0.1' IDENTIFIED BY %s", PASSWORD)
        run("GRANT CREATE USER, SELECT ON *.* TO ''@'127.0.0.1'")
    # The more exact host comes first, so it is also who comes as somebody that there is.
    with mysql.session("whoever") as stranger, mysql.session("admin") as namesake:
        assert stranger("SELECT CURRENT_USER()") == [("@127.0.0.1",)]
        assert namesake("SELECT CURRENT_USER()") == [("@127.0.0.1",)]
        CHANGES[change](mysql)
        for session in (stranger, namesake):
            with refused(GONE):
                session("SELECT 1")
    with refused("Access denied"), mysql.session("whoever"):
        pass
    with mysql.session("admin") as run:
        assert run("SELECT CURRENT_USER()") == [("admin@%",)]


# -- definers --------------------------------------------------------------------------------------


def leave_traps(run: Any) -> None:
    """Make all that runs as its definer, for others to use."""
    run("CREATE TABLE office.t (a int)")
    run("CREATE TABLE office.log (a int)")
    run("CREATE VIEW office.v AS SELECT * FROM office.t")
    run(
        "CREATE TRIGGER office.r AFTER INSERT ON office.t FOR EACH ROW INSERT office.log VALUES (1)"
    )
    run(
        "CREATE PROCEDURE office.sh(q TEXT) BEGIN SET @q = q; PREPARE s FROM @q; EXECUTE s;"
        " DEALLOCATE PREPARE s; END"
    )
    run(
        "CREATE EVENT office.e ON SCHEDULE EVERY 1 SECOND ON COMPLETION PRESERVE"
        " DO INSERT INTO office.log VALUES (2)"
    )


def use_traps(run: Any) -> list[str]:
    """Return which of them work."""
    found = []
    for kind, statement in {
        "view": "SELECT * FROM office.v",
        "trigger": "INSERT INTO office.t VALUES (1)",
        "procedure": "CALL office.sh('DROP TABLE IF EXISTS office.absent')",
        "rule": "CALL office.sh('CREATE USER IF NOT EXISTS puppet')",
    }.items():
        try:
            run(statement)
        except pymysql.MySQLError:
            continue
        found.append(kind)
    return found


def writes(superuser: Superuser) -> int:
    """Return how many rows the event has written after one more turn of it."""
    query = "SELECT last_executed FROM information_schema.events WHERE event_name = 'e'"
    superuser("DELETE FROM office.log WHERE a = 2")
    before = superuser(query)
    while superuser(query) == before:
        superuser("DO SLEEP(0.2)")
    superuser("DO SLEEP(0.2)")
    return len(superuser("SELECT 1 FROM office.log WHERE a = 2"))


def test_what_a_user_defined_falls_with_their_level(
    mysql: Server, office: str, superuser: Superuser
) -> None:
    """Also for others, in sessions that live on."""
    made(mysql, "dev", office="all")
    made(mysql, "caller", office="readwrite")
    with mysql.session("dev") as run:
        leave_traps(run)
    with mysql.session("caller") as run:
        assert use_traps(run) == ["view", "trigger", "procedure"]
        assert writes(superuser)
        for level, working in {
            "readwrite": ["view", "trigger"],
            "readonly": ["view"],
            "none": [],
        }.items():
            mysql.administration.set_privilege(office, "dev", level)
            # A trigger needs the right to make one, as the server has it.
            assert set(use_traps(run)) <= set(working), level
        assert writes(superuser) == 0
    with mysql.session() as admin:
        for what in ("VIEW v", "TRIGGER r", "PROCEDURE sh", "EVENT e", "TABLE t", "TABLE log"):
            kind, name = what.split()
            admin(f"DROP {kind} office.{name}")
        leave_traps(admin)
    mysql.administration.check_delete_user("dev")


def test_what_an_administrator_defined_falls_with_them(mysql: Server, office: str) -> None:
    made(mysql, "carol", is_admin=True)
    made(mysql, "caller", office="readwrite")
    with mysql.session("carol") as run:
        leave_traps(run)
    with mysql.session("caller") as run:
        assert use_traps(run) == ["view", "trigger", "procedure", "rule"]
        promote(mysql, "carol", is_admin=False)
        assert use_traps(run) == []
    with pytest.raises(PreconditionFailed) as named:
        mysql.administration.check_delete_user("carol")
    for one in ("view `office`.`v`", "trigger `office`.`r`", "procedure `office`.`sh`"):
        assert one in named.value.help_message


def test_a_new_user_is_not_the_definer_of_what_a_former_one_left(
    mysql: Server, office: str, superuser: Superuser
) -> None:
    made(mysql, "dev", office="all")
    with mysql.session("dev") as run:
        run("CREATE PROCEDURE office.p() SELECT 1")
    superuser("DROP USER dev")
    with pytest.raises(PreconditionFailed) as named:
        mysql.administration.check_create_user("dev")
    assert "procedure `office`.`p`" in named.value.help_message
    with mysql.session() as admin:
        admin("DROP PROCEDURE office.p")
    mysql.administration.check_create_user("dev")


def test_nobody_defines_as_another(mysql: Server, office: str) -> None:
    """A dismissed administrator would leave what runs with another's power."""
    with mysql.session() as run:
        run("CREATE USER other")
        for statement in (
            "CREATE DEFINER = other PROCEDURE office.p() SELECT 1",
            "CREATE DEFINER = other EVENT office.e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
            "GRANT SET_ANY_DEFINER ON *.* TO admin",
        ):
            with refused():
                run(statement)


# -- databases that SQL made -----------------------------------------------------------------------


def test_what_sql_made_is_the_first_administrators(mysql: Server, office: str) -> None:
    made(mysql, "aaron")
    with mysql.session() as run:
        run("CREATE DATABASE wild")
    found = {one.name: one for one in mysql.administration.databases(sizes=False)}
    assert (found["wild"].owner, found["wild"].managed) == ("admin", False)
    assert found[office].owner == "_rdb_superadmin"
    mysql.administration.delete_database("wild")


# -- sessions' memory ------------------------------------------------------------------------------


UNBOUNDED = {"innodb_ddl_buffer_size", "max_join_size", "myisam_sort_buffer_size"}
"""Storage engines' own, which the server cannot bound (docs/decisions.md), and a number of rows."""


def test_no_session_gives_itself_memory_without_bounds(mysql: Server) -> None:
    """All that a session may set and whose name says that it is an amount of memory."""
    bound = max(2**25, mysql.spec.memory // 8)
    with mysql.session() as run:
        shown = dict(run("SHOW SESSION VARIABLES"))
        amounts = [
            name
            for name, value in shown.items()
            if value.isdigit() and name.endswith(("_size", "_len")) and name not in UNBOUNDED
        ]
        for name in amounts:
            try:
                run(f"SET SESSION {name} = 18446744073709551615")
            except pymysql.MySQLError:
                continue  # of the server's, or limited to administrators of it
            ((value,),) = run(f"SELECT @@SESSION.{name}")
            assert int(value) <= bound, name
        assert "sort_buffer_size" in amounts
        assert run("SELECT @@temptable_max_ram") == [(bound,)]
