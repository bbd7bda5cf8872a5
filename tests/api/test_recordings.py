"""Recorded flows of the official clients, replayed: same statuses, same shapes, same values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.support.minors import Minors
from tests.support.recorded import FLOWS, RECORDINGS, needs_mysql
from tests.support.replay import replay
from tests.support.service import Service, ports_of_worker, ready, wait_until

ENCRYPTED = [
    "terraform/instance-encryption-at-rest",
    "terraform/instance-update-encryption-at-rest",
]
"""Flows that need volumes on an encrypted device."""

FILLING = "terraform/instance-change-node-type-lssd-disk-full"
"""Fills a volume: 5 GB, which would be memory."""

MAINTAINED = "terraform/action-rdb-instance-apply-maintenance-basic"
"""Begins with an instance whose maintenance is done."""

MYSQL = [name for name, steps in FLOWS.items() if needs_mysql(steps)]
LISTED = (RECORDINGS / "README.md").read_text()


@pytest.mark.parametrize("scenario", sorted({*FLOWS} - {*ENCRYPTED, *MYSQL, FILLING, MAINTAINED}))
def test_flow(service: Service, scenario: str) -> None:
    replay(service, scenario)


def test_a_flow_that_fills_a_volume(on_disk: None, fresh_service: Service) -> None:
    del on_disk
    fresh_service.start()
    replay(fresh_service, FILLING)


def test_a_flow_that_applies_a_maintenance(fresh_service: Service, cache: Path) -> None:
    minors = Minors(fresh_service, cache)
    fresh_service.start()
    recorded = FLOWS[MAINTAINED][0]["response"]
    wanted = {key: recorded[key] for key in ("engine", "name", "node_type", "tags")}
    instance = fresh_service.create(**wanted, disable_backup=False)
    minors.install(instance.engine)
    sdk = fresh_service.sdk()
    wait_until(lambda: sdk.get_instance(instance_id=instance.id).maintenances)
    sdk.apply_instance_maintenance(instance_id=instance.id)
    ready(sdk, instance.id)
    replay(fresh_service, MAINTAINED, {recorded["id"]: instance.id})


@pytest.fixture(scope="module")
def encrypted_service(cache: Path, worker_id: str) -> Iterator[Service]:
    """A deployment whose operator says that its volumes are on an encrypted device."""
    with Service(cache, ports_of_worker(worker_id, 1)) as running:
        running.environment["OPENRDB_VOLUMES_ENCRYPTED"] = "true"
        running.start()
        yield running


def test_encrypted_flows(encrypted_service: Service) -> None:
    for scenario in ENCRYPTED:
        replay(encrypted_service, scenario)


@pytest.fixture(scope="module", params=["MySQL-8", "MySQL-9"])
def mysql_service(cache: Path, worker_id: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A deployment whose clients get `params` where they ask for MySQL 8."""
    if request.param not in Bundles(cache).installed():
        pytest.skip(f"{request.param} is not installed")
    with Service(cache, ports_of_worker(worker_id, 1)) as running:
        if request.param != "MySQL-8":
            running.environment["OPENRDB_ENGINE_ALIASES"] = json.dumps({"MySQL-8": request.param})
        running.start()
        yield running


def test_mysql_flows(mysql_service: Service) -> None:
    for scenario in MYSQL:
        replay(mysql_service, scenario)


def test_the_readme_says_how_many_flows_there_are() -> None:
    assert f"{len(FLOWS)} scenarios" in LISTED


def test_the_recordings_are_what_the_replay_takes_them_for() -> None:
    """What they say of themselves: a new recording that says otherwise needs a new look."""
    assert set(FLOWS) > set(ENCRYPTED)
    instants = 0
    for steps in FLOWS.values():
        for step in steps:
            if step["method"] != "POST" or not step["path"].endswith("/instances"):
                continue
            created = step["response"]
            assert created["status"] == "provisioning"
            due = created["backup_schedule"]["next_run_at"]
            if due is not None:
                made = datetime.fromisoformat(created["created_at"])
                assert datetime.fromisoformat(due) - made == timedelta(hours=24)
                instants += 1
    assert instants
