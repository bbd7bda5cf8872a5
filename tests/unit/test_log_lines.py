"""Log lines: what they are about, for people and as JSON, and across to the agent."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import anyio
import httpx
import pytest

from openrdb import logs
from openrdb.agent.server import create_app
from openrdb.agent.wire import REQUEST_HEADER
from openrdb.host.base import Host

log = logging.getLogger("openrdb.tests")


@contextmanager
def written(form: logs.LogFormat) -> Iterator[Callable[[], list[str]]]:
    """Log into memory; yields what returns the lines so far."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        logs.configure("INFO", form, handler)
        yield lambda: stream.getvalue().splitlines()
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_json_is_an_object_a_line() -> None:
    with written("json") as lines, logs.about(logs.REQUEST, "one"):
        log.info("a line\nand %s", 'another "é"')
        with logs.about(logs.OPERATION, "two"), logs.about(logs.REQUEST, None):
            try:
                raise ValueError("bad\nluck")
            except ValueError:
                log.exception("it failed")
        log.debug("not asked for")
    first, second = (json.loads(line) for line in lines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "INFO",
        "logger": "openrdb.tests",
        "message": 'a line\nand another "é"',
        "request": "one",
    }
    assert (second["request"], second["operation"]) == ("one", "two")
    assert second["exception"].startswith("Traceback")
    assert logs.subject(logs.REQUEST) is None


def test_text_names_it_before_the_traceback() -> None:
    with written("text") as lines:
        log.info("nothing")
        with logs.about(logs.REQUEST, "one"), logs.about(logs.OPERATION, "two"):
            log.error("it failed", exc_info=ValueError("bad luck"))
    first, second, *rest = lines()
    assert first.endswith("INFO nothing")
    assert second.endswith("ERROR it failed request=one operation=two")
    assert rest[-1] == "ValueError: bad luck"


def test_other_threads_are_about_something_else() -> None:
    seen: list[str | None] = []
    with logs.about(logs.REQUEST, "one"):
        thread = threading.Thread(target=lambda: seen.append(logs.subject(logs.REQUEST)))
        thread.start()
        thread.join()
    assert seen == [None]


class _Host:
    def state(self) -> Any:
        log.warning("asked")
        raise ValueError("as if something were wrong")


def test_calls_of_the_agent_are_about_the_request() -> None:
    app = create_app(cast(Host, _Host()), "token")

    async def call(**headers: str) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            given = {"authorization": "Bearer token", **headers}
            return (await client.post("/v1/state", headers=given, json={})).status_code

    with written("json") as lines:
        assert anyio.run(partial(call, **{REQUEST_HEADER: "one"})) == 500
        assert anyio.run(call) == 500
    told = [json.loads(line) for line in lines() if "openrdb" in line]
    assert [one.get("request") for one in told] == ["one", "one", None, None]
    assert told[0]["message"] == "asked"


@pytest.mark.parametrize("library", ["dbos", "uvicorn.error"])
def test_libraries_log_as_we_do(library: str) -> None:
    with written("json") as lines:
        logging.getLogger(library).error("theirs")
    (line,) = lines()
    assert json.loads(line)["logger"] == library
