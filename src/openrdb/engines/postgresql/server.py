"""Talking to a running server as its superuser, which is possible over the Unix socket only."""

from __future__ import annotations

from typing import Final

import psycopg

from openrdb.engines.base import NodeSpec
from openrdb.host import files
from openrdb.host.layout import NodePaths

SUPERUSER: Final = "_rdb_superadmin"
_CONNECT_TIMEOUT = 10
_PINNED = {
    "search_path": "pg_catalog",
    "role": "none",
    "row_security": "off",
    "synchronous_commit": "on",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "idle_in_transaction_session_timeout": "0",
    # A tenant's lock ends in a refusal, not in a request that hangs.
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    # Verifiers go to no log, whatever tenants have logged, and to no view of statements.
    "log_statement": "none",
    "log_duration": "off",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_min_error_statement": "panic",
    "pg_stat_statements.track": "none",
}
_OPTIONS = " ".join(f"-c {name}={value}" for name, value in _PINNED.items())


def connect(
    spec: NodeSpec, paths: NodePaths, secret: str, database: str
) -> psycopg.Connection[tuple[object, ...]]:
    """A session of the superuser's; its context manager commits and closes.

    What tenants can set for their databases does not count in it: above all `search_path` is empty
    of their schemas, so that nothing that they made is run by accident.

    Raises:
        psycopg.OperationalError: the server does not accept connections at the moment.
    """
    return psycopg.connect(
        host=str(paths.sockets),
        port=spec.port,
        user=SUPERUSER,
        password=secret,
        dbname=database,
        connect_timeout=_CONNECT_TIMEOUT,
        application_name="openrdb",
        options=_OPTIONS,
    )


def wait_accepting(paths: NodePaths, pid: int, timeout: float) -> bool:
    """Whether the server says in its pid file that it is ready, within some seconds."""
    state = paths.data / "postmaster.pid"

    def ready() -> bool:
        try:
            lines = state.read_text().splitlines()
        except FileNotFoundError:
            return False
        # Line 1 is the server's pid, line 8 its state (src/include/utils/pidfile.h).
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    return files.wait_for(paths.data, ready, timeout, pid=pid)
