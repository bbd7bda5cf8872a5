"""Queries as clients send them: a parameter that is empty is one that is absent."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class WithoutEmptyParameters:
    """Passes requests on without the parameters that have no value: `?name=&order_by=name_asc`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"]:
            parts: list[bytes] = scope["query_string"].split(b"&")
            given = [part for part in parts if part.partition(b"=")[2]]
            scope["query_string"] = b"&".join(given)
        await self._app(scope, receive, send)
