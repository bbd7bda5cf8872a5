"""`openrdb state`: back up a served control plane's state, and restore it next to data of its hosts,
whose records are newer."""

from __future__ import annotations

import json
import shutil
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from scaleway.rdb.v1 import Instance

from tests.support.high_availability import kill_primary, primary
from tests.support.service import PASSWORD, Service, creation, gone, installed, ready, wait_until

HOSTS_OWN = {"instances", "templates", "trash"}
"""What of a data directory is the host's, not the state's."""


def done(service: Service, *arguments: str) -> Any:
    """Return what a command prints as JSON."""
    found = service.run(*arguments, "--data-dir", str(service.data_dir), "--json")
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def lose_state(service: Service) -> None:
    """Remove all of a stopped service's data directory but what is the host's."""
    for path in service.data_dir.iterdir():
        if path.name in HOSTS_OWN:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def remember(service: Service, instance: Instance, text: str) -> None:
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept (text VARCHAR(20))")
        session.execute(f"INSERT INTO kept VALUES ('{text}')")


def remembered(service: Service, instance: Instance) -> str:
    with service.connection(instance) as session:
        return str(session.execute("SELECT text FROM kept").fetchone()[0])


def rules(service: Service, instance: Instance) -> list[str]:
    listed = service.sdk().list_instance_acl_rules_all(instance_id=instance.id)
    return [rule.ip for rule in listed]


def generations(service: Service, instance: Instance) -> list[int]:
    """Return what the host was told of each of an instance's nodes and endpoints."""
    place = service.data_dir / "instances" / instance.id
    nodes = [json.loads(path.read_text())["spec"] for path in place.glob("nodes/*/node.json")]
    routes = [json.loads(path.read_text())["route"] for path in place.glob("routes/*.json")]
    assert nodes
    assert routes
    return [one["generation"] for one in nodes + routes]


@pytest.mark.timeout(600)
def test_restored_beside_newer_instances(fresh_service: Service, cache: Path) -> None:
    service, saved = fresh_service, fresh_service.home / "saved"
    service.start()
    api = service.sdk()
    engines = [installed(cache, one) for one in ("PostgreSQL-18", "MySQL-9")]
    made = [api.create_instance(**creation(one, name=one)) for one in engines]
    kept = [ready(api, one.id) for one in made]
    doomed = service.create(engines[0], name="doomed")
    replica = api.create_read_replica(instance_id=doomed.id)
    wait_until(lambda: api.get_read_replica(read_replica_id=replica.id).status == "ready")
    remember(service, doomed, doomed.name)
    for instance in kept:
        remember(service, instance, instance.name)

    assert done(service, "state", "backup", str(saved))["instances"] == 3
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600

    # What happens after a backup, and a restored state knows nothing of.
    changed = kept[0]
    before = rules(service, changed)
    for ip in ("192.0.2.1", "192.0.2.2"):  # each raises the generation
        service.request(
            "POST", f"/instances/{changed.id}/acls", json={"rules": [{"ip": ip}]}
        ).raise_for_status()
        ready(api, changed.id)
    api.delete_instance(instance_id=doomed.id)
    wait_until(lambda: gone(api, doomed.id))
    stranger = service.create(engines[0], name="stranger")
    remember(service, stranger, "mine")
    known = max(generations(service, changed))
    secret = service.secret_key
    there = service.login(stranger)

    service.stop_everything()
    lose_state(service)
    assert done(service, "state", "restore", str(saved))["interrupted"] == 0
    told = service.home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(told))
        told.chmod(0o777)
        service.environment["NOTIFY_SOCKET"] = str(told)
        service.start()
        assert manager.recv(100) == b"READY=1"
    assert service.secret_key == secret

    api = service.sdk()
    for instance in kept:
        assert ready(api, instance.id).status == "ready"
        assert remembered(service, instance) == instance.name
        api.create_user(instance_id=instance.id, name="after", password=PASSWORD, is_admin=False)
        assert "after" in [one.name for one in api.list_users_all(instance_id=instance.id)]
    # The host is brought to the restored state, though it knew a later one.
    assert rules(service, changed) == before
    assert min(generations(service, changed)) > known
    assert "192.0.2.1" not in str(
        [path.read_text() for path in (service.data_dir / "instances").glob("*/routes/*.json")]
    )

    listed = {one["name"]: one for one in done(service, "list")}
    assert listed.keys() == {*engines, "doomed"}
    assert listed["doomed"]["status"] == "error"
    assert "deleted after the state was saved" in listed["doomed"]["reason"]
    # Its data comes out of the trash; its replica's is never there, and it can be removed.
    api.restart_instance(instance_id=doomed.id)
    assert remembered(service, ready(api, doomed.id)) == doomed.name
    assert api.get_read_replica(read_replica_id=replica.id).status == "error"
    api.delete_read_replica(read_replica_id=replica.id)
    wait_until(lambda: not ready(api, doomed.id).read_replicas)
    api.delete_instance(instance_id=doomed.id)
    wait_until(lambda: gone(api, doomed.id))

    # The stranger is told of, and serves its users.
    assert stranger.id in str(done(service, "status")["strangers"])
    with there.connect() as session:
        assert session.execute("SELECT text FROM kept").fetchone() == ("mine",)


@pytest.mark.timeout(600)
def test_restored_beside_what_was_promoted_since(fresh_service: Service, cache: Path) -> None:
    """A pair whose primary has changed, an instance that has become a pair whose first node is gone,
    and a replica that has become an instance: each serves its newest data."""
    service, saved = fresh_service, fresh_service.home / "saved"
    service.start()
    api = service.sdk()
    engine = installed(cache, "PostgreSQL-18")
    pair = service.create(engine, name="pair", is_ha_cluster=True)
    single = service.create(engine, name="single")
    parent = service.create(engine, name="parent")
    replica = api.create_read_replica(instance_id=parent.id)
    wait_until(lambda: api.get_read_replica(read_replica_id=replica.id).status == "ready")
    done(service, "state", "backup", str(saved))

    api.upgrade_instance(instance_id=single.id, enable_ha=True)
    firsts = [(one, kill_primary(service, one)) for one in (pair, single)]
    promoted = ready(api, api.promote_read_replica(read_replica_id=replica.id).id)
    for instance in (pair, single, parent, promoted):
        remember(service, instance, instance.name)
    there = service.login(promoted)

    service.stop_everything()
    lose_state(service)
    done(service, "state", "restore", str(saved))
    service.start()

    api = service.sdk()
    for instance in (pair, single, parent):
        assert ready(api, instance.id).status == "ready"
        assert remembered(service, instance) == instance.name
    for instance, first in firsts:  # the newest data is where it was, and goes over once more
        assert primary(service, instance) != first
        api.restart_instance(instance_id=instance.id)
        assert primary(service, instance) == first
        assert remembered(service, instance) == instance.name
    assert replica.id in str(done(service, "status", parent.id)["read_replicas"])
    with there.connect() as session:
        assert session.execute("SELECT text FROM kept").fetchone() == (promoted.name,)
