"""What the tenant's administrator tries in order to leave his server, to rule it, or to blind us.

Each attack by a session of his, as clients have it. That nothing has come of them, and that the
control plane still works, is looked at after all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pymysql
import pytest

from openrdb.engines.mysql import session as sessions
from openrdb.engines.mysql.reserved import MODEL
from openrdb.engines.mysql.session import connect
from openrdb.engines.mysql.sql import quoted_account
from openrdb.errors import PreconditionFailed
from tests.support.mysql_server import SECRET, Server
from tests.support.service import PASSWORD

SUPERUSER = "_rdb_superadmin@localhost"

DENIED = {1044, 1045, 1142, 1227, 1698, 3630, 3836}
"""For want of a privilege."""
NEVER = {1465}
"""To nobody: triggers on system tables."""

REFUSED = {
    # -- the host's files
    "read a file into a table": "LOAD DATA INFILE '/etc/passwd' INTO TABLE rdb.mine",
    "write a file": "SELECT 'x' INTO OUTFILE '/tmp/openrdb-attack'",
    "write a binary file": "SELECT 'x' INTO DUMPFILE '/tmp/openrdb-attack'",
    "a table elsewhere": "CREATE TABLE rdb.there (a int) DATA DIRECTORY = '/tmp'",
    "a partition elsewhere": "CREATE TABLE rdb.there (a int) PARTITION BY HASH (a) "
    "(PARTITION p DATA DIRECTORY = '/tmp')",
    "a tablespace elsewhere": "CREATE TABLESPACE t ADD DATAFILE '/tmp/t.ibd'",
    "an undo tablespace": "CREATE UNDO TABLESPACE t ADD DATAFILE 'undo.ibu'",
    "import a table's file": "IMPORT TABLE FROM '/tmp/*.sdi'",
    "clone to a directory": "CLONE LOCAL DATA DIRECTORY = '/tmp/openrdb-attack'",
    "clone from elsewhere": "CLONE INSTANCE FROM x@'192.0.2.1':3306 IDENTIFIED BY 'x'",
    "the general log's file": "SET GLOBAL general_log_file = '/tmp/openrdb-attack'",
    "the slow log's file": "SET GLOBAL slow_query_log_file = '/tmp/openrdb-attack'",
    # -- code
    "a plugin": "INSTALL PLUGIN x SONAME 'auth_socket.so'",
    "a component": "INSTALL COMPONENT 'file://component_validate_password'",
    "a function of a library": "CREATE FUNCTION f RETURNS STRING SONAME 'libc.so.6'",
    "a plugin by its table": "INSERT INTO mysql.plugin VALUES ('x', 'x.so')",
    "a function by its table": "INSERT INTO mysql.func VALUES ('f', 0, 'x.so', 'function')",
    # -- privileges
    "SUPER": "GRANT SUPER ON *.* TO admin",
    "SYSTEM_USER": "GRANT SYSTEM_USER ON *.* TO admin",
    "FILE": "GRANT FILE ON *.* TO admin",
    "everything": "GRANT ALL ON *.* TO admin",
    "SET_ANY_DEFINER": "GRANT SET_ANY_DEFINER ON *.* TO admin",
    "CONNECTION_ADMIN": "GRANT CONNECTION_ADMIN ON *.* TO admin",
    "the server's tables": "GRANT SELECT ON mysql.* TO admin",
    "one of the server's tables": "GRANT UPDATE ON mysql.user TO admin",
    "in another's name": f"GRANT SELECT ON *.* TO admin AS {SUPERUSER}",
    "be the superuser's proxy": f"GRANT PROXY ON {SUPERUSER} TO admin",
    "be anybody's proxy": "GRANT PROXY ON ''@'' TO admin",
    "the superuser as a role": f"GRANT {SUPERUSER} TO admin",
    "a server account as a role": "GRANT 'mysql.session'@localhost TO admin",
    "the model as a role": f"GRANT {quoted_account(MODEL)} TO admin",
    "a user born with a role": f"CREATE USER born DEFAULT ROLE {SUPERUSER}",
    "roles for everybody": f"SET GLOBAL mandatory_roles = '{SUPERUSER}'",
    "switch limits off": "SET GLOBAL partial_revokes = OFF",
    # -- our accounts
    "the superuser's password": f"ALTER USER {SUPERUSER} IDENTIFIED BY 'x'",
    "its password, otherwise": f"SET PASSWORD FOR {SUPERUSER} = 'x'",
    "lock the superuser": f"ALTER USER {SUPERUSER} ACCOUNT LOCK",
    "limit the superuser": f"ALTER USER {SUPERUSER} WITH MAX_USER_CONNECTIONS 1",
    "rename the superuser": f"RENAME USER {SUPERUSER} TO mine@localhost",
    "drop the superuser": f"DROP USER {SUPERUSER}",
    "take its privileges": f"REVOKE ALL, GRANT OPTION FROM {SUPERUSER}",
    "make a database managed": f"GRANT ALL ON mine.* TO {SUPERUSER}",
    "make one unmanaged": f"REVOKE ALL ON rdb.* FROM {SUPERUSER}",
    "a role for the superuser": f"SET DEFAULT ROLE NONE TO {SUPERUSER}",
    "unlock the model": f"ALTER USER {quoted_account(MODEL)} ACCOUNT UNLOCK",
    "more for the model": f"GRANT SELECT ON sys.* TO {quoted_account(MODEL)}",
    "unlock a server account": "ALTER USER 'mysql.session'@localhost ACCOUNT UNLOCK",
    # -- the superuser's rights by definers
    "its view": f"CREATE DEFINER = {SUPERUSER} VIEW rdb.v AS SELECT * FROM mysql.user",
    "its procedure": f"CREATE DEFINER = {SUPERUSER} PROCEDURE rdb.p() SELECT 1",
    "its function": f"CREATE DEFINER = {SUPERUSER} FUNCTION rdb.f() RETURNS int RETURN 1",
    "its trigger": f"CREATE DEFINER = {SUPERUSER} TRIGGER rdb.r BEFORE INSERT ON rdb.mine "
    "FOR EACH ROW SET NEW.a = 1",
    "its event": f"CREATE DEFINER = {SUPERUSER} EVENT rdb.e ON SCHEDULE EVERY 1 SECOND "
    "DO GRANT SUPER ON *.* TO admin",
    "its existing view": f"ALTER DEFINER = {SUPERUSER} VIEW rdb.own AS SELECT 1",
    "its event from one's own": f"ALTER DEFINER = {SUPERUSER} EVENT rdb.own DO SELECT 1",
    "a server account's view": "CREATE DEFINER = 'mysql.sys'@localhost VIEW rdb.v AS SELECT 1",
    "an absent user's view": "CREATE DEFINER = nobody VIEW rdb.v AS SELECT 1",
    # -- the server's own databases
    "hashes": "SELECT authentication_string FROM mysql.user",
    "hashes by SHOW": f"SHOW CREATE USER {SUPERUSER}",
    "hashes by a view": "CREATE VIEW rdb.v AS SELECT authentication_string FROM mysql.user",
    "grants": "UPDATE mysql.user SET Super_priv = 'Y'",
    "dynamic privileges": "INSERT INTO mysql.global_grants VALUES ('admin', '%', 'SUPER', 'Y')",
    "a table there": "CREATE TABLE mysql.mine (a int)",
    "drop one there": "DROP TABLE mysql.user",
    "read it elsewhere": "RENAME TABLE mysql.user TO rdb.users",
    "a trigger on it": "CREATE TRIGGER mysql.r AFTER INSERT ON mysql.user FOR EACH ROW SET @a = 1",
    "the log's table": "SELECT * FROM mysql.general_log",
    "change sys": "UPDATE sys.sys_config SET value = 'x'",
    "a trap in sys": "CREATE OR REPLACE VIEW sys.session AS SELECT 1",
    "drop sys": "DROP DATABASE sys",
    "switch recording on": "UPDATE performance_schema.setup_consumers SET enabled = 'YES'",
    "record us": "UPDATE performance_schema.threads SET instrumented = 'YES'",
    "by its procedure": "CALL sys.ps_setup_enable_consumer('statements')",
    "forget what was recorded": "TRUNCATE performance_schema.events_statements_history",
    # -- settings
    "a setting": "SET GLOBAL max_connections = 1",
    "a lasting setting": "SET PERSIST max_connections = 1",
    "a setting for the next start": "SET PERSIST_ONLY innodb_ft_min_token_size = 1",
    "forget settings": "RESET PERSIST",
    "without TLS": "SET GLOBAL require_secure_transport = OFF",
    "local files": "SET GLOBAL local_infile = ON",
    "SQL for every session": "SET GLOBAL init_connect = 'DO 1'",
    "no events": "SET GLOBAL event_scheduler = OFF",
    "read only": "SET GLOBAL super_read_only = ON",
    "offline": "SET GLOBAL offline_mode = ON",
    "log in at will": "SET GLOBAL authentication_policy = 'mysql_no_login'",
    # -- the server's life, its logs and replication
    "shut down": "SHUTDOWN",
    "restart": "RESTART",
    "another certificate": "ALTER INSTANCE RELOAD TLS",
    "another master key": "ALTER INSTANCE ROTATE INNODB MASTER KEY",
    "no redo log": "ALTER INSTANCE DISABLE INNODB REDO_LOG",
    "stop all DDL": "LOCK INSTANCE FOR BACKUP",
    "purge binary logs": "PURGE BINARY LOGS BEFORE NOW()",
    "reset binary logs": "RESET BINARY LOGS AND GTIDS",
    "read binary logs": "SHOW BINLOG EVENTS",
    "write without them": "SET SESSION sql_log_bin = OFF",
    "write by them": "BINLOG 'AAAA'",
    "forge a transaction's id": "SET SESSION gtid_next = '00000000-0000-0000-0000-000000000001:1'",
    "flush logs": "FLUSH LOGS",
    "follow another server": "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '192.0.2.1'",
    "start a replica": "START REPLICA",
    "stop a replica": "STOP REPLICA",
    "reset a replica": "RESET REPLICA ALL",
    "leave the group": "STOP GROUP_REPLICATION",
    "another server": "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST '192.0.2.1')",
    "more processors": "CREATE RESOURCE GROUP g TYPE = SYSTEM",
}

OLD_WORDS = {"RESET BINARY LOGS AND GTIDS": "RESET MASTER"}


@pytest.fixture(scope="module")
def admin(mysql: Server) -> Iterator[Any]:
    with mysql.session(database="rdb") as run:
        run("CREATE TABLE rdb.mine (a int)")
        run("CREATE VIEW rdb.own AS SELECT 1")
        run("CREATE EVENT rdb.own ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1")
        run("CREATE DATABASE mine")
        yield run
        for statement in ("TABLE rdb.mine", "VIEW rdb.own", "EVENT rdb.own", "DATABASE mine"):
            run(f"DROP {statement}")


@pytest.fixture(scope="module", autouse=True)
def unharmed(mysql: Server) -> Iterator[None]:
    """In the end all works, and nobody has become more than he was."""
    with mysql.superuser() as session, session.cursor() as cursor:

        def powerful() -> tuple[Any, ...]:
            cursor.execute(
                "SELECT user, host, authentication_string, account_locked FROM mysql.user "
                "WHERE super_priv = 'Y' OR file_priv = 'Y' OR shutdown_priv = 'Y' OR user IN "
                "(SELECT user FROM mysql.global_grants WHERE priv = 'SYSTEM_USER') ORDER BY user"
            )
            return cursor.fetchall()

        before = powerful()
        cursor.execute("SET PERSIST max_user_connections = 0")
        yield
        cursor.execute("RESET PERSIST max_user_connections")
        assert powerful() == before
    inside = mysql.administration
    inside.create_database("afterwards")
    inside.create_user("later", mysql.verifier, is_admin=True)
    assert {row.permission for row in inside.privileges(user="later")} == {"all"}
    inside.delete_user("later")
    inside.delete_database("afterwards")


@pytest.mark.parametrize("attack", REFUSED)
def test_refused(mysql: Server, admin: Any, attack: str) -> None:
    statement = REFUSED[attack]
    if mysql.spec.engine == "MySQL-8":
        statement = OLD_WORDS.get(statement, statement)
    with pytest.raises(pymysql.MySQLError) as refused:
        admin(statement)
    assert refused.value.args[0] in DENIED | NEVER, refused.value


def test_no_file_is_read(admin: Any) -> None:
    assert admin("SELECT LOAD_FILE('/etc/passwd')") == [(None,)]


def test_no_file_of_a_client_is_asked_for(mysql: Server) -> None:
    with mysql.session(database="rdb", local_infile=True) as run:
        run("CREATE TEMPORARY TABLE here (a text)")
        with pytest.raises(pymysql.MySQLError, match="Loading local data is disabled"):
            run("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE here")


def test_no_other_servers_tables(admin: Any) -> None:
    with pytest.raises(pymysql.MySQLError, match="Unknown storage engine"):
        admin("CREATE TABLE rdb.far (a int) ENGINE = FEDERATED CONNECTION = 'mysql://192.0.2.1/'")


def test_no_session_without_tls(mysql: Server) -> None:
    with mysql.session():
        pass  # else the server does not remember the password, and would have to be shown it
    with (
        pytest.raises(pymysql.MySQLError, match="require_secure_transport"),
        mysql.session(ssl=None, ssl_disabled=True),
    ):
        pass


@pytest.mark.parametrize("user", ["_rdb_superadmin", "_rdb_administrator", "mysql.session", "root"])
def test_nobody_comes_as_one_of_ours(mysql: Server, user: str) -> None:
    with (
        pytest.raises(pymysql.MySQLError, match="Access denied"),
        mysql.session(user, password=SECRET),
    ):
        pass


def test_a_namesake_is_nobody(mysql: Server, admin: Any) -> None:
    admin("CREATE USER _rdb_superadmin@'%%' IDENTIFIED BY %s", PASSWORD)
    try:
        with mysql.session("_rdb_superadmin") as run:
            assert run("SHOW GRANTS") == [("GRANT USAGE ON *.* TO `_rdb_superadmin`@`%`",)]
        admin("GRANT ALL ON mine.* TO _rdb_superadmin@'%'")
        listed = {one.name: one.managed for one in mysql.administration.databases(sizes=False)}
        assert listed["mine"] is False
        assert "_rdb_superadmin" in {one.name for one in mysql.administration.users()}
    finally:
        admin("DROP USER _rdb_superadmin@'%'")


def test_our_sessions_cannot_be_ended(mysql: Server, admin: Any) -> None:
    with mysql.superuser() as session:
        with pytest.raises(pymysql.MySQLError, match="not owner of thread"):
            admin(f"KILL {session.thread_id()}")
        with pytest.raises(pymysql.MySQLError, match="not owner of thread"):
            admin(f"KILL QUERY {session.thread_id()}")
        assert session.ping() is None


def test_we_come_in_when_all_places_are_taken(mysql: Server) -> None:
    def allow(sessions: int) -> None:
        with mysql.superuser() as session, session.cursor() as cursor:
            cursor.execute("SET GLOBAL max_connections = %s", [sessions])

    allow(5)
    try:
        with ExitStack() as taken:
            with pytest.raises(pymysql.MySQLError, match="Too many connections"):
                for _ in range(6):
                    taken.enter_context(mysql.session())
            assert mysql.administration.users()
    finally:
        allow(151)


def test_limits_go_with_what_is_granted(mysql: Server, admin: Any) -> None:
    """To users and roles that an administrator makes, and back by none of them."""
    try:
        admin("CREATE USER puppet IDENTIFIED BY %s", PASSWORD)
        admin("CREATE ROLE key_ring")
        for grantee in ("puppet", "key_ring"):
            admin(f"GRANT SELECT, CREATE, DROP ON *.* TO {grantee}")
        admin("GRANT key_ring TO admin")
        admin("SET ROLE ALL")
        with mysql.session("puppet") as run:
            for attempt in (admin, run):
                for statement in ("SELECT * FROM mysql.user", "DROP TABLE mysql.db"):
                    with pytest.raises(pymysql.MySQLError) as refused:
                        attempt(statement)
                    assert refused.value.args[0] in DENIED
    finally:
        admin("DROP USER IF EXISTS puppet, key_ring")


@pytest.mark.parametrize("statement", ["FLUSH PRIVILEGES", "FLUSH LOCAL PRIVILEGES"])
def test_privileges_are_read_again_and_are_the_same(
    mysql: Server, admin: Any, statement: str
) -> None:
    """Old dumps and instructions end in it; MySQL 8.0 has no privilege that allows just this."""
    before = admin("SHOW GRANTS")
    if mysql.spec.engine == "MySQL-8":
        with pytest.raises(pymysql.MySQLError) as refused:
            admin(statement)
        assert refused.value.args[0] in DENIED
    else:
        admin(statement)
    assert admin("SHOW GRANTS") == before
    with mysql.session() as run:
        assert run("SHOW GRANTS") == before


def test_a_program_of_the_servers_runs_as_who_calls_it(mysql: Server) -> None:
    with mysql.superuser() as session, session.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.views WHERE table_schema = 'sys' "
            "AND security_type <> 'INVOKER' UNION SELECT routine_name "
            "FROM information_schema.routines WHERE routine_schema = 'sys' "
            "AND security_type <> 'INVOKER'"
        )
        assert cursor.fetchall() == ()


@pytest.mark.parametrize("hold", ["FLUSH TABLES WITH READ LOCK", "XA PREPARE 'x'"])
def test_locks_end_in_a_refusal(mysql: Server, hold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = mysql.administration
    inside.create_database("held")
    try:
        with mysql.session() as run:
            run("CREATE TABLE held.t (a int)")
            for statement in ("XA START 'x'", "INSERT INTO held.t VALUES (1)", "XA END 'x'", hold):
                if hold.startswith("XA") or statement == hold:
                    run(statement)
            monkeypatch.setattr(sessions, "connect", hurried)
            with pytest.raises(PreconditionFailed, match="precondition") as refused:
                inside.delete_database("held")
            assert "is in the way" in refused.value.help_message
            run("XA ROLLBACK 'x'" if hold.startswith("XA") else "UNLOCK TABLES")
    finally:
        inside.delete_database("held")


def hurried(*arguments: Any) -> Any:
    session = connect(*arguments)
    session.cursor().execute("SET SESSION lock_wait_timeout = 1")
    return session


def test_verifiers_are_in_no_log(mysql: Server) -> None:
    inside = mysql.administration
    inside.create_user("secretive", mysql.verifier, is_admin=False)
    inside.update_user("secretive", verifier=mysql.verifier, is_admin=None)
    inside.delete_user("secretive")
    needles = (mysql.verifier.encode(), mysql.verifier.encode().hex().encode())
    for log in mysql.paths.log.glob("*.log"):
        assert log.stat().st_size
        text = log.read_bytes()
        assert not any(needle in text for needle in needles), log
    with mysql.session() as run:
        run("SELECT 'seen'")
        texts = str(
            run(
                "SELECT sql_text FROM performance_schema.events_statements_history UNION "
                "SELECT query_sample_text FROM performance_schema.events_statements_summary_by_digest"
            )
        )
    assert "SELECT 'seen'" in texts
    assert not any(needle.decode() in texts for needle in needles)
