"""Whether anything was written to a server: by the numbers of its transactions.

A session that reads by default can ask for more (`BEGIN READ WRITE`), and drivers do. So that none of
it is lost, it is noticed: whatever changes data takes a number, and a number is taken here before and
after. As numbers may be given twice after a crash, a mark also says since when the server runs.
"""

from __future__ import annotations

from psycopg import Connection

from openrdb.engines.base import EngineNode
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import session
from openrdb.errors import PreconditionFailed

_ATTEMPTS = 10
_END = f"""
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND usename IS DISTINCT FROM '{SUPERUSER}'
    AND backend_type IN ('client backend', 'autovacuum worker')
"""  # noqa: S608
_NUMBER = "SELECT extract(epoch FROM pg_postmaster_start_time()), pg_current_xact_id()"
_OLDEST = "SELECT pg_snapshot_xmin(pg_current_snapshot()), pg_sleep(0.005)"
"""The oldest transaction that has not ended, if a later one has; nothing tells when it does."""
_LOOKS = 100


def end(node: EngineNode) -> str:
    """End all transactions of tenants; return a mark of what has been written by then.

    Raises:
        PreconditionFailed: a transaction does not end with its session.
    """
    with session.connect(node, "postgres") as connection:
        connection.autocommit = True
        for _ in range(_ATTEMPTS):
            connection.execute(_END)
            since, number = _row(connection, _NUMBER)
            # Short ones of clients that have come since end by themselves.
            for _ in range(_LOOKS):
                if int(_row(connection, _OLDEST)[0]) > int(number):
                    return f"{since} {number}"
    raise PreconditionFailed("not_locked", "a transaction of its databases does not end")


def is_next_mark(before: str, mark: str) -> bool:
    """Return whether nobody has taken a number between two marks, and the server ran on."""
    if not before or not mark:
        return False
    (since, number), (still, other) = before.split(), mark.split()
    return since == still and int(other) == int(number) + 1


def _row(connection: Connection[tuple[object, ...]], query: str) -> tuple[str, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None  # noqa: S101
    return tuple(map(str, row))
