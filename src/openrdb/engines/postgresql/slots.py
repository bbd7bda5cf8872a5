"""Replication slots of ours, by which a server keeps what somebody has not read yet."""

from __future__ import annotations

import time
from contextlib import suppress

from psycopg import Connection, errors

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import session
from openrdb.engines.postgresql.admin.levels import Row

_FREE_TIMEOUT, _PAUSE = 10.0, 0.05
_READER = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"


def drop(node: EngineNode, name: str) -> None:
    """Keep nothing any more, and end who reads it; a no-op if there is no slot of that name."""
    deadline = time.monotonic() + _FREE_TIMEOUT
    while True:
        try:
            with session.use(node, "postgres") as connection:
                _drop(connection, name)
        except errors.ObjectInUse:  # the session of a reader that has just been ended
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _drop(connection: Connection[Row], name: str) -> None:
    row = connection.execute(_READER, [name]).fetchone()
    if row is None:
        return
    if row[0] is not None:
        connection.execute("SELECT pg_terminate_backend(%s)", [row[0]])
    with suppress(errors.UndefinedObject):
        connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
