"""What users may write, brought into force in a running server."""

from __future__ import annotations

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import config, session
from openrdb.engines.mysql.admin import user_sessions
from openrdb.engines.mysql.sql import rows, run


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
            if name not in wanted:
                run(connection, f"SET GLOBAL {name} = OFF")
        if not wanted:
            # They have the default of their beginning, and would stay read-only for good.
            user_sessions.end_idle(connection)


def release_space(node: EngineNode) -> None:
    """Remove binary logs that nobody reads; the server keeps those that are being read."""
    with session.connect(node) as connection:
        run(connection, "FLUSH BINARY LOGS")
        ((newest, *_),) = rows(connection, "SHOW BINARY LOGS")[-1:]
        run(connection, f"PURGE BINARY LOGS TO '{newest}'")
