"""Sessions of the superuser, which are possible over the Unix socket only."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import pymysql
from pymysql import MySQLError
from pymysql.connections import Connection
from pymysql.constants import ER

from openrdb.engines.base import EngineNode
from openrdb.engines.kept import Kept
from openrdb.engines.names import SUPERUSER
from openrdb.errors import HostError
from openrdb.system.layout import NodePaths

Session: TypeAlias = Connection
_CONNECT_TIMEOUT = 10
_FULL_TIMEOUT = 10.0
_FULL_PAUSE = 0.05
_STATEMENT_TIMEOUT = 60
_PINNED = {
    # A tenant's lock ends in a refusal, not in a request that hangs.
    "lock_wait_timeout": 10,
    "innodb_lock_wait_timeout": 10,
    # What tenants set for everybody does not count here.
    "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
    "transaction_isolation": "REPEATABLE-READ",
    "transaction_read_only": 0,
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


def close(session: Session) -> None:
    """End a session, whose server may have gone."""
    with suppress(MySQLError):
        session.close()


_kept = Kept(close=close)


@contextmanager
def use(node: EngineNode) -> Iterator[Session]:
    """Yield a session of the superuser, perhaps one that was used before; statements commit themselves.

    Raises:
        pymysql.err.OperationalError: the server does not accept connections at the moment.
    """
    session = _taken(node) or connect(node)
    with ExitStack() as ending:
        ending.callback(close, session)
        yield session
        ending.pop_all()
    _kept.leave(node.spec.node_id, "", session)


@contextmanager
def answering(otherwise: str = "the server does not do it") -> Iterator[None]:
    """Tell an error of the server's, or its end, as one of the host.

    Raises:
        HostError: there was one; `otherwise` says what does not happen.
    """
    try:
        yield
    except MySQLError as error:
        raise HostError(f"{otherwise}: {error.args[-1] if error.args else error}") from error


def _taken(node: EngineNode) -> Session | None:
    """Return a session that was left, as a new one would be; None if there is none that lives."""
    if (session := _kept.take(node.spec.node_id, "")) is None:
        return None
    try:
        _pin(session)
    except MySQLError:
        close(session)
        return None
    return session


def connect(
    node: EngineNode,
    database: str | None = None,
    *,
    secret: str | None = None,
    patience: float = _STATEMENT_TIMEOUT,
) -> Session:
    """Return a session of the superuser; its context manager closes it. Statements commit themselves.

    Args:
        secret: the password, where it is not yet the node's own.
        patience: seconds that a statement may take.

    Raises:
        pymysql.err.OperationalError: the server does not accept connections at the moment.
    """
    session = _connect(
        node.spec.node_id,
        min(_FULL_TIMEOUT, patience),
        unix_socket=str(socket(node.paths)),
        ssl_disabled=True,  # nobody listens there, and the driver would read all authorities' files
        user=SUPERUSER,
        password=node.secret if secret is None else secret,
        database=database,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=min(_CONNECT_TIMEOUT, patience),
        read_timeout=patience,
        write_timeout=_STATEMENT_TIMEOUT,
        program_name="openrdb",
    )
    _pin(session)
    return session


def set_patience(session: Session, seconds: float) -> None:
    """Let each of a session's statements take so many seconds from now on."""
    session._read_timeout = seconds  # the driver looks at it whenever it reads


def _pin(session: Session) -> None:
    with session.cursor() as cursor:
        cursor.execute(_PIN, list(_PINNED.values()))


def connect_once(**options: Any) -> Session:  # noqa: ANN401
    """Connect as the driver does, and leave no socket behind where that fails.

    Raises:
        pymysql.err.OperationalError: the server does not accept connections at the moment.
    """
    try:
        return pymysql.connect(**options)
    except MySQLError as error:
        # The driver does not close it, and its error keeps it until the garbage collector comes by.
        traceback.clear_frames(error.__traceback__)
        raise


def _connect(node_id: UUID, patience: float, **options: Any) -> Session:  # noqa: ANN401
    """Connect, within some seconds also where all connections are taken: the server keeps one for
    its administrators, and tells nobody when one gets free."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return connect_once(**options)
        except MySQLError as error:
            if error.args[:1] != (ER.CON_COUNT_ERROR,) or time.monotonic() > deadline:
                raise
        _kept.drop(node_id)
        time.sleep(_FULL_PAUSE)
