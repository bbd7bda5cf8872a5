"""Calls of the API within the process, with a person's key: every rule is the API's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from openrdb.console.refusals import Refused
from openrdb.observe.changes import patience

Json = dict[str, Any]
_FIRST_ERROR = 400


class Client:
    """The API, as the holder of one key sees it."""

    def __init__(self, app: ASGIApp, secret_key: str, source: tuple[str, int]) -> None:
        self._app = app
        self._key = secret_key
        self._source = source

    async def get(
        self, path: str, parameters: Mapping[str, Any] | None = None, *, is_held: bool = False
    ) -> Json:
        """Return what the API answers.

        Args:
            is_held: wait, as other clients do, for a status that will soon be another one.

        Raises:
            Refused: the API answers with an error.
        """
        before = patience.set(math.inf if is_held else 0)
        try:
            return await self._call("GET", path, params=parameters)
        finally:
            patience.reset(before)

    async def send(self, method: str, path: str, body: Json | None = None) -> Json:
        """Ask for a change, and return what the API answers.

        Raises:
            Refused: the API answers with an error.
        """
        return await self._call(method, path, json=body or {})

    async def _call(self, method: str, path: str, **content: Any) -> Json:  # noqa: ANN401
        transport = httpx.ASGITransport(
            self._with_state, raise_app_exceptions=False, client=self._source
        )
        async with httpx.AsyncClient(
            transport=transport, base_url="http://console", trust_env=False
        ) as client:
            # As bytes: a key that is none may have any characters.
            headers = {b"X-Auth-Token": self._key.encode(errors="replace")}
            response = await client.request(method, path, headers=headers, **content)
        body: Json = response.json() if response.content else {}
        if response.status_code >= _FIRST_ERROR:
            raise Refused(response.status_code, body)
        return body

    async def _with_state(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "state": {}}, receive, send)


def segment(name: str) -> str:
    """Return a name as one part of a path: none is taken for `..`, which would name something else."""
    return quote(name, safe="").replace(".", "%2E")
