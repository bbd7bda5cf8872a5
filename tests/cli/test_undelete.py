"""Deleted instances: gone for clients at once, and brought back by their operator as they were."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from openrdb.host.volumes import trashed_since
from tests.cli.test_commands import one_line
from tests.support.held_service import HeldService
from tests.support.programs import holder
from tests.support.scenes import NETWORKS
from tests.support.service import (
    PASSWORD,
    Service,
    creation,
    gone,
    ports_of_worker,
    ready,
    wait_until,
)

BACK = 60.0


def undelete(service: Service, *arguments: str) -> Any:
    done = service.run("undelete", *arguments, "--data-dir", str(service.data_dir), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def delete(service: Service, instance_id: str) -> float:
    """Delete an instance; return the seconds until its GET, asked once, says that it is gone."""
    began = time.monotonic()
    deleting = service.request("DELETE", f"/instances/{instance_id}")
    assert (deleting.status_code, deleting.json()["status"]) == (200, "deleting")
    answer = service.request("GET", f"/instances/{instance_id}")
    assert answer.status_code == 404, "a client that polls would have to come again"
    return time.monotonic() - began


def test_deleted_and_brought_back(fresh_service: Service, newest: str) -> None:
    """With what was committed the moment before, users, rules, settings, certificate, addresses."""
    service = fresh_service
    service.start()
    network = service.request("POST", NETWORKS, json={"name": "net"}).json()["id"]
    private = {"private_network": {"private_network_id": network, "ipam_config": {}}}
    endpoints = {"init_endpoints": [{"load_balancer": {}}, private]}
    sent = creation(newest, name="kept", tags=["b", "a"], **endpoints)
    created = service.request("POST", "/instances", json=sent).json()
    instance = ready(service.sdk(), created["id"])
    path = f"/instances/{instance.id}"
    user = {"name": "bob", "password": PASSWORD, "is_admin": False}
    assert service.request("POST", f"{path}/users", json=user).status_code == 200
    wanted = {"name": "max_connections", "value": "77"}
    service.request("PUT", f"{path}/settings", json={"settings": [wanted]})
    ready(service.sdk(), instance.id)
    service.request("PUT", f"{path}/acls", json={"rules": [{"ip": "127.0.0.0/8"}]})
    instance = ready(service.sdk(), instance.id)
    before = service.request("GET", path).json()
    certificate = service.certificate(instance).read_text()
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
        delete(service, instance.id)
    wait_until(lambda: service.processes(instance.id) == [])
    assert list((service.data_dir / "instances").iterdir()) == []
    (listed,) = undelete(service)
    assert (listed["name"], listed["id"], listed["engine"]) == ("kept", instance.id, newest)
    assert listed["deleted_at"] < listed["kept_until"]

    (begun,) = undelete(service, "kept")
    assert begun == listed
    wait_until(lambda: service.request("GET", path).status_code == 200)
    back = ready(service.sdk(), instance.id)
    assert service.request("GET", path).json() == before
    assert service.certificate(back).read_text() == certificate
    rules = service.request("GET", f"{path}/acls").json()["rules"]
    assert [rule["ip"] for rule in rules] == ["127.0.0.0/8"]
    with service.connection(back) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    for endpoint in back.endpoints:
        back.endpoints = [endpoint]
        assert service.login(back, "bob").answers() or service.login(back).answers()
    assert undelete(service) == []
    users = service.request("GET", f"{path}/users").json()["users"]
    assert {one["name"] for one in users} >= {"admin", "bob"}
    one_line(
        service.run("undelete", "kept", "--data-dir", str(service.data_dir)),
        "no deleted instance kept",
    )
    service.request("POST", f"{path}/restart")
    ready(service.sdk(), instance.id)
    delete(service, instance.id)
    assert [one["id"] for one in undelete(service)] == [instance.id]


def test_what_another_has_taken_since(fresh_service: Service) -> None:
    """Ports, network and name may be others' by then; a stopped service starts it later."""
    service = fresh_service
    first, *_ = json.loads(service.environment["OPENRDB_ENDPOINT_PORTS"])
    service.environment["OPENRDB_ENDPOINT_PORTS"] = f"[{first},{first + 1}]"
    service.start()
    network = service.request("POST", NETWORKS, json={}).json()["id"]
    private = {"private_network": {"private_network_id": network, "ipam_config": {}}}
    sent = creation(name="one", init_endpoints=[{"load_balancer": {}}, private])
    created = service.request("POST", "/instances", json=sent).json()
    old = ready(service.sdk(), created["id"])
    delete(service, old.id)
    assert service.request("DELETE", f"{NETWORKS}/{network}").status_code == 204
    others = [service.create(name="one") for _ in range(2)]
    message = service.run("undelete", "one", "--data-dir", str(service.data_dir))
    one_line(message, "no endpoints are left")
    delete(service, others[0].id)
    two = service.run("undelete", "one", "--data-dir", str(service.data_dir))
    one_line(two, "several", old.id, others[0].id)
    service.kill()
    undelete(service, old.id)
    service.start()
    back = ready(service.sdk(), old.id)
    (endpoint,) = back.endpoints
    taken = others[1].endpoints[0].port
    assert {endpoint.port, taken} == {first, first + 1}
    assert service.login(back).answers()


def test_a_restart_completes_what_failed(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    instance = service.create(name="kept")
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    delete(service, instance.id)
    instances = service.data_dir / "instances"
    instances.chmod(0o500)
    undelete(service, "kept")
    path = f"/instances/{instance.id}"
    wait_until(lambda: service.request("GET", path).json()["status"] == "error", BACK)
    assert trashed_since(service.data_dir) == {}, "neither time nor want of space takes it away"
    instances.chmod(0o711)
    delete(service, instance.id)
    assert trashed_since(service.data_dir).keys() == {UUID(instance.id)}
    instances.chmod(0o500)
    undelete(service, "kept")
    wait_until(lambda: service.request("GET", path).json().get("status") == "error", BACK)
    instances.chmod(0o711)
    assert service.request("POST", f"{path}/restart").status_code == 200
    with service.connection(ready(service.sdk(), instance.id)) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    assert not [*(service.data_dir / "trash").iterdir()]


def test_a_failed_creation_leaves_nothing_to_bring_back(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    instances = service.data_dir / "instances"
    instances.chmod(0o500)
    path = f"/instances/{service.request('POST', '/instances', json=creation()).json()['id']}"
    wait_until(lambda: service.request("GET", path).json()["status"] == "error")
    instances.chmod(0o711)
    service.request("DELETE", path)
    assert service.request("GET", path).status_code == 404
    assert undelete(service) == []
    assert not list((service.data_dir / "trash").iterdir())


def test_kept_for_the_configured_time(fresh_service: Service) -> None:
    """An instance that has left the trash is not listed, and a failed undelete leaves nothing of it."""
    service = fresh_service
    service.environment["OPENRDB_TRASH"] = "3600"
    service.start()
    instance = service.create()
    delete(service, instance.id)
    (entry,) = (service.data_dir / "trash").iterdir()
    service.kill()
    undelete(service, instance.id)  # and before the service has started it …
    (entry,) = (service.data_dir / "trash").iterdir()
    shutil.rmtree(entry)
    service.start()
    wait_until(lambda: gone(service.sdk(), instance.id), BACK)
    other = service.create()
    delete(service, other.id)
    (entry,) = (service.data_dir / "trash").iterdir()
    entry.rename(entry.with_name(f"{int(time.time()) - 3601}.{other.id}"))
    wait_until(lambda: not list((service.data_dir / "trash").iterdir()), BACK)
    assert undelete(service) == []
    service.kill()
    service.environment["OPENRDB_TRASH"] = "0"
    service.start()
    third = service.create()
    delete(service, third.id)
    assert undelete(service) == []


def test_a_power_cut_after_the_rename_loses_nothing(cache: Path, worker_id: str) -> None:
    """The deletion begins again with nothing in its place, and what is in the trash stays whole."""
    with HeldService(cache, ports_of_worker(worker_id, 1)) as service:
        service.start()
        instance = service.create()
        with service.connection(instance) as session:
            session.execute("CREATE TABLE kept AS SELECT 7 AS n")
        service.hold("delete_instance", 3)
        service.request("DELETE", f"/instances/{instance.id}")
        assert service.wait_begun() == "ensure_removed"
        service.wait_done()
        service.kill_everything()
        service.let_go()
        (service.data_dir / "workflows.sqlite").unlink()
        service.start()
        wait_until(lambda: gone(service.sdk(), instance.id), BACK)
        undelete(service, instance.id)
        wait_until(lambda: not gone(service.sdk(), instance.id), BACK)
        with service.connection(ready(service.sdk(), instance.id)) as session:
            assert session.execute("SELECT n FROM kept").fetchone() == (7,)


@pytest.mark.root
def test_as_root_the_account_stays_its_own(root_service: Service) -> None:
    """Its files wait under its account, which nobody else gets meanwhile."""
    service = root_service
    service.environment["OPENRDB_INSTANCE_UIDS"] = "[250000,250001]"
    service.start()
    instance = service.create()
    (node,) = (service.data_dir / "instances" / instance.id).glob("nodes/*/data")
    uid = node.stat().st_uid
    delete(service, instance.id)
    other = service.create(name="other")
    (its,) = (service.data_dir / "instances" / other.id).glob("nodes/*/data")
    assert its.stat().st_uid not in (uid, 0)
    undelete(service, instance.id)
    wait_until(lambda: not gone(service.sdk(), instance.id))
    back = ready(service.sdk(), instance.id)
    assert node.stat().st_uid == uid
    assert service.login(back).answers()


@pytest.mark.root
@pytest.mark.parametrize("is_killed", [False, True], ids=["aborted", "killed"])
def test_an_end_without_a_clean_shutdown_leaves_no_shared_memory(
    root_service: Service, *, is_killed: bool
) -> None:
    service, memory = root_service, Path("/dev/shm")
    service.environment["OPENRDB_STOP_TIMEOUT"] = "1"
    service.start()
    instance = service.create()
    (node,) = (service.data_dir / "instances" / instance.id).glob("nodes/*/data")
    uid = node.stat().st_uid
    its = {one.name for one in memory.iterdir() if one.stat().st_uid == uid}
    assert its, "the server has none"
    if is_killed:  # as what hears no signal is
        main = holder(service, instance.id, "node-")
        assert main is not None
        os.kill(main, signal.SIGSTOP)
    delete(service, instance.id)
    assert not its & {one.name for one in memory.iterdir()}
    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    assert not [line for line in segments if line.split()[7] == str(uid)]
