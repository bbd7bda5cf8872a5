"""What is logged of a request at its end."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.types import Message, Receive, Scope, Send

from openrdb.api.requests import RequestLog

_SCOPE: Scope = {"type": "http", "method": "GET", "raw_path": b"/held"}


async def _hold(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def _begin(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.Event().wait()


@pytest.mark.parametrize(("app", "told"), [(_hold, "cut"), (_begin, "200")])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_service_s_end_cuts_has_not_failed(
    app: object, told: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pass

    async def cut() -> None:
        scope = {**_SCOPE, "method": method, "state": {}}
        request = asyncio.ensure_future(RequestLog(app)(scope, receive, send))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    with caplog.at_level(logging.DEBUG, "openrdb.api.requests"):
        asyncio.run(cut())
    (line,) = [one for one in caplog.records if one.name == "openrdb.api.requests"]
    assert line.getMessage().startswith(f"{method} /held {told} in ")
    assert line.levelno == (logging.DEBUG if method == "GET" else logging.INFO)
