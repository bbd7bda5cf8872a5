"""Looking again and again whether a primary commits."""

from __future__ import annotations

import time
from collections import deque

import psycopg
from psycopg import errors

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import arming, postmaster, session
from openrdb.engines.replication import Answer, Probed

_NAME = "openrdb probe"
_WRITE = "SELECT pg_logical_emit_message(%s, 'openrdb', '')"
# The functions behind `pg_stat_replication`: the session needs a tenth less memory than with the view.
_POSITION = """
    SELECT pg_current_wal_flush_lsn() - '0/0', (
        SELECT max(flush_lsn) - '0/0'
        FROM pg_stat_get_wal_senders() AS sender, pg_stat_get_activity(sender.pid)
        WHERE sync_state IN ('sync', 'quorum')
            AND format('"%s"', application_name) = current_setting('synchronous_standby_names')
    ), current_setting('synchronous_standby_names') <> ''
"""
_FULL = ("No space left on device", "Disk quota exceeded")
_SAYS = ("FATAL", "PANIC")
"""In what libpq tells of a connection that the server has refused or ended."""
_LEAST = 0.05


class PostgreSQLProbe:
    """See `Probe`. The session is opened again at the next look when it has ended."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node
        # It must not wait for the standby.
        self._options = session.options_of(node.spec, synchronous_commit="local")
        self._session: session.Session | None = None
        self._waits = True
        self._lacking: deque[tuple[float, int]] = deque()
        """Since when the standby lacks what was written up to where, the earliest first."""
        self._progress: tuple[int, float] | None = None
        """Up to where it has confirmed, and when that was new; None: it lacks nothing."""

    def look(self, timeout: float) -> Probed:
        deadline = time.monotonic() + timeout
        try:
            self._look(deadline)
        except psycopg.Error as error:
            self.close()
            # Nothing says whether the standby has got meanwhile what it lacked at the last look.
            return Probed(_answer(error), reason=str(error))
        if postmaster.is_ending(self._node):  # when its last session has gone: this one
            return Probed("refused", self._unconfirmed(), "has been asked to end")
        return Probed("written", self._unconfirmed(), waits=self._waits, late=self._late())

    def disarm(self) -> None:
        arming.disarm(self._node)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _look(self, deadline: float) -> None:
        if self._session is not None:
            try:
                return self._write(self._session, deadline)
            except psycopg.OperationalError:
                # Whatever has ended it may be over: a new one tells, if there is time for it.
                if not self._session.closed or time.monotonic() > deadline:
                    raise
        left = max(deadline - time.monotonic(), _LEAST)
        self._session = session.connect_in_time(
            self._node, "postgres", left, application=_NAME, options=self._options
        )
        return self._write(self._session, deadline)

    def _write(self, connection: session.Session, deadline: float) -> None:
        """Write something, and note what the standby has of it."""
        connection.patience = max(deadline - time.monotonic(), _LEAST)
        # By the numbers of transactions it is told whether users write while they should not: see
        # `written`. Then what is written here takes none.
        connection.execute(_WRITE, [not self._node.is_held])
        connection.patience = max(deadline - time.monotonic(), _LEAST)
        row = connection.execute(_POSITION).fetchone()
        assert row is not None  # noqa: S101
        position, confirmed, waits = row
        self._waits = waits is True
        has = int(str(confirmed)) if confirmed is not None else 0
        self._lacking.append((time.monotonic(), int(str(position))))
        while self._lacking and (not self._waits or self._lacking[0][1] <= has):
            self._lacking.popleft()
        if not self._lacking:
            self._progress = None
        elif self._progress is None or has > self._progress[0]:
            self._progress = has, time.monotonic()

    def _unconfirmed(self) -> float:
        return time.monotonic() - self._progress[1] if self._progress else 0.0

    def _late(self) -> float:
        return time.monotonic() - self._lacking[0][0] if self._lacking else 0.0


def _answer(error: psycopg.Error) -> Answer:
    said = str(error)
    if isinstance(error, errors.DiskFull) or any(text in said for text in _FULL):
        return "full"
    if isinstance(error, psycopg.OperationalError) and session.is_full(error):
        return "busy"
    has_answered = error.sqlstate is not None or any(text in said for text in _SAYS)
    return "refused" if has_answered else "silent"
