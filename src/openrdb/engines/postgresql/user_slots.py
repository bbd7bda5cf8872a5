"""Logical slots of users, which our extension makes (`catalog/rdb_logical--1.0.sql`)."""

from __future__ import annotations

import contextlib
import struct

from openrdb.engines.base import EngineNode, UserSlots
from openrdb.engines.names import OWN_PREFIX
from openrdb.engines.postgresql import session, slots, upstream
from openrdb.system import files

_ANSWER = 10.0
_SLOTS = """
    SELECT slot_name, database, restart_lsn IS NULL OR wal_status = 'lost'
        OR coalesce((to_jsonb(s) ->> 'conflicting')::boolean, false)
    FROM pg_replication_slots s
    WHERE slot_type = 'logical' AND NOT temporary AND NOT starts_with(slot_name::text, %s)
"""
_HEADER, _DATABASE_AT, _TAKEN_OVER_AT = 16, 64, 177
"""In a slot's file (src/backend/replication/slot.c, src/include/replication/slot.h): what precedes its
data, and where its database is in it, and from 17 on whether it is another server's."""


def may_exist(node: EngineNode) -> bool:
    """Return whether there may be some."""
    return any(not name.startswith(OWN_PREFIX) for name in slots.names(node))


def settle(node: EngineNode) -> UserSlots:
    """Remove those that have lost changes: see `Server.settle_slots`.

    The server itself takes from a slot what is beyond `max_slot_wal_keep_size`, and ends its reader.

    Raises:
        HostError: the server does not do it.
    """
    with session.answering("the server does not say what slots there are"):
        with session.connect_in_time(node, "postgres", _ANSWER) as connection:
            rows = connection.execute(_SLOTS, [OWN_PREFIX]).fetchall()
        kept = {str(name): str(database) for name, database, is_lost in rows if not is_lost}
        lost = {str(name): str(database) for name, database, is_lost in rows if is_lost}
        for name in lost:
            slots.drop(node, name)
    return UserSlots(kept, lost)


def forget_own(node: EngineNode) -> None:
    """Remove a stopped server's slots that were made on itself while it took writes: it follows now,
    and would keep WAL for readers that are with its primary.

    Those that it took over from its primary stay, as it goes on to keep up with them.
    """
    directory = node.paths.data / slots.DIRECTORY
    for path in directory.iterdir():
        with contextlib.suppress(OSError):  # the server will say what is wrong with it
            state = files.read_small(path / "state")[_HEADER:]
            if _is_own(state, session.major(node.spec)) and not path.name.startswith(OWN_PREFIX):
                files.remove_tree(path)
    files.sync_directory(directory)


def _is_own(state: bytes, major: int) -> bool:
    """Return whether what a slot's file has is of a logical slot that was made on the server."""
    if len(state) <= _TAKEN_OVER_AT:
        return False
    (database,) = struct.unpack_from("<I", state, _DATABASE_AT)
    is_taken_over = major >= upstream.SLOTS_FROM and state[_TAKEN_OVER_AT] == 1
    return database != 0 and not is_taken_over
