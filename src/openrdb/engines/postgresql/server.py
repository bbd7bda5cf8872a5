"""Talking to a running server as its superuser, which is possible over the Unix socket only."""

from __future__ import annotations

from typing import Final

import psycopg

from openrdb.engines.base import NodeSpec
from openrdb.host import files
from openrdb.host.layout import NodePaths

SUPERUSER: Final = "_rdb_superadmin"
_CONNECT_TIMEOUT = 10


def connect(
    spec: NodeSpec, paths: NodePaths, secret: str, database: str
) -> psycopg.Connection[tuple[object, ...]]:
    """A session of the superuser's; its context manager commits and closes.

    `search_path` is empty of users' schemas: nothing that a tenant made is run by accident.
    """
    return psycopg.connect(
        host=str(paths.sockets),
        port=spec.port,
        user=SUPERUSER,
        password=secret,
        dbname=database,
        connect_timeout=_CONNECT_TIMEOUT,
        application_name="openrdb",
        options="-c search_path=pg_catalog",
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


def reload(spec: NodeSpec, paths: NodePaths, secret: str) -> None:
    with connect(spec, paths, secret, "postgres") as connection:
        connection.execute("SELECT pg_reload_conf()")
