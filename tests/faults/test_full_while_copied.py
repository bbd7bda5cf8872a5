"""A disk that is full from some moment of a copy on: it is whole, or its failure says why.

What is copied is untouched, nothing is left of what failed, and with room again all can be made.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from scaleway.rdb.v1 import Instance

from tests.faults.matrix.faults import seed
from tests.support.kinds import finished_count, last_error
from tests.support.leftovers import leftovers
from tests.support.mounts import ext4, unmount
from tests.support.service import Service, gone, installed, ports_of_worker, wait_until

pytestmark = pytest.mark.root

SIZE = 2**31
FULL = 8.0
"""Seconds for which a disk is full at most."""
ENDED = 120.0
RESTART = "a restart of the instance helps"
"""In the error if MySQL's clone plugin has run out of space: further copies fail until a restart."""
BLOCK = {"volume_type": "sbs_5k", "volume_size": 5 * 10**9}


@dataclass
class Stage:
    """A service whose pool of sbs_5k and whose objects are on small disks of their own."""

    service: Service
    pool: Path
    objects: Path
    rounds: int
    """How often a disk gets full in a test."""

    @contextlib.contextmanager
    def full(self, disk: Path, after: float) -> Iterator[None]:
        """Take every byte of a disk some seconds later, and give it back in the end."""
        ballast = disk / "ballast"
        try:
            time.sleep(after)  # the moment is the matter of these tests
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)
            yield
        finally:
            ballast.unlink(missing_ok=True)

    def ended(self, kind: str, done: int, disk: Path, after: float | None) -> tuple[str, str]:
        """How the operation under way ends, with a disk full for a while from some moment on.

        Args:
            done: how many of its kind had ended before.
            after: seconds; None: it never is full.
        """

        def has_ended() -> bool:
            return finished_count(self.service, kind) > done

        if after is not None:
            with self.full(disk, after), contextlib.suppress(AssertionError):
                wait_until(has_ended, FULL)
        wait_until(has_ended, ENDED)
        status, why = last_error(self.service, kind)
        print(f"{kind}: {status} {why}")
        return status, str(why)

    def request(self, method: str, path: str, sent: Any = None) -> Any:
        answer = self.service.request(method, path, json=sent)
        assert answer.status_code in (200, 204), answer.text
        return answer.json() if answer.content else None

    def settled(self, path: str) -> str:
        """The status in which something that the API made ends."""
        transient = ("provisioning", "initializing", "creating", "restoring", "snapshotting")
        while (shown := self.request("GET", path))["status"] in (*transient, "backuping"):
            pass  # the answer is held
        return str(shown["status"])

    def working(self, instance_id: str) -> Instance:
        """An instance when it is ready; it may have been `disk_full`, as what grew fastest."""
        sdk = self.service.sdk()
        wait_until(lambda: str(sdk.get_instance(instance_id=instance_id).status) == "ready", ENDED)
        return sdk.get_instance(instance_id=instance_id)

    def sum(self, instance: Instance) -> tuple[int, int]:
        wait_until(self.service.login(instance).answers, ENDED)
        with self.service.connection(instance) as session:
            return tuple(session.execute("SELECT count(*), sum(n) FROM kept").fetchone())

    def check_tidy(self) -> None:
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.left(), 20)
        assert self.left() == []

    def left(self) -> list[str]:
        """What is left, but for the jobs of failed restores: they are known for an hour, so that a
        server that starts again can remove what they could not."""
        query = "SELECT id FROM operations WHERE kind = 'restore_backup' AND status = 'failed'"
        with contextlib.closing(sqlite3.connect(self.service.data_dir / "state.sqlite")) as state:
            failed = {str(UUID(row[0])) for row in state.execute(query)}
        return [one for one in leftovers(self.service) if Path(one).name not in failed]

    def remove(self, path: str) -> None:
        self.request("DELETE", path)
        wait_until(lambda: self.service.request("GET", path).status_code == 404)


@pytest.fixture(scope="module")
def stage(cache: Path, worker_id: str, request: pytest.FixtureRequest) -> Iterator[Stage]:
    place = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
    place.mkdir(mode=0o755)
    disks = {name: place / name for name in ("pool", "objects")}
    try:
        for disk in disks.values():
            disk.mkdir(mode=0o755)
            ext4(disk, SIZE)
        with Service(cache, ports_of_worker(worker_id, 1)) as service:
            pool = service.add_pool("block", "sbs_5k")
            pool.rmdir()
            pool.symlink_to(disks["pool"] / "m")
            for disk in disks.values():
                os.chown(disk / "m", service.home.stat().st_uid, -1)
            objects = disks["objects"] / "m"
            service.environment["OPENRDB_OBJECT_DIRECTORY"] = f"{objects}/{{region}}"
            service.environment["OPENRDB_TRASH"] = "0"
            service.start()
            rounds = 3 if request.config.getoption("--all-faults") else 1
            yield Stage(service, disks["pool"] / "m", objects, rounds)
            service.stop_everything()
    finally:
        for disk in disks.values():
            unmount(disk)
        shutil.rmtree(place)


def filled(stage: Stage, engine: str, **volume: Any) -> Instance:
    """An instance with some dozen MB."""
    instance = stage.service.create(engine, name="filled", **volume)
    with stage.service.connection(instance) as session:
        session.execute("CREATE TABLE kept (n int, content varchar(1000))")
        session.execute("INSERT INTO kept VALUES (1, repeat('x', 1000))")
        for _ in range(14):
            session.execute("INSERT INTO kept SELECT n + 1, content FROM kept")
    return instance


Asked = tuple[str, Callable[[], None]]
"""The path of what is being made, and a check of it once it is ready, which removes it."""


def ask_snapshot(stage: Stage, instance: Instance) -> Asked:
    taken = stage.request("POST", f"/instances/{instance.id}/snapshots", {"name": "one"})
    path, expected = f"/snapshots/{taken['id']}", stage.sum(instance)

    def check() -> None:
        made = stage.request("POST", f"{path}/create-instance", {"instance_name": "copy"})
        copy = stage.working(made["id"])
        assert stage.sum(copy) == expected
        stage.remove(f"/instances/{copy.id}")

    return path, check


def ask_clone(stage: Stage, instance: Instance) -> Asked:
    made = stage.request("POST", f"/instances/{instance.id}/clone", {"name": "clone"})
    return f"/instances/{made['id']}", lambda: same(stage, made["id"], instance)


def same(stage: Stage, made: str, instance: Instance) -> None:
    assert stage.sum(stage.working(made)) == stage.sum(stage.working(instance.id))


def ask_backup(stage: Stage, instance: Instance) -> Asked:
    sent = {"instance_id": instance.id, "database_name": "rdb"}
    path, expected = (
        f"/backups/{stage.request('POST', '/backups', sent)['id']}",
        stage.sum(instance),
    )

    def check() -> None:
        stage.working(instance.id)
        restore = {"instance_id": instance.id, "database_name": "rdb"}
        stage.request("POST", f"{path}/restore", restore)
        assert stage.settled(path) == "ready"
        assert last_error(stage.service, "restore_backup") == ("done", None)
        assert stage.sum(stage.working(instance.id)) == expected

    return path, check


FLOWS = {
    "create_snapshot": ("pool", ask_snapshot),
    "clone_instance": ("pool", ask_clone),
    "create_backup": ("objects", ask_backup),
}


@pytest.mark.copies
@pytest.mark.parametrize("kind", FLOWS)
def test_what_is_made_is_whole_or_fails(stage: Stage, newest: str, kind: str) -> None:
    name, ask = FLOWS[kind]
    disk = stage.pool if name == "pool" else stage.objects
    service, chance = stage.service, random.Random(f"{seed()} {kind}")  # noqa: S311
    instance = filled(stage, newest, **BLOCK)
    before, is_restarted = stage.sum(instance), False
    for number in range(stage.rounds + 2):
        done = finished_count(service, kind)
        path, check = ask(stage, instance)
        after = chance.uniform(0, 0.5) if number < stage.rounds else None
        ended, why = stage.ended(kind, done, disk, after)
        status = stage.settled(path)
        if ended == "done":
            assert status == "ready"
            check()
        else:
            assert (ended, status) == ("failed", "error")
            assert "space" in why.lower() or RESTART in why, why
        assert stage.sum(stage.working(instance.id)) == before
        stage.remove(path)
        if number >= stage.rounds and ended != "done":
            assert RESTART in why, why
            assert not is_restarted
            is_restarted = True
            stage.request("POST", f"/instances/{instance.id}/restart")
            stage.working(instance.id)
    stage.remove(f"/instances/{instance.id}")
    stage.check_tidy()


def test_what_is_restored_is_as_before_or_whole(stage: Stage, newest: str) -> None:
    service, kind = stage.service, "restore_backup"
    chance = random.Random(f"{seed()} {kind}")  # noqa: S311
    instance = filled(stage, newest, **BLOCK)
    path, _ = ask_backup(stage, instance)
    assert stage.settled(path) == "ready"
    at = stage.sum(stage.working(instance.id))
    ended = why = ""
    for number in range(stage.rounds + 1):
        with service.connection(stage.working(instance.id)) as session:
            session.execute("DELETE FROM kept WHERE n > 7")
        before, done = stage.sum(instance), finished_count(service, kind)
        stage.request("POST", f"{path}/restore", {"instance_id": instance.id})
        after = chance.uniform(0, 1.5) if number < stage.rounds else None
        ended, why = stage.ended(kind, done, stage.pool, after)
        assert stage.settled(path) == "ready"
        assert stage.sum(stage.working(instance.id)) == (at if ended == "done" else before)
    assert ended == "done", why
    stage.remove(path)
    stage.remove(f"/instances/{instance.id}")
    stage.check_tidy()


def test_what_is_moved_is_where_it_was_or_there(stage: Stage, newest: str) -> None:
    service, kind = stage.service, "move_volume"
    chance = random.Random(f"{seed()} {kind}")  # noqa: S311
    instance = filled(stage, newest)
    before = stage.sum(instance)
    for number in range(stage.rounds + 1):
        done = finished_count(service, kind)
        path = f"/instances/{instance.id}"
        stage.request("POST", f"{path}/upgrade", {"volume_type": "sbs_5k"})
        after = chance.uniform(0, 0.5) if number < stage.rounds else None
        ended, why = stage.ended(kind, done, stage.pool, after)
        instance = stage.working(instance.id)
        assert instance.volume is not None
        assert instance.volume.type_ == ("sbs_5k" if ended == "done" else "lssd")
        assert stage.sum(instance) == before
        if ended == "done":
            stage.request("POST", f"{path}/upgrade", {"volume_type": "lssd"})
            instance = stage.working(instance.id)
    assert ended == "done", why
    stage.remove(path)
    stage.check_tidy()


def test_what_is_upgraded_serves_as_before_or_is_new(stage: Stage, cache: Path) -> None:
    service, sdk, kind = stage.service, stage.service.sdk(), "upgrade_major_version"
    installed(cache, "PostgreSQL-18")
    chance = random.Random(f"{seed()} {kind}")  # noqa: S311
    instance = filled(stage, installed(cache, "PostgreSQL-16"), **BLOCK)
    before = stage.sum(instance)
    for number in range(stage.rounds + 1):
        done, version = finished_count(service, kind), instance.upgradable_version[-1].id
        sent = {"upgradable_version_id": version}
        made = stage.request("POST", f"/instances/{instance.id}/upgrade", sent)["id"]
        after = chance.uniform(0, 3) if number < stage.rounds else None
        ended, why = stage.ended(kind, done, stage.pool, after)
        if ended == "done":
            assert stage.sum(stage.working(made)) == before
            old, instance = instance, filled(stage, "PostgreSQL-16", **BLOCK)
            stage.remove(f"/instances/{old.id}")
        else:
            assert stage.settled(f"/instances/{made}") == "error"
            assert stage.sum(stage.working(instance.id)) == before
        sdk.delete_instance(instance_id=made)
        wait_until(lambda made=made: gone(sdk, made))
    assert ended == "done", why
    stage.remove(f"/instances/{instance.id}")
    stage.check_tidy()
