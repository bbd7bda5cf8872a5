"""Each request's id: answered, and in all log lines of the request."""

from __future__ import annotations

import asyncio
import logging
import time
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openrdb import logs

log = logging.getLogger(__name__)

_LOOKS = {"GET", "HEAD", "OPTIONS"}
_FIRST_FAILURE = 500
_LONGEST = 300


class RequestLog:
    """Gives each request an id, and logs it at its end: what only looks at DEBUG, unless it failed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["state"]["request_id"] = str(uuid4())
        # Not taken back: each request is a task of its own, and what fails is logged further out.
        logs.add(logs.REQUEST, request_id)
        began, status = time.monotonic(), _FIRST_FAILURE
        has_begun = is_cut = False

        async def answer(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                status, has_begun = message["status"], True
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            is_cut = not has_begun  # the service ends: nobody is told a status
            raise
        finally:
            is_quiet = scope["method"] in _LOOKS and (is_cut or status < _FIRST_FAILURE)
            level = logging.DEBUG if is_quiet else logging.INFO
            if log.isEnabledFor(level):
                # As it was sent, in ASCII: what a name decodes to could make lines of its own.
                path = scope["raw_path"].decode("ascii", "replace")[:_LONGEST]
                took = 1000 * (time.monotonic() - began)
                told = "cut" if is_cut else status
                log.log(level, "%s %s %s in %.0f ms", scope["method"], path, told, took)
