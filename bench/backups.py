"""Backup and restore of a database, against the engine's own programs with the same options.

Some 1 GB. The programs dump into a compressed file and load it into an empty database, as the
administrator and by TLS; ours also check, store durably and swap, and the time is from the request
until the backup is `ready`. Memory is what the job's own process takes at most; the engine's programs,
which it streams from and to, come on top.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psutil
from tests.support.service import Service

from bench.engines import Engine
from bench.report import Figure, Goal
from bench.served import Client, create_many, served, wait_quiet
from bench.setup import Setup

_MEGABYTES = 1000
_BACKUPS = "/rdb/v1/regions/fr-par/backups"
_GOAL = Goal(1.05, "ratio")
_LOOK_EACH = 0.05


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _figures(setup, engine)


def _figures(setup: Setup, engine: Engine) -> Iterator[Figure]:
    megabytes = setup.times(_MEGABYTES, 50)
    dumps, bare_dumps, restores, bare_restores = [], [], [], []
    memory: list[float] = []
    with served(setup, engine=engine.version) as service, tempfile.TemporaryDirectory() as place:
        (created,) = create_many(service, 1, 1, engine.version)
        engine.fill(created.address, megabytes)
        wait_quiet(service)
        instance_id = created.instance["id"]
        for number in range(setup.times(3, 1)):
            path = Path(place, f"{number}.dump")
            bare_dumps.append(_seconds(partial(engine.dump, created.address, path)))
            with _watched(memory), closing(Client(service)) as client:
                backup_id, seconds = _back_up(client, instance_id)
            dumps.append(seconds)
            empty, ours = f"bare{number}", f"ours{number}"
            with closing(Client(service)) as client:
                client.at(instance_id, "POST", "databases", {"name": empty})
            turns = [
                (bare_restores, partial(engine.load, created.address, path, empty)),
                (restores, partial(_restore, service, backup_id, instance_id, ours)),
            ]
            # What one has left to write to disk is not the other's, who is not always the second.
            for seconds_of, load in turns if number % 2 else reversed(turns):
                wait_quiet(service)
                seconds_of.append(_seconds(load))
            with closing(Client(service)) as client:  # idle ones are cut
                for name in (empty, ours):
                    client.at(instance_id, "DELETE", f"databases/{name}")
            path.unlink()
    what = f"{engine.name}, {megabytes} MB"
    bare = Figure("the bare program", bare_dumps, "s")
    yield Figure(f"{what}: backup", dumps, "s", bare, _GOAL, in_turn=True)
    bare = Figure("the bare program", bare_restores, "s")
    yield Figure(f"{what}: restore", restores, "s", bare, _GOAL, in_turn=True)
    yield Figure(f"{what}: memory of a job", memory, "MiB")


def _seconds(do: Callable[[], None]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _back_up(client: Client, instance_id: str) -> tuple[str, float]:
    started = time.perf_counter()
    sent = {"instance_id": instance_id, "database_name": "rdb", "name": "bench"}
    backup_id = client.request("POST", _BACKUPS, sent).json()["id"]
    client.wait_ready(f"{_BACKUPS}/{backup_id}")
    return backup_id, time.perf_counter() - started


def _restore(service: Service, backup_id: str, instance_id: str, database: str) -> None:
    sent = {"instance_id": instance_id, "database_name": database}
    with closing(Client(service)) as client:
        client.request("POST", f"{_BACKUPS}/{backup_id}/restore", sent).json()
        client.wait_ready(f"{_BACKUPS}/{backup_id}")


@contextmanager
def _watched(most: list[float]) -> Iterator[None]:
    """Add the most memory that a job took meanwhile."""
    ended, seen = threading.Event(), [0.0]

    def look() -> None:
        while not ended.wait(_LOOK_EACH):
            for process in psutil.process_iter(["cmdline"]):
                if "openrdb.host.transfer_job" in (process.info["cmdline"] or []):
                    try:
                        seen.append(process.memory_info().rss / 2**20)
                    except psutil.NoSuchProcess:
                        continue

    watcher = threading.Thread(target=look)
    watcher.start()
    yield
    ended.set()
    watcher.join()
    most.append(max(seen))
