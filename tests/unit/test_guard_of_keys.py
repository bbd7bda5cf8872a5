"""A client that tries many wrong keys does not delay the recognition of valid ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from openrdb.api.auth import Guard
from openrdb.errors import DeniedAuthentication
from openrdb.state import access
from openrdb.state.database import Database
from openrdb.state.scope import Principal

MANY = 200


class Keys:
    """Looks keys up; those that are nobody's as slowly as `let_go` allows."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self._lock = threading.Lock()
        self.valid: set[str | None] = set()
        self.looking = 0

    def authenticate(self, _: Session, secret_key: str | None) -> Principal:
        if secret_key in self.valid:
            return Principal("SCWX", uuid4(), None, uuid4(), False)
        with self._lock:
            self.looking += 1
        assert self._go.wait(60)
        raise DeniedAuthentication("not_found")

    def let_go(self) -> None:
        self._go.set()

    def hold(self) -> None:
        self._go.clear()
        self.looking = 0


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    made = Keys()
    monkeypatch.setattr(access, "authenticate", made.authenticate)
    yield made
    made.let_go()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/state.sqlite")
    yield opened
    opened.close()


async def _served(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("found")(scope, receive, send)


async def status(guard: Guard, key: str) -> int:
    """Return the status that a GET with the key is answered."""
    answered: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    scope = {"type": "http", "method": "GET", "path": "/rdb/v1/x", "query_string": b"", "state": {}}
    await guard(scope | {"headers": [(b"x-auth-token", key.encode())]}, receive, send)
    return answered[0]


def test_wrong_keys_share_one_line(keys: Keys, database: Database) -> None:
    """Those that have been revoked too."""

    async def run() -> None:
        guard = Guard(cast(Starlette, _served), database)
        keys.valid |= {"ours", "revoked"}
        assert [await status(guard, key) for key in ("ours", "revoked")] == [200, 200]
        keys.valid.remove("revoked")
        keys.let_go()
        assert await status(guard, "revoked") == 401
        keys.hold()
        tried = ["revoked"] * MANY + [f"wrong-{one}" for one in range(MANY)]
        wrong = [asyncio.create_task(status(guard, key)) for key in tried]
        async with asyncio.timeout(30):
            while keys.looking < 2:
                await asyncio.sleep(0.01)
            assert await status(guard, "ours") == 200
        assert keys.looking == 2
        keys.let_go()
        assert await asyncio.gather(*wrong) == [401] * len(tried)

    asyncio.run(run())
