"""Let commits wait for a follower, and end that.

What makes a commit wait is a mark in the server's shared memory. Its checkpointer alone sets and clears
it, when it reads the configuration files; sessions that have read them before change nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg import Connection

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import postmaster, session, settings
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.errors import HostError

_ANSWER = 10.0
_CHECKPOINT = 60.0
_CAUGHT_UP = 2.0
"""Seconds that a follower has for what was written until commits began to wait for it."""
_NEARLY = 16 * 2**20
"""Bytes that a follower may lack when commits begin to wait for it."""
_RELEASED = 1.0
_PAUSE = 0.01
_HELD = "the server does not stop to wait for a standby"
_TIMELINE = "('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int"
_PRIMARY = f"""
    SELECT {_TIMELINE}, pg_current_wal_flush_lsn()::text,
        EXISTS (SELECT FROM pg_stat_replication WHERE application_name = %s
            AND state = 'streaming' AND (sync_state IN ('sync', 'quorum') OR NOT %s))
"""  # noqa: S608
_FOLLOWER = """
    SELECT received_tli, flushed_lsn - %s::pg_lsn, sender_host = %s AND sender_port = %s
        AND status = 'streaming' AND NOT pg_is_wal_replay_paused()
    FROM pg_stat_wal_receiver
"""
_ARMED = "SELECT current_setting('synchronous_standby_names') <> ''"
_COMMIT = "SELECT pg_logical_emit_message(true, 'openrdb', '')"


@dataclass(frozen=True)
class _Couple:
    """Sessions on a primary and on the follower that its commits are to wait for."""

    node: EngineNode
    primary: Connection[Row]
    follower: Connection[Row]
    follower_id: UUID

    def position(self, *, confirms: bool) -> tuple[int, str] | None:
        """Return the primary's timeline, and up to where it has written; None if it does not send to
        the follower.

        Args:
            confirms: whether commits must wait for the follower by now.
        """
        row = self.primary.execute(_PRIMARY, [str(self.follower_id), confirms]).fetchone()
        return (int(str(row[0])), str(row[1])) if row is not None and row[2] else None

    def has(self, timeline: int, position: str, lacking: int = 0) -> bool:
        """Return whether the follower has all up to a position on disk but for so many bytes, and
        receives from this very server, on its timeline, and could take its place.

        A primary also takes for a synchronous standby, for a moment, one that went on without it on a
        former timeline: their positions mean nothing. So the follower itself is asked.
        """
        sender = [self.node.spec.address, self.node.spec.port]
        row = self.follower.execute(_FOLLOWER, [position, *sender]).fetchone()
        return (
            row is not None
            and row[0] == timeline
            and int(str(row[1])) >= -lacking
            and row[2] is True
        )


def arm(node: EngineNode, follower: EngineNode) -> bool:
    """Let commits wait for a follower that can be waited for; see `Replication.arm`."""
    try:
        with (
            session.connect_in_time(node, "postgres", _ANSWER) as primary,
            session.connect_in_time(follower, "postgres", _ANSWER) as other,
        ):
            couple = _Couple(node, primary, other, follower.spec.node_id)
            before = couple.position(confirms=False)
            if before is None or not couple.has(*before, lacking=_NEARLY):
                return False
            settings.reload(node)
            _pass_checkpointer(node)
            return _has_all(couple)
    except (psycopg.Error, HostError):
        return False


def _has_all(couple: _Couple) -> bool:
    """Return whether the follower soon has all that was committed until now, and is waited for."""
    deadline, wanted = time.monotonic() + _CAUGHT_UP, None
    while time.monotonic() < deadline:
        now = couple.position(confirms=True)
        if now is not None:
            wanted = now if wanted is None or wanted[0] != now[0] else wanted
            if couple.has(*wanted):
                return True
        time.sleep(_PAUSE)
    return False


def _pass_checkpointer(node: EngineNode) -> None:
    """Return when the checkpointer has certainly read the files that the server was told to read.

    That the server has sent on the signal to the last of its processes is certain once it serves a
    later connection. A checkpoint that is asked for then may begin between the look for signals and the
    look for requests; the next one begins after a look for signals.
    """
    with session.connect_in_time(node, "postgres", _CHECKPOINT) as connection:
        for _ in range(2):
            connection.execute("CHECKPOINT")


def disarm(node: EngineNode) -> None:
    """Let commits wait for nobody, and return when none does.

    By a signal, not by a session: users may have taken all, and their commits wait.

    Raises:
        HostError: the server does not do it.
    """
    with session.answering(_HELD):
        postmaster.reload(node)
        if not _commits(node, _RELEASED):
            # The checkpointer may be in the middle of writing, where it looks at nothing else.
            _pass_checkpointer(node)
            if not _commits(node, _CHECKPOINT):
                raise HostError(_HELD)


def _commits(node: EngineNode, timeout: float) -> bool:
    """Return whether a commit that may wait for a standby is acknowledged within some seconds."""
    with session.connect_in_time(node, "postgres", timeout) as connection:
        try:
            connection.execute(_COMMIT)
        except psycopg.OperationalError:
            if not connection.closed:
                raise
            return False
    return True


def is_armed(node: EngineNode) -> bool:
    """Return whether commits wait for a follower, as far as new sessions are told."""
    with session.connect_in_time(node, "postgres", _ANSWER) as connection:
        return connection.execute(_ARMED).fetchone() == (True,)
