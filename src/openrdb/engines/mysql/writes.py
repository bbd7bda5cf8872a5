"""What users may write, brought into force in a running server.

Of a pair's nodes and replicas, `super_read_only` says whether the server takes writes at all, and what
users may is another matter: the one sets `read_only` as well, and must not undo the other's.
"""

from __future__ import annotations

import math

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import config, session
from openrdb.engines.mysql.admin import user_sessions
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import rows, run

_SCHEDULER, _OFFLINE, _READ_ONLY = "event_scheduler", "offline_mode", "super_read_only"


def enforce(node: EngineNode, *, changed: bool) -> None:
    """Set what new sessions get, and end those that have something else."""
    if not changed:
        return  # nobody has come in by other defaults since
    wanted = config.switches(node.writes)
    with session.connect(node) as connection:
        # One after the other: sessions have ended before the server waits for their commits.
        for name in config.switches("closed"):
            if name in wanted:
                run(connection, f"SET GLOBAL {name} = ON")
                user_sessions.end_all(connection)
        for name in reversed(config.switches("closed")):
            if name not in wanted and (name != "read_only" or are_allowed(connection)):
                run(connection, f"SET GLOBAL {name} = OFF")
        if not wanted:
            # They have the default of their beginning, and would stay read-only for good.
            user_sessions.end_idle(connection)


def are_allowed(connection: Session) -> bool:
    """Return whether a server takes writes, of superusers at least."""
    return rows(connection, f"SELECT @@{_READ_ONLY}") == [(0,)]


def allow(node: EngineNode, connection: Session) -> None:
    """Let a server take the writes that the node's users may do; events are another matter."""
    run(connection, f"SET GLOBAL {_READ_ONLY} = OFF")
    wanted = config.switches(node.writes)
    for name in reversed(config.switches("closed")):
        run(connection, f"SET GLOBAL {name} = {'ON' if name in wanted else 'OFF'}")


def run_events(connection: Session) -> None:
    """Let a server run its events; a no-op if it does."""
    run(connection, f"SET GLOBAL {_SCHEDULER} = ON")


def stop(connection: Session, timeout: float) -> None:
    """Let a server take no writes at all, and no users, from when this returns.

    Raises:
        pymysql.err.MySQLError: some commits do not end in time; users are kept out nevertheless.
    """
    run(connection, f"SET GLOBAL {_SCHEDULER} = OFF")
    run(connection, f"SET GLOBAL {_OFFLINE} = ON")
    # Those who hold locks have ended before the server waits for them.
    user_sessions.end_all(connection)
    run(connection, f"SET SESSION lock_wait_timeout = {max(1, math.ceil(timeout))}")
    run(connection, f"SET GLOBAL {_READ_ONLY} = ON")


def are_users_out(connection: Session) -> bool:
    """Return whether users are kept out, by `stop` if not by what they may write."""
    return rows(connection, f"SELECT @@{_OFFLINE}") == [(1,)]


def release_space(node: EngineNode) -> None:
    """Remove binary logs that nobody reads; the server keeps those that are being read."""
    with session.connect(node) as connection:
        run(connection, "FLUSH BINARY LOGS")
        ((newest, *_),) = rows(connection, "SHOW BINARY LOGS")[-1:]
        run(connection, f"PURGE BINARY LOGS TO '{newest}'")
