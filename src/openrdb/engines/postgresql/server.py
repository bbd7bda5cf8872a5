"""Talking to a running server as its superuser, which is possible over the Unix socket only."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from openrdb.spec import NodeSpec
from openrdb.system import files
from openrdb.system.layout import NodePaths

SUPERUSER: Final = "_rdb_superadmin"
_CONNECT_TIMEOUT = 10
_PINNED = {
    "search_path": "pg_catalog",
    "session_authorization": SUPERUSER,
    "role": "none",
    "local_preload_libraries": "",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "exit_on_error": "off",
    "row_security": "off",
    "synchronous_commit": "on",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # A tenant's lock ends in a refusal, not in a request that hangs.
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    # In a deadlock it is ours that is tried again, not the tenant's that fails.
    "deadlock_timeout": "100ms",
    # Verifiers go to no log, whatever tenants have logged, and to no view of statements.
    "log_statement": "none",
    "log_duration": "off",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_min_error_statement": "panic",
    "pg_stat_statements.track": "none",
    "track_activities": "off",
}
_PINNED_FROM_17 = {"transaction_timeout": "0"}


class _Lenient(Loader):
    """Names made in a database of another encoding are no UTF-8, and may spoil no list."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode(errors="replace")


def connect(
    spec: NodeSpec, paths: NodePaths, secret: str, database: str
) -> psycopg.Connection[tuple[object, ...]]:
    """A session of the superuser's; its context manager commits and closes.

    What tenants can set for their databases does not count in it: above all `search_path` is empty
    of their schemas, so that nothing that they made is run by accident.

    Raises:
        psycopg.OperationalError: the server does not accept connections at the moment.
    """
    connection = psycopg.connect(
        host=str(paths.sockets),
        port=spec.port,
        user=SUPERUSER,
        password=secret,
        dbname=database,
        connect_timeout=_CONNECT_TIMEOUT,
        application_name="openrdb",
        options=_options(spec),
    )
    for kind in ("name", "text"):
        connection.adapters.register_loader(kind, _Lenient)
    return connection


def major(spec: NodeSpec) -> int:
    return int(spec.engine.rpartition("-")[2])


def _options(spec: NodeSpec) -> str:
    pinned = _PINNED | (_PINNED_FROM_17 if major(spec) >= 17 else {})
    return " ".join(f"-c {name}={value}" for name, value in pinned.items())


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
