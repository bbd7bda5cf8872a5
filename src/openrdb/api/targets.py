"""Request targets in absolute form, which every server must accept (RFC 9112, 3.2.2)."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_ORIGIN = re.compile(rb"https?://[^/]*", re.IGNORECASE)


class AbsoluteTargets:
    """Takes `GET http://host/path` for `GET /path`: whatever its name, this server is meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (origin := _ORIGIN.match(scope["raw_path"])):
            path = scope["raw_path"][origin.end() :] or b"/"
            scope = {**scope, "raw_path": path, "path": unquote(path.decode("ascii"))}
        await self._app(scope, receive, send)
