"""How soon others are answered while one tenant does what they can to hold the API.

All at once: a transaction that every change of the tenant's privileges waits for, and 60 clients who
ask for one, again a second after each refusal; 500 GETs of an instance in transition, each asked again
when it is answered; 1,000 connections that send half of a request, each opened again when it is cut.
Meanwhile another tenant asks, one request after the other on one connection. The baseline is the same
client before that. The load comes from a process of its own, on the same two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

from tests.support.held_service import HeldService
from tests.support.service import Service, creation, wait_until

from bench.report import Figure, Goal
from bench.served import PORTS, Client, as_users_serve, wait_quiet
from bench.setup import Setup

CHANGES, HELD, HALVES = 60, 500, 1000
_INSTANCES = "/rdb/v1/regions/fr-par/instances"
_HALF = b"POST /rdb/v1/regions/fr-par/instances HTTP/1.1\r\nHost: x\r\nContent-Le"
_PAUSE = 1.0
_SETTLE = 3.0
"""Seconds after which all the load is there."""
_GOALS = {"GET /healthz": Goal(100, "p99"), "GET another tenant's instance": Goal(250, "p99")}


def run(setup: Setup) -> Iterator[Figure]:
    with HeldService(setup.cache, PORTS[0]) as service:
        as_users_serve(service)
        service.start()
        wait_quiet(service)
        with closing(Client(service)) as client:
            tenant = client.create("tenant").instance
            project = _another_project(client)
            other = client.create("other", project_id=project).instance
            service.hold("create_instance", 2)
            held = client.request("POST", _INSTANCES, creation(name="held")).json()["id"]
            service.wait_done()
            looks = {
                "GET /healthz": "/healthz",
                "GET another tenant's instance": f"{_INSTANCES}/{other['id']}",
                "GET another tenant's users": f"{_INSTANCES}/{other['id']}/users",
            }
            count = setup.times(400, 100)
        with closing(Client(service, _key(service, project))) as client:
            quiet = _times(client, looks, count)
            with _stuck(service, tenant["id"]), _load(service, tenant["id"], held):
                loaded = _times(client, looks, count)
            service.let_go()
    for name, times in loaded.items():
        baseline = Figure("without the load", quiet[name], tail=True)
        yield Figure(name, times, baseline=baseline, goal=_GOALS.get(name), tail=True)


def _another_project(client: Client) -> str:
    made = client.request("POST", "/account/v3/projects", {"name": f"other-{uuid4().hex[:8]}"})
    return str(made.json()["id"])


def _key(service: Service, project: str) -> str:
    options = ("--data-dir", str(service.data_dir), "--project", project)
    printed = service.run("keys", "create", *options).stdout
    return dict(line.split()[1].split("=") for line in printed.splitlines())["SCW_SECRET_KEY"]


def _times(client: Client, looks: dict[str, str], count: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(count):
        for name, path in looks.items():
            answer = client.request("GET", path)
            assert answer.status == 200, answer.body
            times[name].append(answer.milliseconds)
    return times


@contextmanager
def _stuck(service: Service, instance_id: str) -> Iterator[None]:
    """An open transaction that made a table: no privilege can be set before its end."""
    instance = service.sdk().get_instance(instance_id=instance_id)
    with service.connection(instance, autocommit=False) as session:
        session.execute("CREATE TABLE zz (a int)")
        yield
        session.rollback()


@contextmanager
def _load(service: Service, tenant: str, held: str) -> Iterator[None]:
    ready = multiprocessing.Event()
    arguments = (service.url, service.secret_key, tenant, held, ready)
    load = multiprocessing.Process(target=_run_load, args=arguments, daemon=True)
    load.start()
    try:
        wait_until(ready.is_set)
        yield
    finally:
        load.terminate()
        load.join()


# -- the load's own process ------------------------------------------------------------------------


def _run_load(url: str, key: str, tenant: str, held: str, ready: object) -> None:
    asyncio.run(_press(url, key, tenant, held, ready))


async def _press(url: str, key: str, tenant: str, held: str, ready: object) -> None:
    place = urlsplit(url)
    body = {"database_name": "rdb", "user_name": "admin", "permission": "all"}
    change = _request("PUT", f"{_INSTANCES}/{tenant}/privileges", key, json.dumps(body))
    get = _request("GET", f"{_INSTANCES}/{held}", key)

    def at(do: Callable[..., Awaitable[None]], *arguments: object) -> Awaitable[None]:
        return _again(lambda: do(place.hostname, place.port, *arguments))

    async with asyncio.TaskGroup() as tasks:
        for count, one in ((CHANGES, (_ask, change, _PAUSE)), (HELD, (_ask, get, 0.0))):
            for _ in range(count):
                tasks.create_task(at(*one))
        for _ in range(HALVES):
            tasks.create_task(at(_send_half))
        await asyncio.sleep(_SETTLE)
        ready.set()  # type: ignore[attr-defined]


async def _again(do: Callable[[], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await do()


async def _ask(host: str, port: int, request: bytes, pause: float) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while True:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
            await reader.readexactly(int(lengths[0].split(b":")[1]))
            await asyncio.sleep(pause)
    finally:
        writer.close()


async def _send_half(host: str, port: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_HALF)
        await reader.read()  # until it is cut
    finally:
        writer.close()


def _request(method: str, path: str, key: str, body: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode()
