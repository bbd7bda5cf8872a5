"""Snapshots, instances made of them, and clones: of next to nothing, of 1 GB and of 5 GB.

Each from its request until `ready` (MySQL: of nothing and of 1 GB), on the kinds of file systems that a
data directory can be on; the baseline is the same with an empty instance. Then what clients get done in
ten seconds in which two snapshots are taken, and in the ten after them, against ten without. btrfs and
xfs are in files of this disk, which are written in full before, and only root can mount them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.mounts import btrfs, unmount, xfs

from bench.engines import Engine
from bench.report import Figure, Goal
from bench.served import Client, delete_many, served, wait_quiet
from bench.setup import Setup

_SIZES = {"PostgreSQL": (1000, 5000), "MySQL": (1000,)}
_ROOM = 24 * 2**30
_SECONDS = 10
_VOLUME = {"volume_type": "sbs_5k", "volume_size": 10 * 10**9}
_WAYS = ("snapshot", "instance of it", "clone")


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _figures(setup, engine, "directory", None, None)
        if os.geteuid() == 0:
            for name, make, goal in (("btrfs", btrfs, Goal(2, "ratio")), ("xfs", xfs, None)):
                with _mounted(partial(make, size=_ROOM)) as place:
                    yield from _figures(setup, engine, name, place, goal)


def _figures(
    setup: Setup, engine: Engine, pool: str, place: Path | None, goal: Goal | None
) -> Iterator[Figure]:
    sizes = _SIZES[engine.name]
    with served(setup, engine=engine.version, place=place) as service:
        empty: dict[str, Figure] = {}
        for megabytes in (0, *sizes[: setup.times(2, 1)]):
            with closing(Client(service)) as client:
                created = client.create(engine=engine.version, **_VOLUME)
            if megabytes:
                engine.fill(created.address, megabytes)
            times = defaultdict[str, list[float]](list)
            with closing(Client(service)) as client:
                for number in range(setup.times(5, 2)):
                    wait_quiet(service)
                    client.close()
                    for way, seconds in _copy(client, created.instance["id"], number).items():
                        times[way].append(seconds)
            for way in _WAYS:
                if not megabytes:
                    empty[way] = Figure("an empty instance", times[way], "s")
                else:
                    what = f"{engine.name}, {pool}, {megabytes:,} MB: {way}"
                    yield Figure(what, times[way], "s", empty[way], goal)
            if megabytes == sizes[0]:
                yield from _rates(setup, engine, pool, service, created)
            delete_many(service, [created])


def _copy(client: Client, instance_id: str, number: int) -> dict[str, float]:
    """Seconds of each way; what they make is removed again."""
    started = time.perf_counter()
    path = f"/rdb/v1/regions/fr-par/instances/{instance_id}"
    snapshot = client.request("POST", f"{path}/snapshots", {"name": f"s{number}"}).json()
    at = f"/rdb/v1/regions/fr-par/snapshots/{snapshot['id']}"
    client.wait_ready(at)
    taken = time.perf_counter()
    named = {"instance_name": f"of{number}"}
    made = client.request("POST", f"{at}/create-instance", named).json()["id"]
    client.wait_ready(f"/rdb/v1/regions/fr-par/instances/{made}")
    restored = time.perf_counter()
    cloned = client.request("POST", f"{path}/clone", {"name": f"clone{number}"}).json()["id"]
    client.wait_ready(f"/rdb/v1/regions/fr-par/instances/{cloned}")
    ended = time.perf_counter()
    for one in (made, cloned):
        client.delete(one)
    client.request("DELETE", at)
    return dict(zip(_WAYS, (taken - started, restored - taken, ended - restored), strict=True))


def _rates(setup: Setup, engine: Engine, pool: str, service: Any, created: Any) -> Iterator[Figure]:
    load = engine.loads[-1]
    before, during, after = [], [], []
    with ThreadPoolExecutor(1) as pool_of_one:
        for number in range(setup.times(3, 1)):
            before.append(engine.rate(load, created.address, _SECONDS))
            running = pool_of_one.submit(engine.rate, load, created.address, _SECONDS)
            with closing(Client(service)) as client:
                for half in range(2):
                    time.sleep(_SECONDS / 4)  # snapshots at a quarter and three of the time
                    name = {"name": f"rate{number}.{half}"}
                    path = f"/rdb/v1/regions/fr-par/instances/{created.instance['id']}/snapshots"
                    made = client.request("POST", path, name).json()["id"]
                    client.wait_ready(f"/rdb/v1/regions/fr-par/snapshots/{made}")
            during.append(running.result())
            after.append(engine.rate(load, created.address, _SECONDS))
    baseline = Figure(f"{load} before", before, "/s")
    pool = f"{engine.name}, {pool}"
    yield Figure(f"{pool}: with two snapshots meanwhile", during, "/s", baseline, in_turn=True)
    yield Figure(f"{pool}: after them", after, "/s", baseline, in_turn=True)


@contextmanager
def _mounted(make: Callable[[Path], Path]) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="ordb-fs-"))
    place.chmod(0o755)
    try:
        directory = make(place)
        account = pwd.getpwnam("nobody")
        os.chown(directory, account.pw_uid, account.pw_gid)
        yield directory / "data"
    finally:
        unmount(place)
        shutil.rmtree(place)
