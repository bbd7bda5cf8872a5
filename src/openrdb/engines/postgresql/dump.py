"""Dumps in PostgreSQL's custom format, taken by the superuser: with all rows of all users."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import Connection, IsolationLevel, OperationalError

from openrdb.engines.base import EngineNode
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import contents, session
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.transfers import Child, Dump, TransferFailed

_ZSTD_FROM = 16
_LOCK_WAIT = "60s"
_NO_DATABASE = re.compile(r'database ".*" does not exist')
_REFUSED = re.compile(r"not currently accepting connections|cannot connect to invalid database")


@contextmanager
def begin(node: EngineNode, database: str) -> Iterator[Dump]:
    """Yield a dump of a database as it is at this moment.

    Raises:
        TransferFailed: there is no such database, or it lets nobody in.
    """
    with connected(node, "postgres") as connection:
        if not contents.exists(connection, database):
            raise TransferFailed("missing", f"there is no database {database}")
    with connected(node, database) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        (snapshot,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
        found = contents.read(connection, node.spec.instance_id)
        yield Dump([_child(node, database, str(snapshot))], found, compress=False)


@contextmanager
def connected(
    node: EngineNode, database: str, application: str = session.APPLICATION
) -> Iterator[Connection[Row]]:
    """Open a session of the superuser's.

    Raises:
        TransferFailed: the server does not let it in.
    """
    try:
        connection = session.connect(node, database, application=application)
    except OperationalError as error:
        raise _connecting_failed(database, error) from error
    with connection:
        yield connection


def _connecting_failed(database: str, error: OperationalError) -> TransferFailed:
    """Return why a session of a database could not be opened."""
    if _NO_DATABASE.search(str(error)):
        return TransferFailed("missing", f"there is no database {database}")
    if _REFUSED.search(str(error)):
        return TransferFailed("not_ready", f"the database {database} accepts no connections")
    if session.is_full(error):
        return TransferFailed("not_ready", "clients have taken all connections: end some")
    return TransferFailed("not_ready", "the database server does not answer")


def _child(node: EngineNode, database: str, snapshot: str) -> Child:
    compression = "zstd:1" if session.major(node.spec) >= _ZSTD_FROM else "1"
    command = [
        *(str(node.bundle.program("pg_dump")), "--format=custom", f"--compress={compression}"),
        *(f"--snapshot={snapshot}", f"--lock-wait-timeout={_LOCK_WAIT}"),
        # Their connection strings have passwords.
        "--no-subscriptions",
    ]
    options = session.options_of(node.spec, statement_timeout="0", lock_timeout="0")
    return Child(
        command, session.child_environment(node, SUPERUSER, node.secret, database, options)
    )
