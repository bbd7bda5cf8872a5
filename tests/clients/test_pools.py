"""Pools of volumes by the official SDK on real engines: where volumes are made, and moving them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pymysql
import pytest
from scaleway.rdb.v1 import EncryptionAtRest, Instance

from openrdb.host.volumes import trashed_since
from openrdb.system.layout import Layout
from tests.cli.test_undelete import delete, undelete
from tests.support.backups import back_up, restore
from tests.support.held_service import HeldService
from tests.support.high_availability import primary
from tests.support.kinds import finished_count, last_error
from tests.support.leftovers import leftovers
from tests.support.replicas import following, login_of, made
from tests.support.service import creation, ports_of_worker, ready, wait_until
from tests.support.writers import Writers


@dataclass(frozen=True)
class Deployment:
    """A service with a pool for sbs_5k, an encrypted one of it, and one for sbs_15k."""

    service: HeldService

    def homes(self, instance: Instance) -> set[str]:
        """Return the pools that have a volume of an instance's; `default` for the data directory."""
        places = self.service.pools | {"default": self.service.data_dir}
        found = Layout(Path()).instance(UUID(instance.id))
        return {name for name, at in places.items() if [*(at / found).glob("nodes/*/data")]}

    def upgrade(self, instance: Instance, **asked: Any) -> Any:
        answer = self.service.request("POST", f"/instances/{instance.id}/upgrade", json=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def deployment(cache: Path, worker_id: str) -> Iterator[Deployment]:
    with HeldService(cache, ports_of_worker(worker_id, 1)) as service:
        service.add_pool("block", "sbs_5k")
        service.add_pool("safe", "sbs_5k", encrypted=True)
        service.add_pool("fast", "sbs_15k")
        yield Deployment(service)


def fill(deployment: Deployment, instance: Instance, rows: int = 1000) -> None:
    with deployment.service.connection(instance) as session:
        session.execute("CREATE TABLE kept (n integer PRIMARY KEY, t varchar(100))")
        values = ", ".join(f"({n}, 'row {n}')" for n in range(rows))
        session.execute(f"INSERT INTO kept VALUES {values}")


def rows(deployment: Deployment, instance: Instance) -> int:
    with deployment.service.connection(instance) as session:
        return int(session.execute("SELECT count(*) FROM kept").fetchone()[0])


@pytest.mark.copies
def test_made_moved_copied_and_deleted(deployment: Deployment, newest: str) -> None:
    service = deployment.service
    service.start()
    local = service.create(newest, name="local")
    block = service.create(newest, name="block", volume_type="sbs_5k")
    safe = service.create(
        newest, name="safe", volume_type="sbs_5k", encryption=EncryptionAtRest(enabled=True)
    )
    assert [deployment.homes(one) for one in (local, block, safe)] == [
        {"default"},
        {"block"},
        {"safe"},
    ]
    for one in (local, block, safe):
        fill(deployment, one)

    shown = deployment.upgrade(local, volume_type="sbs_15k")
    assert shown["status"] == "initializing"
    assert shown["volume"] == {"type": "sbs_15k", "class": "sbs", "size": 5 * 10**9}
    local = ready(service.sdk(), local.id)
    assert deployment.homes(local) == {"fast"}
    assert rows(deployment, local) == 1000
    # Its node type's local volume is as large: there and back.
    for volume_type, home in (("lssd", "default"), ("sbs_15k", "fast")):
        shown = deployment.upgrade(local, volume_type=volume_type)
        assert shown["volume"]["type"] == volume_type
        local = ready(service.sdk(), local.id)
        assert deployment.homes(local) == {home}
        assert rows(deployment, local) == 1000
    # No pool of sbs_15k is encrypted, and one of sbs_5k is.
    asked = {"enable_encryption": True}
    refused = service.request("POST", f"/instances/{local.id}/upgrade", json=asked)
    assert (refused.status_code, refused.json()["precondition"]) == (412, "encrypted_volumes")
    assert "pools.fast.encrypted" in refused.json()["help_message"]
    assert deployment.upgrade(block, **asked)["encryption"] == {"enabled": True}
    block = ready(service.sdk(), block.id)
    assert last_error(service, "move_volume") == ("done", None)
    assert deployment.homes(block) == {"safe"}
    assert rows(deployment, block) == 1000

    # A snapshot stays in the pool that it was made in; what is made of it is in its type's.
    taken = service.request("POST", f"/instances/{safe.id}/snapshots", json={"name": "s."}).json()
    path = f"/snapshots/{taken['id']}"
    wait_until(lambda: service.request("GET", path).json()["status"] == "ready")
    assert (service.pools["safe"] / "snapshots" / taken["id"] / "data").is_dir()
    sent = {"instance_name": "copy"}
    made = service.request("POST", f"{path}/create-instance", json=sent).json()
    copy = ready(service.sdk(), made["id"])
    assert deployment.homes(copy) == {"safe"}
    assert rows(deployment, copy) == 1000
    assert service.request("DELETE", path).status_code == 200
    wait_until(lambda: service.request("GET", path).status_code == 404)
    assert not [*service.pools["safe"].glob("snapshots/*")]

    for one in (local, block, safe, copy):
        delete(service, one.id)
        wait_until(lambda one=one: not service.processes(one.id))
        assert deployment.homes(one) == set()
    assert trashed_since(service.data_dir).keys() == {
        UUID(one.id) for one in (local, block, safe, copy)
    }
    undelete(service, "local")
    wait_until(lambda: service.request("GET", f"/instances/{local.id}").status_code == 200)
    local = ready(service.sdk(), local.id)
    assert deployment.homes(local) == {"fast"}
    assert rows(deployment, local) == 1000
    wait_until(lambda: not leftovers(service))


def test_a_backup_of_what_is_in_another_pool(deployment: Deployment, newest: str) -> None:
    service = deployment.service
    service.start()
    instance = service.create(newest, name="block", volume_type="sbs_5k")
    fill(deployment, instance)
    assert deployment.homes(instance) == {"block"}
    backup = back_up(service.sdk(), instance, "rdb")
    with service.connection(ready(service.sdk(), instance.id)) as session:
        session.execute("DELETE FROM kept")
    assert restore(service.sdk(), backup, instance).status == "ready"
    assert rows(deployment, instance) == 1000


def test_a_writer_loses_nothing_while_its_volume_moves(deployment: Deployment, newest: str) -> None:
    """What was acknowledged is there, whoever is killed at whichever moment."""
    service = deployment.service
    service.start()
    instance = service.create(newest, name="writes", volume_type="sbs_5k")
    fill(deployment, instance, 1)
    ended, acknowledged, longest = threading.Event(), [0], [0.0]

    def write() -> None:
        last = time.monotonic()
        while not ended.is_set():
            with (
                suppress(psycopg.Error, pymysql.MySQLError),
                service.connection(instance) as session,
            ):
                while not ended.is_set():
                    number = acknowledged[0] + 1
                    session.execute(
                        f"INSERT INTO kept VALUES ({number}, 'x')"
                        if newest.startswith("MySQL")
                        else f"INSERT INTO kept VALUES ({number}, 'x') ON CONFLICT DO NOTHING"
                    )
                    acknowledged[0] = number
                    longest[0] = max(longest[0], time.monotonic() - last)
                    last = time.monotonic()

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: acknowledged[0] > 100)
    deployment.upgrade(instance, volume_type="sbs_15k")
    ready(service.sdk(), instance.id)
    assert last_error(service, "move_volume") == ("done", None)
    so_far = acknowledged[0]
    wait_until(lambda: acknowledged[0] > so_far + 10)
    ended.set()
    writer.join()
    assert deployment.homes(instance) == {"fast"}
    assert rows(deployment, instance) >= acknowledged[0] + 1
    print(f"longest pause {longest[0]:.2f} s")


def test_a_pool_that_is_missing_at_the_start(deployment: Deployment) -> None:
    """It is said in words, its instance waits for it untouched, and everything else works."""
    service = deployment.service
    service.start()
    there = service.create(name="there")
    away = service.create(name="away", volume_type="sbs_15k")
    waiting = service.create(name="waiting", volume_type="sbs_15k")
    fill(deployment, away)
    service.stop_everything()
    (service.home / "fast").rename(service.home / "unmounted")
    (service.home / "fast").mkdir(mode=0o755)  # what it was mounted on
    os.chown(service.home / "fast", service.home.stat().st_uid, -1)
    said = service.run("doctor", "--data-dir", str(service.data_dir)).stdout
    assert "pool fast is missing" in said
    assert "mount its file system" in " ".join(said.split())
    service.start()
    with service.connection(ready(service.sdk(), there.id)) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    path = f"/instances/{there.id}/upgrade"
    refused = service.request("POST", path, json={"volume_type": "sbs_15k"})
    assert refused.status_code == 412
    refused = service.request(
        "POST", "/instances", json=creation(name="new", volume_type="sbs_15k")
    )
    assert refused.status_code == 412
    path = f"/instances/{away.id}"
    service.request("DELETE", path)
    wait_until(lambda: finished_count(service, "delete_instance") == 1)
    status, why = last_error(service, "delete_instance")
    assert status == "failed"
    assert "pool fast is missing" in str(why)
    assert not list((service.home / "fast").iterdir())
    assert "pool fast is missing" in (service.data_dir / "run/agent.log").read_text()

    (service.home / "fast").rmdir()
    (service.home / "unmounted").rename(service.home / "fast")
    wait_until(service.login(waiting).answers)
    assert service.request("POST", f"{path}/restart").status_code == 200
    assert rows(deployment, ready(service.sdk(), away.id)) == 1000
    assert deployment.homes(away) == {"fast"}


def test_a_pool_that_is_no_longer_configured(deployment: Deployment) -> None:
    """What is in it runs on, can be copied and moved; nothing new is made in it."""
    service = deployment.service
    service.start()
    old = service.create(name="old", volume_type="sbs_15k")
    fill(deployment, old)
    service.kill()
    told = json.loads(service.environment["OPENRDB_POOLS"])
    del told["fast"]
    service.environment["OPENRDB_POOLS"] = json.dumps(told)
    service.start()
    new = service.create(name="new", volume_type="sbs_15k")
    assert deployment.homes(new) == {"default"}
    assert rows(deployment, old) == 1000
    made = service.request("POST", f"/instances/{old.id}/clone", json={"name": "copy"}).json()
    copy = ready(service.sdk(), made["id"])
    assert deployment.homes(copy) == {"default"}
    assert rows(deployment, copy) == 1000
    deployment.upgrade(ready(service.sdk(), old.id), volume_type="sbs_5k")
    old = ready(service.sdk(), old.id)
    assert last_error(service, "move_volume") == ("done", None)
    assert deployment.homes(old) == {"block"}
    assert rows(deployment, old) == 1000
    wait_until(lambda: not leftovers(service))


def test_a_pair_is_moved(deployment: Deployment, newest: str) -> None:
    service = deployment.service
    service.start()
    sdk = service.sdk()
    instance = service.create(newest, is_ha_cluster=True, volume_type="sbs_5k")
    with Writers(service.login(instance)) as writers:
        writers.wait_for(20)
        deployment.upgrade(instance, volume_type="sbs_15k")
        ready(sdk, instance.id)
        writers.wait_for(20)
    primary(service, instance)
    assert writers.lost() == []
    assert deployment.homes(instance) == {"fast"}


@pytest.mark.copies
def test_replicas_are_made_again_in_another_pool(deployment: Deployment, newest: str) -> None:
    service = deployment.service
    service.start()
    instance = service.create(newest, name="replicated", volume_type="sbs_5k")
    fill(deployment, instance)
    replica = made(service, instance)
    assert deployment.homes(instance) == {"block"}
    for asked, home in (
        ({"volume_type": "sbs_15k"}, "fast"),
        ({"volume_size": 10 * 10**9}, "fast"),
        ({"node_type": "db-dev-m"}, "fast"),
    ):
        deployment.upgrade(instance, **asked)
        ready(service.sdk(), instance.id)
        wait_until(lambda home=home: deployment.homes(instance) == {home})
        assert following(service, replica.id).endpoints == replica.endpoints
        with login_of(service, instance, replica).connect() as session:
            assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    wait_until(lambda: not leftovers(service))
