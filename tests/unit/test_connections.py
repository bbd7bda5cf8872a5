"""Connections of the API's clients: bounded in number, and in the time for a request."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from openrdb.api import connections, errors
from openrdb.api.connections import Connections
from openrdb.api.targets import AbsoluteTargets
from tests.support.service import wait_until

PATIENCE = 0.6
LONG, CHUNK = 2**24, 2**18
GET = b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n"
HALVES = {
    "nothing": b"",
    "a line": b"GET /now HTTP/1.1\r\n",
    "a head": GET[:-2],
    "a body": b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc",
    "the next one's": GET + GET[:-2],
}


def application() -> FastAPI:
    app = FastAPI()
    app.add_middleware(AbsoluteTargets)
    errors.install(app)

    @app.get("/now")
    async def now() -> str:
        return "now"

    @app.get("/held")
    async def held() -> str:
        await asyncio.sleep(3 * PATIENCE)
        return "held"

    @app.api_route("/long", methods=["GET", "POST"])
    async def long() -> StreamingResponse:
        return StreamingResponse(bytes(CHUNK) for _ in range(LONG // CHUNK))

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    return app


@contextmanager
def serving(limit: int) -> Iterator[tuple[str, int]]:
    kept = connections.protocol(Connections(limit, PATIENCE, PATIENCE))
    config = uvicorn.Config(application(), http=kept, ws="none", log_config=None)
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serving(100) as place:
        yield place


def begun(address: tuple[str, int], sent: bytes) -> socket.socket:
    connection = socket.create_connection(address, timeout=10)
    connection.sendall(sent)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def answered(connection: socket.socket, body: bytes) -> bool:
    """Whether the next answer has this body."""
    received = b""
    while not received.endswith(b"\r\n\r\n" + body):
        part = connection.recv(65536)
        if not part:
            return False
        received += part
    return True


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_a_half_is_cut(address: tuple[str, int], half: bytes) -> None:
    started = time.monotonic()
    with begun(address, half) as connection:
        received = rest(connection)
    assert time.monotonic() - started < 5 * PATIENCE
    assert received.count(b"200 OK") == half.count(GET)


def test_bytes_now_and_then_gain_no_time(address: tuple[str, int]) -> None:
    started = time.monotonic()
    with begun(address, GET[:10]) as connection, pytest.raises(OSError):
        for number in range(10, len(GET) - 1):
            time.sleep(PATIENCE / 10)
            connection.sendall(GET[number : number + 1])
    assert time.monotonic() - started < 3 * PATIENCE


def test_whoever_sends_slowly_but_all_of_it_is_answered(address: tuple[str, int]) -> None:
    with begun(address, HALVES["a body"]) as connection:
        time.sleep(PATIENCE / 2)
        connection.sendall(b"de")
        assert answered(connection, b"5")
        connection.sendall(GET)
        assert answered(connection, b'"now"')


def test_an_answer_may_take_its_time(address: tuple[str, int]) -> None:
    with begun(address, GET.replace(b"now", b"held")) as connection:
        assert answered(connection, b'"held"')


def test_whoever_does_not_read_an_answer_is_cut(address: tuple[str, int]) -> None:
    with begun(address, GET.replace(b"now", b"long")) as connection:
        time.sleep(3 * PATIENCE)
        assert len(rest(connection)) < LONG


def test_whoever_reads_an_answer_slowly_has_all_of_it(address: tuple[str, int]) -> None:
    received, started = 0, time.monotonic()
    with begun(address, GET.replace(b"now", b"long")) as connection:
        while received < LONG:
            part = connection.recv(CHUNK)
            assert part
            received += len(part)
            time.sleep(PATIENCE / 20)
    assert time.monotonic() - started > PATIENCE


def test_beyond_the_limit_the_longest_waiting_is_cut() -> None:
    with serving(10) as address:
        held = begun(address, GET.replace(b"now", b"held"))
        time.sleep(PATIENCE / 10)
        halves = [begun(address, GET[:-2]) for _ in range(9)]
        time.sleep(PATIENCE / 10)
        with begun(address, GET) as another:
            assert answered(another, b'"now"')
        assert rest(halves[0]) == b""
        halves[8].sendall(b"\r\n")
        assert answered(halves[8], b'"now"')
        assert answered(held, b'"held"')
        for one in (held, *halves):
            one.close()


def test_where_all_are_busy_the_new_one_is_cut() -> None:
    with serving(3) as address:
        held = [begun(address, GET.replace(b"now", b"held")) for _ in range(3)]
        time.sleep(PATIENCE / 2)
        with begun(address, b"") as another:
            assert rest(another) == b""
        for one in held:
            assert answered(one, b'"held"')
            one.close()


@pytest.mark.parametrize("path", [b"/body", b"/now", b"/long"])
def test_a_body_that_is_no_http_is_refused_once(
    address: tuple[str, int], path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the answer has begun; a stranger writes nothing into the log."""
    log = logging.getLogger("uvicorn.error")
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with caplog.at_level(logging.ERROR, "uvicorn.error"):
        log.addHandler(caplog.handler)
        for pause in (0.0, PATIENCE / 5):
            with begun(address, head) as connection:
                time.sleep(pause)
                connection.sendall(b"zz\r\n")
                assert rest(connection).count(b"HTTP/1.1 ") <= 1
        with begun(address, GET) as another:
            assert answered(another, b'"now"')
        log.removeHandler(caplog.handler)
    assert not caplog.records


@pytest.mark.parametrize("target", [b"http://x/now", b"HTTPS://x:8080/now?a=http://y"])
def test_a_target_in_absolute_form(address: tuple[str, int], target: bytes) -> None:
    with begun(address, GET.replace(b"/now", target)) as connection:
        assert answered(connection, b'"now"')


def test_how_many() -> None:
    assert connections.most(1024) == 512
    assert connections.most(2**20) == 4096
