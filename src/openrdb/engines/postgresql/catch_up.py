"""An upgraded copy catches up with the server that it was made of, by logical replication.

The worker that applies changes runs code of tenants: checks, domains, expressions of indexes. So the
subscription belongs to a role that is no superuser and may only become the tables' owners, which the
worker does for each change, in a security-restricted operation. The role has no password, and is gone
before clients come in.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo

from openrdb.engines.base import EngineNode
from openrdb.engines.names import REPLICATION
from openrdb.engines.postgresql import followed, session
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.errors import HostError

ROLE: Final = followed.PUBLICATION
_REDO = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
_NEAR = 2**18
"""Bytes of WAL that are applied while writes are held."""
_LONGEST = 3600.0
_LONGEST_HELD = 10.0
_PAUSE = "SELECT pg_sleep(0.05)"
_FLUSH = "SELECT pg_logical_emit_message(true, 'flush', ''), pg_sleep(0.005)"
"""Its commit brings to disk what the worker has applied, which only then tells the source."""
_DISABLED = "SELECT 1 FROM pg_subscription WHERE starts_with(subname, %s) AND NOT subenabled"
_HERE = """
    SELECT subname FROM pg_subscription WHERE starts_with(subname, %s)
    AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_OPTIONS = """
    enabled = false, create_slot = false, copy_data = false, run_as_owner = false,
    disable_on_error = true, synchronous_commit = off
"""


@dataclass(frozen=True)
class Position:
    """What a copy has of its source."""

    redo: str
    """Where the last record of the WAL begins that it has."""
    query: str
    catalogues: dict[str, str]
    """The answers to the query by database."""

    def text(self) -> str:
        return json.dumps(asdict(self))


def replayed(said: str) -> str:
    """Return where the last record begins that a server's recovery has replayed, as it says.

    Raises:
        HostError: it does not say so.
    """
    if (found := _REDO.search(said)) is None:
        raise HostError("the copy does not say what of the WAL it has")
    return found[1]


def run(node: EngineNode, source: EngineNode, position: str, hold: Callable[[], None]) -> None:
    """Bring a copy to what its source has, holding the source's writes at the end: see `Server`."""
    copied = Position(**json.loads(position))
    _follow(node, source, copied)
    with session.connect(node, "postgres") as connection:
        connection.autocommit = True
        _approach(connection, source, None, _PAUSE, _LONGEST)
        hold()
        _approach(connection, source, followed.flush(source), _FLUSH, _LONGEST_HELD)
    now = followed.catalogues(source, copied.query)
    if any(copied.catalogues.get(name) != answer for name, answer in now.items()):
        raise HostError("more than rows of tables was changed meanwhile")


def _approach(
    connection: Connection[Row], source: EngineNode, end: str | None, pause: str, longest: float
) -> None:
    """Wait until nothing is missing up to a position in the source's WAL, or little without one."""
    deadline = time.monotonic() + longest
    while followed.lag(source, end or followed.flushed(source)) > (0 if end else _NEAR):
        if connection.execute(_DISABLED, [followed.PUBLICATION]).fetchone() is not None:
            raise HostError("something that was written cannot be applied to the copy")
        if time.monotonic() > deadline:
            raise HostError("the copy does not catch up")
        connection.execute(pause.encode())


def _follow(node: EngineNode, source: EngineNode, copied: Position) -> None:
    """Begin to apply changes, from the first one that the copy does not have. Repeatable."""
    there = dict(followed.kept(source))
    for database, oid in session.databases(source):
        name = followed.slot_name(oid)
        with session.connect(node, database) as connection:
            # Of the copy, as the source may have been changed since it was looked at.
            if (found := followed.obstacle_inside(connection, database)) is not None:
                raise HostError(found)
            if (found := followed.unpublished(connection)) is not None:
                raise HostError(f"{found} in database {database} was made meanwhile")
            if connection.execute(followed.TABLES.encode()).fetchone() is None:
                continue
            if name not in there:
                raise HostError("nothing is kept for the copy any more")
            if name not in _subscriptions(connection):
                _subscribe(connection, source, database, name, copied.redo)


def _subscribe(
    connection: Connection[Row], source: EngineNode, database: str, name: str, redo: str
) -> None:
    """Make a subscription in the connection's database, in one transaction.

    Its origin says where it begins, and outlives a crash of either server.
    """
    role, subscription = sql.Identifier(ROLE), sql.Identifier(name)
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
    connection.execute(grant.format(sql.Identifier(database), role))
    for owner in {str(row[1]) for row in connection.execute(followed.TABLES.encode())}:
        # The worker looks tables up by itself, which takes USAGE of their schemas.
        connection.execute(f"GRANT {owner} TO {ROLE} WITH INHERIT TRUE, SET TRUE".encode())
    line = make_conninfo(
        host=source.spec.address,
        port=source.spec.port,
        user=REPLICATION,
        password=source.spec.replication_secret,
        dbname=database,
        sslmode="require",
        channel_binding="require",
    )
    create = f"CREATE SUBSCRIPTION {{}} CONNECTION {{}} PUBLICATION {{}} WITH ({_OPTIONS})"
    publication = sql.Identifier(followed.PUBLICATION)
    connection.execute(sql.SQL(create).format(subscription, sql.Literal(line), publication))
    connection.execute(sql.SQL("ALTER SUBSCRIPTION {} OWNER TO {}").format(subscription, role))
    query = (
        "SELECT pg_replication_origin_advance('pg_' || oid, %s::pg_lsn + 1) FROM pg_subscription "
        "WHERE subname = %s"
    )
    connection.execute(query, [redo, name])
    connection.execute(sql.SQL("ALTER SUBSCRIPTION {} ENABLE").format(subscription))


def settle(node: EngineNode, source: EngineNode) -> None:
    """Remove what catching up took, from a copy that has caught up; give its sequences the values of
    the source's. Repeatable."""
    for database, _ in session.databases(source):
        values = followed.sequences(source, database)
        with session.connect(node, database) as connection:
            for value in values:
                connection.execute("SELECT setval(%s::oid::regclass, %s, %s)", value)
            for name in _subscriptions(connection):
                for change in ("DISABLE", "SET (slot_name = NONE)"):
                    statement = sql.SQL(f"ALTER SUBSCRIPTION {{}} {change}")
                    connection.execute(statement.format(sql.Identifier(name)))
                connection.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name)))
    followed.close(node)
    with session.connect(node, "postgres") as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
            # The right to connect to databases is in no database.
            connection.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}".encode())


def _subscriptions(connection: Connection[Row]) -> list[str]:
    return [str(row[0]) for row in connection.execute(_HERE, [followed.PUBLICATION]).fetchall()]
