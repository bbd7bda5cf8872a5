"""The HTTP server: uvicorn, on a socket that is there already, with bounds and TLS of our own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from openrdb.api import connections
from openrdb.api.connections import PATIENCE, Connections
from openrdb.api.tls import Tls

BACKLOG = 512
_GRACE = 5
"""Seconds for requests under way when the service is told to end."""


class Server(uvicorn.Server):
    """Serves an application, and says when it does."""

    def __init__(
        self, app: FastAPI, tls: Tls | None, descriptors: int, started: Callable[[], None]
    ) -> None:
        self._connections = Connections(connections.most(descriptors))
        config = uvicorn.Config(
            _without_cancelled(app),
            http=connections.protocol(self._connections),
            ws="none",
            log_level="error",  # its warnings are of what strangers send
            log_config=None,  # lines go where all others do
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
            server_header=False,
        )
        super().__init__(config)
        self._tls = tls
        self._say_started = started
        self._is_interrupted = False

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            KeyboardInterrupt: it was SIGINT.
        """
        super().run(sockets)
        if self._is_interrupted:  # from Python 3.13 on asyncio may keep it to itself
            raise KeyboardInterrupt

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._is_interrupted |= sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; requests that are under way after the grace are cut without an answer.

        What they asked for is recorded, and completes after the next start: a status would say that
        it failed.
        """
        asyncio.get_running_loop().call_later(_GRACE, self._connections.cut_all)
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections; uvicorn itself would wait a minute for a client's handshake."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        if self._tls is not None:
            loop.add_signal_handler(signal.SIGHUP, self._tls.reload)
        self.servers = [
            await loop.create_server(
                self._protocol,
                sock=one,
                backlog=BACKLOG,
                ssl=self._tls.context if self._tls else None,
                ssl_handshake_timeout=PATIENCE if self._tls else None,
            )
            for one in sockets or ()
        ]
        self.started = True
        if not self.should_exit:
            self._say_started()

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _without_cancelled(app: ASGIApp) -> ASGIApp:
    """Return the application without the tracebacks of requests that the end of the service cancels."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return call
