"""Talking to a running server as its superuser, which is possible over the Unix socket only."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

import pymysql
from pymysql.connections import Connection

from openrdb.spec import NodeSpec
from openrdb.system import files
from openrdb.system.layout import NodePaths

SUPERUSER: Final = "_rdb_superadmin"
Session: TypeAlias = Connection
_CONNECT_TIMEOUT = 10
_STATEMENT_TIMEOUT = 60
_PINNED = {
    # A tenant's lock ends in a refusal, not in a request that hangs.
    "lock_wait_timeout": 10,
    "innodb_lock_wait_timeout": 10,
    # What tenants set for everybody does not count here.
    "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
    "transaction_isolation": "REPEATABLE-READ",
    "time_zone": "+00:00",
    "wait_timeout": 600,
    "foreign_key_checks": 1,
    "max_execution_time": 1000 * _STATEMENT_TIMEOUT,
    "print_identified_with_as_hex": 1,
}
_PIN = "SET " + ", ".join(f"SESSION {name} = %s" for name in _PINNED)


def socket(paths: NodePaths) -> Path:
    return paths.sockets / "mysql.sock"


def pid_file(paths: NodePaths) -> Path:
    return paths.data / "mysqld.pid"


def connect(
    spec: NodeSpec,  # noqa: ARG001
    paths: NodePaths,
    secret: str,
    database: str | None = None,
) -> Session:
    """A session of the superuser's; its context manager closes it. Statements commit themselves.

    Raises:
        pymysql.err.OperationalError: the server does not accept connections at the moment.
    """
    session = pymysql.connect(
        unix_socket=str(socket(paths)),
        ssl_disabled=True,  # nobody listens there, and the driver would read all authorities' files
        user=SUPERUSER,
        password=secret,
        database=database,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_STATEMENT_TIMEOUT,
        write_timeout=_STATEMENT_TIMEOUT,
        program_name="openrdb",
    )
    with session.cursor() as cursor:
        cursor.execute(_PIN, list(_PINNED.values()))
    return session


def wait_accepting(paths: NodePaths, pid: int, timeout: float) -> bool:
    """Whether the server has written its pid file, within some seconds: it listens by then."""

    def ready() -> bool:
        try:
            return pid_file(paths).read_text().strip() == str(pid)
        except FileNotFoundError:
            return False

    return files.wait_for(paths.data, ready, timeout, pid=pid)
