"""Every node is born ready for standbys, and nobody but other nodes gets at it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pymysql
import pytest
from psycopg import pq

from openrdb.engines.mysql import config, reserved
from openrdb.engines.mysql.sql import quoted_account
from openrdb.errors import InvalidArguments
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from tests.support import mysql_server
from tests.support.postgresql_server import REPLICATION_SECRET, Server
from tests.support.service import PASSWORD

ROLE = "_rdb_replication"


def replicate(server: Server, user: str, password: str, **more: str) -> str:
    """Open a replication connection; return what it answers, or why it was refused."""
    options = {
        "host": server.spec.address,
        "port": str(server.spec.port),
        "user": user,
        "password": password,
        "replication": "true",
        "sslmode": "require",
        **more,
    }
    text = " ".join(f"{name}='{value}'" for name, value in options.items())
    connection = pq.PGconn.connect(text.encode())
    try:
        if connection.status != pq.ConnStatus.OK:
            return connection.error_message.decode()
        result = connection.exec_(b"IDENTIFY_SYSTEM")
        value = result.get_value(0, 0)
        return value.decode() if value else result.error_message.decode()
    finally:
        connection.finish()


def test_postgresql_is_born_ready(server: Server) -> None:
    assert replicate(server, ROLE, REPLICATION_SECRET).isdigit()
    with server.superuser() as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("wal_level", "hot_standby", "max_wal_senders", "data_checksums")
        }
        (slots,) = connection.execute("SHOW max_replication_slots").fetchone() or ("",)
        (kept,) = connection.execute("SHOW max_slot_wal_keep_size").fetchone() or ("",)
    assert shown == {
        "wal_level": ("replica" if server.spec.engine == "PostgreSQL-18" else "logical",),
        "hot_standby": ("on",),
        "max_wal_senders": ("10",),
        "data_checksums": ("on",),
    }
    assert (slots, kept) == ("10", "2GB")


def test_a_standby_streams_without_a_restart(server: Server, short_tmp: Path) -> None:
    uid, standby = server.spec.uid, short_tmp / "standby"
    accounts.ensure_directory(standby, uid)
    source = f"host={server.spec.address} port={server.spec.port} user={ROLE} sslmode=require"
    command = [str(server.bundle.program("pg_basebackup")), "-D", str(standby / "data"), "-R"]
    environment = dict(server.bundle.environment) | {"PGPASSWORD": REPLICATION_SECRET}
    done = accounts.run(uid, [*command, "-X", "stream", "-c", "fast", "-d", source], environment)
    assert done.returncode == 0, done.stderr
    assert (standby / "data" / "standby.signal").exists()


def test_nobody_else_replicates(server: Server) -> None:
    with server.session() as session:
        for statement in ("REPLICATION", "SUPERUSER"):
            with pytest.raises(psycopg.Error):
                session.execute(f"CREATE ROLE intruder LOGIN {statement} PASSWORD 'x'")
    assert "pg_hba.conf rejects replication" in replicate(server, "admin", PASSWORD)
    logical = replicate(server, "admin", PASSWORD, replication="database", dbname="rdb")
    assert "ermission denied" in logical or "must be superuser or replication role" in logical
    assert "rejects" in replicate(server, ROLE, REPLICATION_SECRET, sslmode="disable")
    assert "authentication failed" in replicate(server, ROLE, PASSWORD)
    # A trust of the Unix socket is none.
    refused = replicate(server, ROLE, REPLICATION_SECRET, host=str(server.paths.sockets))
    assert "reject" in refused


@pytest.mark.parametrize("database", ["rdb", "postgres", "template1", ROLE])
def test_the_role_comes_into_no_database(server: Server, database: str) -> None:
    for replication in ("false", "database"):
        said = replicate(server, ROLE, REPLICATION_SECRET, replication=replication, dbname=database)
        assert "pg_hba.conf rejects" in said


@pytest.mark.parametrize(
    "statement",
    [
        f"ALTER ROLE {ROLE} PASSWORD 'x'",
        f"ALTER ROLE {ROLE} NOLOGIN",
        f"ALTER ROLE {ROLE} CONNECTION LIMIT 0",
        f"ALTER ROLE {ROLE} SET wal_sender_timeout = 1",
        f"ALTER ROLE {ROLE} RENAME TO mine",
        f"DROP ROLE {ROLE}",
        f"GRANT {ROLE} TO admin",
        f"SET ROLE {ROLE}",
        f"SET SESSION AUTHORIZATION {ROLE}",
        f"COMMENT ON ROLE {ROLE} IS 'mine'",
        f"REASSIGN OWNED BY {ROLE} TO admin",
        "SELECT pg_create_physical_replication_slot('mine')",
        "SELECT pg_create_logical_replication_slot('mine', 'test_decoding')",
        "SELECT pg_drop_replication_slot('mine')",
    ],
)
def test_an_administrator_cannot_touch_it(server: Server, statement: str) -> None:
    with server.session() as session, pytest.raises(psycopg.Error):
        session.execute(statement)
    assert replicate(server, ROLE, REPLICATION_SECRET).isdigit()


def test_it_is_no_user(server: Server) -> None:
    assert ROLE not in {user.name for user in server.inside.users()}
    for check in (server.inside.check_create_user, server.inside.check_delete_user):
        with pytest.raises(InvalidArguments, match="invalid"):
            check(ROLE)


def test_a_server_of_older_code_is_made_ready(server: Server) -> None:
    access = server.paths.configuration / "pg_hba.conf"
    now = access.read_text()
    old = "".join(line for line in now.splitlines(keepends=True) if ROLE not in line)
    with server.superuser() as connection, server.session() as session:
        connection.execute(f"DROP ROLE {ROLE}")
        accounts.write_file(access, old, server.spec.uid)
        assert not server.engine.reload()
        assert not replicate(server, ROLE, REPLICATION_SECRET).isdigit()
        accounts.write_file(access, now, server.spec.uid)
        for _ in range(2):
            assert not server.engine.ensure_replication_ready(REPLICATION_SECRET)
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert replicate(server, ROLE, REPLICATION_SECRET).isdigit()


def test_a_mysql_replica_follows_without_a_restart(mysql_bundle: Bundle) -> None:
    with (
        mysql_server.serving(mysql_bundle) as source,
        mysql_server.serving(mysql_bundle, "--server-id=7", administrator=False) as replica,
    ):
        with source.session() as run:
            run("CREATE TABLE rdb.t (a int PRIMARY KEY)")
            run("INSERT INTO rdb.t VALUES (42)")
        with replica.superuser() as session, session.cursor() as cursor:
            cursor.execute(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s,"
                " SOURCE_PASSWORD = %s, SOURCE_SSL = 1, SOURCE_AUTO_POSITION = 1",
                [source.spec.address, source.spec.port, ROLE, mysql_server.REPLICATION_SECRET],
            )
            cursor.execute("START REPLICA")
            with source.superuser() as other, other.cursor() as position:
                position.execute("SELECT @@gtid_executed")
                ((executed,),) = position.fetchall()
            cursor.execute("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 50)", [executed])
            assert cursor.fetchall() == ((0,),)
            cursor.execute("SELECT a FROM rdb.t")
            assert cursor.fetchall() == ((42,),)
            cursor.execute("STOP REPLICA")


def test_mysql_is_born_ready(mysql: mysql_server.Server) -> None:
    names = ("gtid_mode", "enforce_gtid_consistency", "log_replica_updates", "log_bin")
    names += ("binlog_format", "super_read_only", "skip_replica_start", "tmpdir")
    with mysql.superuser() as session, session.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'@@{name}' for name in names)}")
        (found,) = cursor.fetchall()
    assert found == ("ON", "ON", 1, 1, "ROW", 0, 1, str(config.temporary(mysql.paths)))


def test_a_tenant_cannot_use_the_account_for_replicas(mysql: mysql_server.Server) -> None:
    account = quoted_account(reserved.REPLICATION)
    for statement in (
        f"ALTER USER {account} IDENTIFIED BY 'x'",
        f"DROP USER {account}",
        f"RENAME USER {account} TO mine",
        f"GRANT {account} TO admin",
        f"SET PASSWORD FOR {account} = 'x'",
        f"REVOKE REPLICATION SLAVE ON *.* FROM {account}",
        "GRANT REPLICATION SLAVE ON *.* TO admin",
        "SHOW BINLOG EVENTS",
    ):
        with mysql.session() as run, pytest.raises(pymysql.MySQLError):
            run(statement)
    assert ROLE not in {user.name for user in mysql.administration.users()}
    with pytest.raises(InvalidArguments):
        mysql.administration.check_create_user(ROLE)
    own = {"user": ROLE, "password": mysql_server.REPLICATION_SECRET}
    with mysql.session(**own) as run:
        for statement in ("SELECT * FROM mysql.user", "USE rdb", "CREATE DATABASE x", "SHUTDOWN"):
            with pytest.raises(pymysql.MySQLError):
                run(statement)
    with pytest.raises(pymysql.MySQLError), mysql.session(**own, ssl=None, ssl_disabled=True):
        pass


def test_a_mysql_server_of_older_code_is_made_ready(mysql_bundle: Bundle) -> None:
    """Also one without GTIDs, by its next restart."""
    off = ("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")
    with mysql_server.serving(mysql_bundle, *off) as server:
        with server.superuser() as session, session.cursor() as cursor:
            cursor.execute(f"DROP USER {quoted_account(reserved.REPLICATION)}")
            cursor.execute("CREATE TABLE rdb.t AS SELECT 1 AS a")
        for _ in range(2):
            assert server.engine.ensure_replication_ready(REPLICATION_SECRET)
        server.without_options()
        assert not server.engine.ensure_replication_ready(REPLICATION_SECRET)
        with server.session() as run:
            run("INSERT INTO rdb.t VALUES (2)")
            assert run("SELECT sum(a) FROM rdb.t") == [(3,)]
            assert run("SELECT @@gtid_executed <> ''") == [(1,)]
