"""A control plane as users run it (default settings, rootless), and a client that costs little."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from tests.support.service import Service, creation, wait_until

from bench.engines import PostgreSQL
from bench.setup import Setup

PORTS = ((28000, 28499, 18000, 18499), (28500, 28999, 18500, 18999))
"""Beyond those that the tests use, for two control planes at once."""
_OF_TESTS = {
    *("OPENRDB_SWEEP", "OPENRDB_HOLD", "OPENRDB_SPARE_VOLUMES", "OPENRDB_WARM_ENGINES"),
    "OPENRDB_METRICS_ROUND",
}
"""What the tests set for themselves; users have the defaults."""
BY_HAND_PORTS = range(19000, 19100)
_UNDER_WAY = (
    *("provisioning", "initializing", "configuring", "snapshotting", "creating", "restoring"),
)
_INSTANCES = "/rdb/v1/regions/fr-par/instances"


@contextmanager
def served(
    setup: Setup,
    block: int = 0,
    *,
    engine: str = PostgreSQL.version,
    as_root: bool = False,
    place: Path | None = None,
    **environment: str,
) -> Iterator[Service]:
    """A control plane with nothing to do: an engine version's template and spare are made; `place`
    is its data directory, where that is not to be an ordinary one."""
    with Service(setup.cache, PORTS[block], as_root=as_root) as service:
        if place is not None:
            service.data_dir = place
        as_users_serve(service, engine)
        service.environment |= environment
        service.start()
        wait_quiet(service)
        yield service


def as_users_serve(service: Service, engine: str = PostgreSQL.version) -> None:
    """Give it the settings that users have; an engine version's template and spare are made."""
    for name in set(service.environment) & _OF_TESTS:
        del service.environment[name]
    service.environment["OPENRDB_WARM_ENGINES"] = f'["{engine}"]'


def wait_quiet(service: Service) -> None:
    """Until nothing works in the background, and all it wrote is on the disk."""
    for _ in range(2):
        wait_until(lambda: _is_quiet(service), 180)
        os.sync()


def _is_quiet(service: Service) -> bool:
    before, started = _processor_seconds(service), time.monotonic()
    time.sleep(0.4)
    used = sum(
        seconds - before.get(process, 0.0)
        for process, seconds in _processor_seconds(service).items()
    )
    making = list(service.data_dir.glob("making/*"))
    return not making and used < 0.1 * (time.monotonic() - started)


def _processor_seconds(service: Service) -> dict[psutil.Process, float]:
    seconds = {}
    for process in service.processes():
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds[process] = times.user + times.system
    return seconds


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    milliseconds: float
    """From the first byte of the request to the last of the answer."""

    def json(self) -> dict[str, Any]:
        assert self.status == 200, self.body
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded


@dataclass(frozen=True)
class Created:
    """A creation as its client saw it, in milliseconds from its request."""

    instance: dict[str, Any]
    answered: float
    ready: float

    @property
    def address(self) -> tuple[str, int]:
        endpoint = self.instance["endpoints"][0]
        return endpoint["ip"], endpoint["port"]


class Client:
    """One connection to the API, kept open."""

    def __init__(self, service: Service, secret_key: str | None = None) -> None:
        address = urlsplit(service.url)
        assert address.hostname is not None
        self._connection = HTTPConnection(address.hostname, address.port, timeout=60)
        self._headers = {
            "X-Auth-Token": secret_key or service.secret_key,
            "Content-Type": "application/json",
        }

    def close(self) -> None:
        self._connection.close()

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        content = None if body is None else json.dumps(body)
        started = time.perf_counter()
        self._connection.request(method, path, content, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        return Answer(response.status, answer, (time.perf_counter() - started) * 1e3)

    def ask_for(
        self, name: str = "bench", engine: str = PostgreSQL.version, **changes: Any
    ) -> Answer:
        return self.request("POST", _INSTANCES, creation(engine, name=name, **changes))

    def create(
        self, name: str = "bench", engine: str = PostgreSQL.version, **changes: Any
    ) -> Created:
        """Ask for an instance, then for its status until it is ready: the server holds the answers."""
        started = time.perf_counter()
        asked = self.ask_for(name, engine, **changes)
        instance = self.wait_ready(f"{_INSTANCES}/{asked.json()['id']}")
        ready = (time.perf_counter() - started) * 1e3
        return Created(instance, asked.milliseconds, ready)

    def wait_ready(self, path: str) -> dict[str, Any]:
        """Return what a path shows when it is `ready`."""
        while (shown := self.request("GET", path).json())["status"] in _UNDER_WAY:
            pass  # the server holds the answer
        assert shown["status"] == "ready", shown["status"]
        return shown

    def ask_to_delete(self, instance_id: str) -> Answer:
        return self.request("DELETE", f"{_INSTANCES}/{instance_id}")

    def delete(self, instance_id: str) -> None:
        """Delete an instance and wait until it has gone."""
        self.ask_to_delete(instance_id).json()
        wait_until(lambda: self.instance(instance_id).status == 404)

    def at(self, instance_id: str, method: str, path: str, body: Any = None) -> Answer:
        """A request about one instance, `path` within it; it must succeed."""
        answer = self.request(method, f"{_INSTANCES}/{instance_id}/{path}", body)
        assert answer.status in (200, 204), answer.body
        return answer

    def change(self, instance_id: str, method: str, path: str, body: Any) -> float:
        """Milliseconds from a request about an instance until that is `ready` again."""
        started = time.perf_counter()
        self.at(instance_id, method, path, body)
        self.wait_ready(f"{_INSTANCES}/{instance_id}")
        return (time.perf_counter() - started) * 1e3

    def page(self, region: str, query: str) -> Answer:
        return self.request("GET", f"/rdb/v1/regions/{region}/instances?{query}")

    def instance(self, instance_id: str) -> Answer:
        return self.request("GET", f"{_INSTANCES}/{instance_id}")


def create_many(
    service: Service, count: int, at_once: int, engine: str = PostgreSQL.version
) -> list[Created]:
    def create(number: int) -> Created:
        with closing(Client(service)) as client:
            return client.create(f"bench-{number}", engine)

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(create, range(count)))


def delete_many(service: Service, created: list[Created]) -> None:
    def delete(one: Created) -> None:
        with closing(Client(service)) as client:
            client.delete(one.instance["id"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(delete, created))


def state(service: Service, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Rows of the control plane's state."""
    path = service.data_dir / "state.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(statement, parameters).fetchall()


def control_plane(service: Service) -> psutil.Process:
    assert service.process is not None
    return psutil.Process(service.process.pid)


def agent(service: Service) -> psutil.Process:
    (found,) = service.processes("openrdb.agent")
    return found


def pss(process: psutil.Process) -> float:
    """MiB of memory; what processes share is counted once, in equal parts."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel does not tell")
