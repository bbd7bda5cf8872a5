"""What the state says of nodes is what they are: the bundle, the state, the reason."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import InstanceStatus

from openrdb.host.bundles.cache import Bundles
from tests.support.programs import holder
from tests.support.service import Service, gone, ready, wait_until


def node(service: Service, instance_id: str) -> dict[str, Any]:
    """Return the row of an instance's only node."""
    with sqlite3.connect(f"file:{service.data_dir / 'state.sqlite'}?mode=ro", uri=True) as state:
        state.row_factory = sqlite3.Row
        query = "SELECT * FROM nodes WHERE instance_id = ?"
        return dict(state.execute(query, [instance_id.replace("-", "")]).fetchone())


def test_a_node_remembers_its_bundle_and_says_its_state(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    instance = service.create()
    wait_until(lambda: node(service, instance.id)["observed_state"] == "running")
    found = node(service, instance.id)
    assert re.match(rf"postgresql-{re.escape(found['version'])}\b", found["bundle"])
    assert found["observed_role"] == "primary"
    record = next((service.data_dir / "instances" / instance.id).glob("nodes/*/node.json"))
    assert json.loads(record.read_text())["bundle"] == found["bundle"]
    assert record.stat().st_mode & 0o077 == 0
    wait_until(lambda: json.loads(record.read_text())["data_versions"] is not None)
    # What cannot start says why, and it is the node's own, whatever the instance's status.
    control = next((service.data_dir / "instances" / instance.id).glob("nodes/*/data/global"))
    (control / "pg_control").rename(control / "pg_control.away")
    pid = holder(service, instance.id, "node")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "pg_control" in (node(service, instance.id)["observed_reason"] or ""))
    assert node(service, instance.id)["observed_state"] == "failed"
    service.environment["COLUMNS"] = "500"
    told = service.run("doctor", "--data-dir", str(service.data_dir)).stdout
    assert instance.id in told
    assert "pg_control" in told
    (control / "pg_control.away").rename(control / "pg_control")
    wait_until(lambda: node(service, instance.id)["observed_state"] == "running")
    assert node(service, instance.id)["observed_reason"] is None
    wait_until(service.login(instance).answers)


def test_a_pair_that_cannot_be_read_harms_nobody_else(fresh_service: Service) -> None:
    """It is told, and can be deleted."""
    service = fresh_service
    service.start()
    single = service.create(name="single")
    pair = service.create(name="pair", is_ha_cluster=True)
    service.kill_everything()
    record = service.data_dir / "instances" / pair.id / "pair.json"
    record.write_text("damaged")
    service.start()
    wait_until(service.login(single).answers)
    sdk = service.sdk()
    wait_until(lambda: sdk.get_instance(instance_id=pair.id).status == InstanceStatus.AUTOHEALING)
    service.environment["COLUMNS"] = "500"
    told = service.run("status", "pair", "--data-dir", str(service.data_dir)).stdout
    assert "pair.json is damaged" in told
    assert not service.login(pair).answers()
    with pytest.raises(ScalewayException) as refused:
        sdk.create_database(instance_id=pair.id, name="late")
    assert refused.value.status_code == 409
    sdk.delete_instance(instance_id=pair.id)
    wait_until(lambda: gone(service.sdk(), pair.id))
    wait_until(lambda: not service.processes(pair.id))


def test_changed_versions_of_what_data_depends_on_are_said(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    instance = service.create()
    record = next((service.data_dir / "instances" / instance.id).glob("nodes/*/node.json"))
    wait_until(lambda: json.loads(record.read_text())["data_versions"] is not None)
    service.kill_everything()
    kept = json.loads(record.read_text())
    kept["data_versions"]["time zones"] = "1999a"
    record.write_text(json.dumps(kept))
    service.start()
    wait_until(lambda: "1999a" in (node(service, instance.id)["observed_reason"] or ""))
    assert "REINDEX" not in node(service, instance.id)["observed_reason"]


def test_a_newer_bundle_waits_for_a_maintenance(fresh_service: Service) -> None:
    """A start takes the node's own bundle, not the newest; the next instance gets the newest."""
    service = fresh_service
    cache = Path(service.environment["OPENRDB_CACHE"])
    own = service.home / "cache"
    subprocess.run(["cp", "-a", "--reflink=auto", str(cache), str(own)], check=True)
    bundle = Bundles(own).find("PostgreSQL-17")
    present = bundle.path
    service.environment["OPENRDB_CACHE"] = str(own)
    service.start()
    instance = service.create()
    service.kill()
    newer = present.with_name(bundle.name.replace(bundle.version, "17.99", 1))
    subprocess.run(["cp", "-a", str(present), str(newer)], check=True)
    service.start()
    service.sdk().restart_instance(instance_id=instance.id)
    ready(service.sdk(), instance.id)
    assert service.processes(instance.id, f"/{present.name}/", "/postgres ")
    assert node(service, instance.id)["bundle"] == present.name
    other = service.create(name="other")
    assert service.processes(other.id, f"/{newer.name}/", "/postgres ")
    wait_until(lambda: node(service, other.id)["version"] == "17.99")
    assert node(service, instance.id)["version"] != "17.99"


def test_a_node_that_should_be_stopped_is_left_alone(fresh_service: Service) -> None:
    """As a standby that an operation stopped is: neither a start of the agent nor a round starts it."""
    service = fresh_service
    service.start()
    stopped, running = service.create(), service.create(name="other")
    service.kill_everything()
    record = next((service.data_dir / "instances" / stopped.id).glob("nodes/*/node.json"))
    kept = json.loads(record.read_text())
    record.write_text(json.dumps(kept | {"desired": "stopped"}))
    service.start()
    wait_until(service.login(running).answers)
    wait_until(lambda: node(service, stopped.id)["observed_state"] == "stopped")
    assert not service.processes(stopped.id, "postgres")
