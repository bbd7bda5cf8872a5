"""Sessions of the superuser that a call leaves for the next one: a new session costs more than most
calls do in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

S = TypeVar("S")

_IDLE = 1.0
"""Seconds that a session waits for the next call. Not for long: it is one of few, and PostgreSQL gives
who drops, renames or copies a database five seconds for others' sessions in it to end."""
_MOST = 2
"""Sessions a node."""


@dataclass(frozen=True)
class _Idle(Generic[S]):
    node_id: UUID
    database: str
    session: S
    since: float = field(default_factory=time.monotonic)


class Kept(Generic[S]):
    """Idle sessions of this process; any number of threads may use it."""

    def __init__(self, close: Callable[[S], None]) -> None:
        self._close = close
        self._idle: list[_Idle[S]] = []
        """The oldest first."""
        self._lock = threading.Lock()
        self._closer: threading.Thread | None = None

    def take(self, node_id: UUID, database: str) -> S | None:
        """Return the session that was left last; it may have ended since."""
        with self._lock:
            for one in reversed(self._idle):
                if (one.node_id, one.database) == (node_id, database):
                    self._idle.remove(one)
                    return one.session
        return None

    def leave(self, node_id: UUID, database: str, session: S) -> None:
        """Leave a session for the next call; it is closed if none comes."""
        with self._lock:
            self._idle.append(_Idle(node_id, database, session))
            of_node = [one for one in self._idle if one.node_id == node_id]
            too_many = of_node[:-_MOST]
            for one in too_many:
                self._idle.remove(one)
            if self._closer is None:
                self._closer = threading.Thread(target=self._close_old, daemon=True)
                self._closer.start()
        self._end(too_many)

    def drop(self, node_id: UUID) -> None:
        """Close all of a node, whose server has no connection left."""
        with self._lock:
            of_node = [one for one in self._idle if one.node_id == node_id]
            self._idle = [one for one in self._idle if one.node_id != node_id]
        self._end(of_node)

    def _close_old(self) -> None:
        """Close what nobody took, until nothing is left."""
        while True:
            with self._lock:
                if not self._idle:
                    self._closer = None
                    return
                oldest = self._idle[0]
                left = oldest.since + _IDLE - time.monotonic()
                if left <= 0:
                    self._idle.remove(oldest)
            if left <= 0:
                self._end([oldest])
            else:
                time.sleep(left)

    def _end(self, idle: list[_Idle[S]]) -> None:
        for one in idle:
            self._close(one.session)
