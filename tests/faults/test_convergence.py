"""What should run is started again amid operations too, and what cannot start says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import requests

from tests.support.held_service import HeldService
from tests.support.kinds import last_error
from tests.support.programs import agent, holder, keeper, kill_and_wait
from tests.support.service import (
    PASSWORD,
    Service,
    creation,
    in_background,
    ports_of_worker,
    ready,
    wait_until,
)
from tests.support.tenants import tenant_of

BACK = 60.0


@pytest.fixture
def held(cache: Path, worker_id: str) -> Iterator[HeldService]:
    with HeldService(cache, ports_of_worker(worker_id, 1)) as service:
        service.start()
        yield service


def test_an_engine_is_healed_in_the_middle_of_an_operation(held: HeldService) -> None:
    """Neither the control plane nor the keeper is there, and the instance is not `ready`."""
    instance = held.create()
    held.hold("restart_instance", 1)
    asked = held.request("POST", f"/instances/{instance.id}/restart")
    assert asked.json()["status"] == "restarting"
    held.wait_done()
    alone_it_heals(held, instance.id)
    held.let_go()
    held.start()
    wait_until(held.login(instance).answers, BACK)


def test_an_engine_is_healed_in_the_middle_of_its_creation(held: HeldService) -> None:
    held.hold("create_instance", 4)
    created = held.sdk().create_instance(**creation())
    assert held.wait_begun() == "ensure_running"
    held.wait_done()
    alone_it_heals(held, created.id)
    held.let_go()
    held.start()
    (instance,) = held.sdk().list_instances_all()
    wait_until(lambda: status(held, instance.id) == "ready", BACK)


def test_a_server_that_recovers_takes_settings(fresh_service: Service) -> None:
    """A killed backend, as by the kernel for want of memory, makes the server recover: it takes no
    connections meanwhile, though it runs. The instance must not be `error` for that."""
    service = fresh_service
    service.start()
    instance = service.create("PostgreSQL-18", name="test")
    path = f"/instances/{instance.id}"
    with service.connection(instance) as killed, service.connection(instance) as stopped:
        pids = [tenant_of("PostgreSQL").session_id(one) for one in (killed, stopped)]
        os.kill(pids[1], signal.SIGSTOP)  # the server waits for it, for five seconds
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            killed.execute("SELECT 1")
        sent = {"settings": [{"name": "work_mem", "value": "7"}]}
        assert service.request("PUT", f"{path}/settings", json=sent).status_code == 200
        assert ready(service.sdk(), instance.id).settings
        user = {"name": "app", "password": PASSWORD, "is_admin": False}
        assert service.request("POST", f"{path}/users", json=user).status_code == 200
    with service.connection(instance) as session:
        assert tenant_of("PostgreSQL").setting(session, "work_mem") == "7"


def alone_it_heals(service: HeldService, instance_id: str) -> None:
    service.kill()
    old = keeper(service)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    kill_and_wait(service, instance_id, "node")


def status(service: Service, instance_id: str) -> str:
    return str(service.request("GET", f"/instances/{instance_id}").json()["status"])


def settled(service: Service, instance_id: str) -> str:
    moving = ("provisioning", "initializing", "restarting")
    wait_until(lambda: status(service, instance_id) not in moving, BACK)
    return status(service, instance_id)


def test_a_restart_that_cannot_succeed_says_why(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    instance = service.create()
    (control,) = (service.data_dir / "instances" / instance.id).glob(
        "nodes/*/data/global/pg_control"
    )
    saved = control.rename(control.with_name("saved"))
    service.request("POST", f"/instances/{instance.id}/restart")
    assert settled(service, instance.id) == "error"
    ended, reason = last_error(service, "restart_instance")
    assert ended == "failed"
    assert reason is not None
    assert "could not find the database system" in reason
    assert_logged_once(
        service, f"operation restart_instance on instance {instance.id} ('test') failed"
    )
    # As soon as it can start, it does, and a restart settles it.
    saved.rename(control)
    wait_until(service.login(instance).answers, BACK)
    service.request("POST", f"/instances/{instance.id}/restart")
    assert settled(service, instance.id) == "ready"


def assert_logged_once(service: Service, what: str) -> None:
    """The log has this and the reason, in one message without a traceback."""
    log = " ".join((service.home / "serve.log").read_text().split())
    assert log.count(what) == 1, log
    assert "Traceback" not in log


@pytest.mark.root
@pytest.mark.usefixtures("on_disk")
def test_shared_memory_that_cannot_be_written_says_so(fresh_service: Service) -> None:
    service = fresh_service
    service.prefix = ["unshare", "--mount", "--fork", "--"]
    service.start()
    within(service, "mount", "-t", "tmpfs", "-o", "ro", "none", "/dev/shm")
    answer: requests.Response = service.request("POST", "/instances", json=creation())
    assert answer.status_code == 200
    instance_id = answer.json()["id"]
    assert settled(service, instance_id) == "error"
    _, reason = last_error(service, "create_instance")
    assert reason is not None
    assert "shared memory" in reason
    assert_logged_once(
        service, f"operation create_instance on instance {instance_id} ('test') failed"
    )
    within(service, "umount", "/dev/shm")
    listed = service.run("operations", "list", "--json", "--data-dir", str(service.data_dir))
    (failed,) = [row for row in json.loads(listed.stdout) if row["status"] == "failed"]
    retried = service.run("operations", "retry", failed["id"], "--data-dir", str(service.data_dir))
    assert retried.returncode == 0, retried.stderr
    assert settled(service, instance_id) == "ready"
    (instance,) = service.sdk().list_instances_all()
    assert service.login(instance).answers(), "its administrator is there"


def within(service: Service, *command: str) -> None:
    """Run a command in the mount namespace of what the service started."""
    pid = agent(service)
    subprocess.run(["nsenter", "--target", str(pid), "--mount", *command], check=True)


def test_a_change_in_force_is_answered_though_the_engine_has_ended(
    held: HeldService, newest: str
) -> None:
    instance = held.create(newest)
    path = f"/instances/{instance.id}/users"
    bob = {"name": "bob", "password": PASSWORD, "is_admin": False}
    assert held.request("POST", path, json=bob).ok
    answers = list[requests.Response]()

    def update(sent: object) -> None:
        answers.append(held.request("PATCH", f"{path}/bob", json=sent))

    for sent in ({"is_admin": True}, {"password": PASSWORD}) * 3:
        held.hold("update_user", 0)
        asking = in_background(lambda sent=sent: update(sent))
        pid = holder(held, instance.id, "node")
        assert pid is not None
        held.wait_done()
        os.kill(pid, signal.SIGKILL)
        held.let_go()
        asking.join(BACK)
        assert answers[-1].json() == {"name": "bob", "is_admin": True}
        wait_until(held.login(instance).answers, BACK)
