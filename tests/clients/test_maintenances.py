"""Maintenances by the official SDK on real engines: newer binaries of instances at work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import Instance, Maintenance

from openrdb.state.models import now
from tests.support.high_availability import nodes, primary, printed
from tests.support.minors import Minors
from tests.support.service import Service, installed, ports_of_worker, ready, wait_until
from tests.support.writers import Writers

OLD, BROKEN = "PostgreSQL-18", "PostgreSQL-17"
MYSQL = "MySQL-9"


class Maintained(NamedTuple):
    """Instances that run older binaries than are installed, one a test."""

    service: Service
    minors: Minors
    instances: dict[str, Instance]

    def last(self, name: str) -> Maintenance:
        """Return an instance's newest maintenance."""
        instance = self.service.sdk().get_instance(instance_id=self.instances[name].id)
        found: Maintenance = instance.maintenances[-1]
        return found

    def runs_newest(self, name: str) -> bool:
        """Return whether all of an instance's nodes run the newer binaries."""
        instance = self.instances[name]
        newest = str(self.minors.place / self.minors.newest[str(instance.engine)].name)
        return all(
            self.service.processes(newest, node.name) for node in nodes(self.service, instance)
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        printed = self.told("events", self.instances[name].id, "--json")
        found: list[dict[str, Any]] = json.loads(printed)
        return found

    def listed(self, *options: str) -> dict[str, dict[str, Any]]:
        """Return what the operator sees of maintenances, by the instances' names."""
        found = json.loads(self.told("maintenance", "list", "--json", *options))
        return {one["instance_name"]: one for one in found}

    def told(self, *command: str) -> str:
        done = self.service.run(*command, "--data-dir", str(self.service.data_dir))
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def there(cache: Path, worker_id: str) -> Iterator[Maintained]:
    engines = {
        "applied": installed(cache, OLD),
        "upgraded": OLD,
        "pair": OLD,
        "broken": installed(cache, BROKEN),
        "mysql": installed(cache, MYSQL),
    }
    with Service(cache, ports_of_worker(worker_id, 1)) as service:
        minors = Minors(service, cache)
        service.start()
        forced = service.create(OLD, name="forced")
        write_as_with_others(service, forced)
        with ThreadPoolExecutor(2) as pool:
            made = {
                name: pool.submit(service.create, engine, name=name, is_ha_cluster=name == "pair")
                for name, engine in engines.items()
            }
        instances = {name: one.result() for name, one in made.items()} | {"forced": forced}
        sdk = service.sdk()
        assert sdk.list_instances(has_maintenances=True).instances == []
        minors.install(OLD)
        minors.install(MYSQL)
        minors.install_broken(BROKEN)
        wait_until(lambda: sdk.list_instances(has_maintenances=True).total_count == len(instances))
        yield Maintained(service, minors, instances)


def write_as_with_others(service: Service, instance: Instance) -> None:
    """Let an instance's data be known as written with collations of another version."""
    (record,) = (node / "node.json" for node in nodes(service, instance))
    wait_until(lambda: json.loads(record.read_text())["data_versions"] is not None)
    service.kill_everything()
    kept = json.loads(record.read_text())
    kept["data_versions"]["collations of icu"] = "1.0"
    record.write_text(json.dumps(kept))
    service.start()


@pytest.mark.parametrize("name", ["applied", "mysql"])
def test_a_user_applies_it(there: Maintained, name: str) -> None:
    service, sdk = there.service, there.service.sdk()
    instance = sdk.get_instance(instance_id=there.instances[name].id)
    (pending,) = instance.maintenances
    (offered,) = instance.upgradable_version
    assert (pending.status, pending.is_applicable, pending.closed_at) == ("pending", True, None)
    assert f" {offered.minor_version} replaces " in pending.reason
    assert pending.starts_at <= now()
    assert timedelta(days=7) <= pending.forced_at - pending.starts_at <= timedelta(days=8)
    assert pending.stops_at - pending.forced_at == timedelta(hours=4)
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    assert not there.runs_newest(name)

    answer = sdk.apply_instance_maintenance(instance_id=instance.id)
    assert (answer.status, answer.is_applicable) == ("ongoing", False)
    assert answer.reason == pending.reason
    upgraded = ready(sdk, instance.id)
    (done,) = upgraded.maintenances
    assert (done.status, done.is_applicable) == ("done", False)
    assert answer.starts_at <= done.closed_at <= now()
    assert (done.starts_at, done.forced_at) == (pending.starts_at, pending.forced_at)
    assert (upgraded.upgradable_version, upgraded.endpoints) == ([], instance.endpoints)
    assert there.runs_newest(name)
    with service.connection(upgraded) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    # A client that has not heard of it asks again: nothing is done twice.
    assert sdk.apply_instance_maintenance(instance_id=instance.id) == done
    assert sdk.get_instance(instance_id=instance.id).status == "ready"
    assert name not in there.listed()


def test_a_pair_switches_over(there: Maintained) -> None:
    """And no acknowledged row is lost."""
    service, instance = there.service, there.instances["pair"]
    before = primary(service, instance)
    with Writers(service.login(instance)) as writers:
        writers.wait_for(20)
        service.sdk().apply_instance_maintenance(instance_id=instance.id)
        ready(service.sdk(), instance.id)
        writers.wait_for(20)
    wait_until(lambda: printed(service, instance)["nodes"][0]["id"] != before)
    assert primary(service, instance) != before
    assert writers.lost() == []
    assert there.last("pair").status == "done"
    assert there.runs_newest("pair")


def test_its_time_has_come(there: Maintained) -> None:
    """The operator moves its window; what has changed under the data is told."""
    later = (now() + timedelta(days=30)).isoformat()
    there.told("maintenance", "schedule", "forced", "--at", later)
    assert there.last("forced").forced_at.isoformat() == later
    assert there.last("forced").status == "pending"
    there.told("maintenance", "schedule", "forced", "--at", "now")
    wait_until(lambda: there.last("forced").status == "done")
    assert there.runs_newest("forced")
    ended = [one for one in there.events("forced") if one["action"] == "apply_maintenance"]
    assert [one["outcome"] for one in ended] == ["scheduled", "done"]
    assert "collations of icu from 1.0" in ended[-1]["reason"]
    assert "REINDEX" in ended[-1]["reason"]


def refused(call: Callable[[], object], word: str) -> None:
    with pytest.raises(ScalewayException, match=word) as error:
        call()
    assert error.value.status_code == 412


def test_the_users_own_upgrade_ends_it(there: Maintained) -> None:
    sdk, instance = there.service.sdk(), there.instances["upgraded"]
    (offered,) = sdk.get_instance(instance_id=instance.id).upgradable_version
    sdk.upgrade_instance(instance_id=instance.id, upgradable_version_id=offered.id)
    ready(sdk, instance.id)
    assert there.last("upgraded").status == "done"


def test_binaries_that_do_not_start(there: Maintained) -> None:
    """The instance serves with those that it had, and they are not tried again."""
    sdk, instance = there.service.sdk(), there.instances["broken"]
    sdk.apply_instance_maintenance(instance_id=instance.id)
    kept = ready(sdk, instance.id)
    (canceled,) = kept.maintenances
    assert (canceled.status, canceled.is_applicable) == ("canceled", False)
    assert canceled.closed_at is not None
    assert not there.runs_newest("broken")
    with there.service.connection(kept) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    refused(lambda: sdk.apply_instance_maintenance(instance_id=instance.id), "no pending")
    assert there.last("broken") == canceled
    assert "broken" in there.listed("--all")["broken"]["refusal"]
