"""Replication slots of ours, by which a server keeps what somebody has not read yet."""

from __future__ import annotations

import time
from contextlib import suppress
from uuid import UUID

from psycopg import Connection, errors

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import replication, session
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.errors import HostError

_FREE_TIMEOUT, _PAUSE = 10.0, 0.05
_IS_LOST = (
    "SELECT restart_lsn IS NULL OR wal_status = 'lost' FROM pg_replication_slots "
    "WHERE slot_name = %s"
)
_CREATE = "SELECT pg_create_physical_replication_slot(%s, immediately_reserve => true)"
DIRECTORY = "pg_replslot"
_FAR = 256 * 2**20
"""Bytes that a slot keeps for a follower, from which on it is worth a copy to have them free."""
_AWAY = """
    SELECT slot_name FROM pg_replication_slots
    WHERE slot_type = 'physical' AND NOT active AND %s < CASE WHEN pg_is_in_recovery()
        THEN pg_wal_lsn_diff(pg_last_wal_receive_lsn(), restart_lsn)
        ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END
"""
_READER = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"


def is_lost(node: EngineNode, name: str) -> bool | None:
    """Return whether a slot keeps nothing any more, as its reader was away for too long; None if there
    is no slot of that name."""
    with session.use(node, "postgres") as connection:
        row = connection.execute(_IS_LOST, [name]).fetchone()
    return row[0] is True if row is not None else None


def create_physical(node: EngineNode, name: str) -> None:
    """Keep all WAL from now on.

    Raises:
        HostError: the server has no slot left.
    """
    with session.use(node, "postgres") as connection:
        try:
            connection.execute(_CREATE, [name])
        except errors.ConfigurationLimitExceeded:
            raise HostError("all replication slots of the server are in use") from None


def ensure_physical(node: EngineNode, name: str) -> None:
    """Keep WAL until it is read by a slot, from now on if there is none that does."""
    is_there = is_lost(node, name)
    if is_there is True:
        drop(node, name)
    if is_there is not False:
        create_physical(node, name)


def names(node: EngineNode) -> list[str]:
    """Return the names of all slots, whether the server runs or not: each has a directory."""
    try:
        return [path.name for path in (node.paths.data / DIRECTORY).iterdir()]
    except OSError:
        return []


def followers(node: EngineNode) -> set[UUID]:
    """Return the followers that have a slot, whether the server runs or not."""
    found = map(replication.follower_of, names(node))
    return {follower for follower in found if follower is not None}


def drop_away(node: EngineNode) -> None:
    """Keep nothing for followers that are away and lack much: each is copied again when it is back."""
    with session.use(node, "postgres") as connection:
        found = [str(name) for (name,) in connection.execute(_AWAY, [_FAR]).fetchall()]
        away = [name for name in found if replication.follower_of(name) is not None]
        for name in away:
            # It may be back, or have been told.
            with suppress(errors.ObjectInUse, errors.UndefinedObject), connection.transaction():
                connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
        if away:
            connection.execute("CHECKPOINT")  # which removes what nobody needs


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
