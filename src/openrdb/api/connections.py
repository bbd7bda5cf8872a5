"""Clients' connections: how many there are at most, and how long each may take for a request and
to read its answer.

A connection costs a descriptor, and a client that sends half of a request, or reads half of an
answer, would keep it for good.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 15.0
"""Seconds within which a client that has connected, or begun a request, has sent all of it."""
READING = 60.0
"""Seconds within which a client has read what was sent so far: some hundred KiB of a long answer."""
_MOST = 4096
_SHARE = 2
"""One descriptor of so many is a client's; the others are for the state and the agent."""


def most(descriptors: int) -> int:
    """Return how many connections there may be where so many files may be open."""
    return min(_MOST, descriptors // _SHARE)


class Connections:
    """All connections of a server.

    Where there are too many, the one is cut that has waited longest for its client's request: those
    whose requests are being answered go on.
    """

    def __init__(self, limit: int, patience: float = PATIENCE, reading: float = READING) -> None:
        self.patience = patience
        self.reading = reading
        self._limit = limit
        self._open: set[_Protocol] = set()
        self._waiting: dict[_Protocol, None] = {}
        """Those that wait for their clients, the longest first."""

    def add(self, connection: _Protocol) -> None:
        self._open.add(connection)
        if len(self._open) > self._limit:
            next(iter(self._waiting), connection).cut()

    def remove(self, connection: _Protocol) -> None:
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def cut_all(self) -> None:
        """End all connections at once."""
        for connection in tuple(self._open):
            connection.cut()

    def note_waiting(self, connection: _Protocol, *, waits: bool) -> None:
        if waits:
            self._waiting[connection] = None
        else:
            self._waiting.pop(connection, None)


class _Protocol(H11Protocol):
    """uvicorn's, which itself waits for ever for the rest of a request."""

    group: ClassVar[Connections]
    _timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        self.group.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        self._has_read()
        self.group.remove(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_timer = self.loop.call_later(self.group.reading, self.cut)

    def resume_writing(self) -> None:
        self._has_read()
        super().resume_writing()

    def _has_read(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._wait()
        else:
            self._wait_no_longer()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; if it is the rest of a request, that gets no other answer."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # an answer has begun
            self.transport.close()

    def _wait(self) -> None:
        """Wait for the client's next bytes; the time counts from the first of these calls."""
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.group.patience, self.cut)
            self.group.note_waiting(self, waits=True)

    def _wait_no_longer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.group.note_waiting(self, waits=False)

    def cut(self) -> None:
        """End the connection at once; its descriptor is free with the loop's next turn."""
        self._wait_no_longer()
        self.group.remove(self)
        self.transport.abort()


def protocol(connections: Connections) -> type[asyncio.Protocol]:
    """Return the protocol that serves these connections, as uvicorn takes it."""
    return cast(type[asyncio.Protocol], type("Protocol", (_Protocol,), {"group": connections}))
