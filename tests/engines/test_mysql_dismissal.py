"""What a MySQL user whose power ends still has running, or has given to themselves, ends with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import Mock

import pymysql
import pytest

from openrdb.engines.mysql.admin import user_sessions
from openrdb.engines.mysql.sql import quoted_account
from tests.support.mysql_server import Server
from tests.support.service import PASSWORD

Run = Callable[..., list[tuple[Any, ...]]]

RULE = "CREATE USER evil; GRANT CREATE USER ON *.* TO evil;"
ENDS: dict[str, Callable[[Server], None]] = {
    "demoted": lambda server: demote(server, "boss"),
    "deleted": lambda server: server.administration.delete_user("boss"),
}
GONE = r"Lost connection|gone away|interrupted|closed|disconnected|^\(0, "


def demote(server: Server, name: str) -> None:
    server.administration.update_user(name, verifier=None, is_admin=False)


def evil(server: Server) -> bool:
    return "evil" in {one.name for one in server.administration.users()}


@pytest.fixture
def staff(mysql: Server, office: str) -> Iterator[dict[str, Run]]:
    """Sessions of two administrators."""
    with ExitStack() as stack:
        sessions = {}
        for name in ("boss", "mate"):
            mysql.administration.create_user(name, mysql.verifier, is_admin=True)
            sessions[name] = stack.enter_context(mysql.session(name, office))
        yield sessions


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def wait_for_naps(server: Server, number: int) -> None:
    with server.superuser() as session, session.cursor() as cursor:
        for _ in range(100):
            cursor.execute("SHOW PROCESSLIST")
            if sum(row[6] == "User sleep" for row in cursor.fetchall()) >= number:
                return
            time.sleep(0.05)
    raise AssertionError("they do not sleep")


def is_ended(running: Future[Any]) -> bool:
    error = running.exception(30)
    return isinstance(error, pymysql.MySQLError)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("body", ["DO SLEEP(3);", "CALL nap(3);"])
def test_a_running_event_ends_with_its_definer(
    mysql: Server, staff: dict[str, Run], end: str, body: str
) -> None:
    staff["mate"]("CREATE PROCEDURE nap(n INT) DO SLEEP(n)")
    staff["boss"](
        f"CREATE EVENT e ON SCHEDULE AT CURRENT_TIMESTAMP DO BEGIN {body} {RULE} END",
    )
    wait_for_naps(mysql, 1)
    ENDS[end](mysql)
    time.sleep(3.5)
    assert not evil(mysql)


@pytest.mark.parametrize("host", ["%", "127.0.0.1"])
def test_a_session_in_the_routine_of_another_ends(
    mysql: Server, staff: dict[str, Run], threads: ThreadPoolExecutor, host: str
) -> None:
    """The server shows the other as its user."""
    if host != "%":
        staff["mate"](f"CREATE USER mate@'{host}' IDENTIFIED BY '{PASSWORD}'")
        staff["mate"](f"GRANT ALL ON office.* TO mate@'{host}'")
    with mysql.session("mate", "office") as mate, mysql.session("mate", "office") as idle:
        mate("CREATE PROCEDURE nap(n INT) DO SLEEP(n)")
        running = threads.submit(staff["boss"], "CALL nap(3)")
        wait_for_naps(mysql, 1)
        demote(mysql, "boss")
        assert is_ended(running)
        with pytest.raises(pymysql.MySQLError, match=GONE):
            staff["boss"]("CREATE USER evil")
        for session in (mate, idle):
            assert session("SELECT 1") == [(1,)], "who is in no routine lives on"


@pytest.mark.parametrize("end", ENDS)
def test_what_another_runs_in_their_routine_ends(
    mysql: Server, staff: dict[str, Run], threads: ThreadPoolExecutor, end: str
) -> None:
    """While it is in a routine of a third one's, to which it would come back."""
    staff["mate"]("CREATE PROCEDURE nap(n INT) DO SLEEP(n)")
    staff["boss"](f"CREATE PROCEDURE go() BEGIN CALL nap(3); {RULE} END")
    running = threads.submit(staff["mate"], "CALL go()")
    wait_for_naps(mysql, 1)
    ENDS[end](mysql)
    assert is_ended(running)
    assert not evil(mysql)


def test_who_runs_no_routine_is_not_disturbed(
    mysql: Server, staff: dict[str, Run], threads: ThreadPoolExecutor
) -> None:
    staff["mate"]("CREATE PROCEDURE nap(n INT) DO SLEEP(n)")
    running = threads.submit(staff["mate"], "DO SLEEP(2)")
    wait_for_naps(mysql, 1)
    demote(mysql, "boss")
    assert running.result(30) == []


def fail_once(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[], None], before: str = "end"
) -> None:
    """Try a change as if the service were killed before it ends sessions; then once more."""

    def killed(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(user_sessions, before, killed)
        with pytest.raises(ConnectionError):
            change()
    change()


def test_a_repeated_dismissal_ends_sessions(
    mysql: Server, staff: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, lambda: demote(mysql, "boss"))
    with pytest.raises(pymysql.MySQLError, match=GONE):
        staff["boss"]("CREATE USER evil")


def test_a_repeated_lower_level_ends_sessions(
    mysql: Server, office: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = mysql.administration
    inside.create_user("dev", mysql.verifier, is_admin=False)
    inside.set_privilege(office, "dev", "all")
    with mysql.session("dev", office) as run:
        fail_once(monkeypatch, lambda: inside.set_privilege(office, "dev", "none"))
        with pytest.raises(pymysql.MySQLError, match=GONE):
            run("CREATE TABLE t (a int)")


def test_a_repeated_deletion_ends_sessions_of_others(
    mysql: Server, office: str, staff: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who act as the user by a role, which nobody has any more the second time."""
    mysql.administration.create_user("dev", mysql.verifier, is_admin=False)
    staff["mate"]("GRANT boss TO dev")
    with mysql.session("dev") as acting, mysql.session("mate") as other:
        acting("SET ROLE boss")
        fail_once(monkeypatch, lambda: mysql.administration.delete_user("boss"))
        with pytest.raises(pymysql.MySQLError, match=GONE):
            acting("CREATE USER evil")
        other("SELECT 1")
    assert noted(mysql) is None


def test_a_repeated_change_ends_sessions_of_the_anonymous_user(
    mysql: Server, office: str, staff: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    staff["mate"](f"CREATE USER ''@'%' IDENTIFIED BY '{PASSWORD}'")
    with mysql.session("anybody") as run:
        fail_once(monkeypatch, lambda: demote(mysql, "boss"), before="end_all")
        with pytest.raises(pymysql.MySQLError, match=GONE):
            run("SELECT 1")
    assert noted(mysql) is None


def test_the_next_change_completes_what_was_never_repeated(
    mysql: Server, office: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that have to be quoted too."""
    inside, name = mysql.administration, "d'v\\\"é"
    with mysql.session() as admin:
        account = quoted_account((name, "%"))
        admin(f"CREATE USER {account} IDENTIFIED BY '{PASSWORD}'")
    inside.set_privilege(office, name, "all")
    with mysql.session(name, office) as run:
        with monkeypatch.context() as patch, pytest.raises(ConnectionError):
            patch.setattr(user_sessions, "end", Mock(side_effect=ConnectionError))
            inside.set_privilege(office, name, "readonly")
        assert noted(mysql) is not None
        inside.create_user("next", mysql.verifier, is_admin=False)
        with pytest.raises(pymysql.MySQLError, match=GONE):
            run("SELECT 1")
    assert noted(mysql) is None


def noted(server: Server) -> object:
    """Return whose sessions are still to be ended."""
    with server.superuser() as session, session.cursor() as cursor:
        cursor.execute("SELECT user_attributes->'$.metadata.ending' FROM mysql.user")
        (found,) = {one for (one,) in cursor.fetchall()} - {None} or {None}
        return found


@pytest.mark.parametrize("host", ["%", "127.0.0.1"])
def test_sessions_end_only_where_something_is_taken(mysql: Server, office: str, host: str) -> None:
    """Not if a level is raised, nor if the same is set again."""
    inside = mysql.administration
    inside.create_user("dev", mysql.verifier, is_admin=False)
    if host != "%":
        with mysql.session() as admin:
            admin(f"CREATE USER dev@'{host}' IDENTIFIED BY '{PASSWORD}'")
    set_level = partial(inside.set_privilege, office, "dev")
    set_level("readonly")
    with mysql.session("dev", office) as run:
        for level in ("readonly", "readwrite", "readwrite", "all", "all"):
            set_level(level)
            run("SELECT 1")
        run(f"USE {office}")  # the server looks at a database's privileges there
        run("CREATE TABLE t (a int)")
    for before, after in (("all", "readwrite"), ("readwrite", "readonly"), ("readonly", "none")):
        set_level(before)
        with mysql.session("dev", office) as run, mysql.session("dev") as elsewhere:
            set_level(after)
            with pytest.raises(pymysql.MySQLError, match=GONE):
                run("SELECT 1")
            elsewhere("SELECT 1")


def test_what_sql_granted_beyond_a_level_is_taken(
    mysql: Server, office: str, staff: dict[str, Run]
) -> None:
    """By setting the level that the user seems to have; then nothing is left to be taken."""
    inside, boss = mysql.administration, staff["boss"]
    boss("CREATE TABLE t (a int)")
    for grant in (
        "GRANT INSERT ON office.t TO dev",
        "GRANT writer TO dev",
        "GRANT INSERT ON office.* TO dev",
        "GRANT INSERT ON *.* TO dev",
    ):
        inside.create_user("dev", mysql.verifier, is_admin=False)
        boss("CREATE ROLE writer")
        boss("GRANT INSERT ON office.* TO writer")
        inside.set_privilege(office, "dev", "readonly")
        boss(grant)
        with mysql.session("dev", office) as run:
            inside.set_privilege(office, "dev", "readonly")
            with pytest.raises(pymysql.MySQLError, match=GONE):
                run("SELECT 1")
        with mysql.session("dev", office) as run:
            inside.set_privilege(office, "dev", "readonly")
            run("SELECT 1")
        inside.delete_user("dev")
        boss("DROP ROLE writer")


def test_what_an_administrator_gave_to_themselves_falls_with_them(
    mysql: Server, office: str, staff: dict[str, Run]
) -> None:
    inside, boss = mysql.administration, staff["boss"]
    for name in ("bob", "puppet"):
        inside.create_user(name, mysql.verifier, is_admin=False)
    inside.set_privilege(office, "bob", "all")
    boss("CREATE TABLE t (a int)")
    boss("CREATE PROCEDURE p() SELECT 1")
    boss("GRANT bob TO boss WITH ADMIN OPTION")
    boss("GRANT ALL ON office.* TO boss WITH GRANT OPTION")
    boss("GRANT SELECT ON office.t TO boss WITH GRANT OPTION")
    boss("GRANT EXECUTE ON PROCEDURE office.p TO boss WITH GRANT OPTION")
    demote(mysql, "boss")
    with mysql.session("boss", office) as run:
        run("SELECT * FROM t")
        run("CALL p()")
        for statement in (
            "SET ROLE bob",
            "GRANT bob TO puppet",
            "GRANT ALL ON office.* TO puppet",
            "GRANT SELECT ON office.t TO puppet",
            "GRANT EXECUTE ON PROCEDURE office.p TO puppet",
        ):
            with pytest.raises(pymysql.MySQLError, match=r"denied|not granted"):
                run(statement)
        run("DROP PROCEDURE p")
