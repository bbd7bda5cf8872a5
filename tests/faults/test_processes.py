"""kill -9 of every kind of process: users' data stay, what died comes back by itself."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from openrdb.system import locks
from tests.support.service import Service, ready, wait_until
from tests.support.tenants import Login

BACK = 60.0


def lock_of(service: Service, instance_id: str, program: str) -> Path:
    return next((service.data_dir / "instances" / instance_id).glob(f"{program}*.lock"))


def holder(service: Service, instance_id: str, program: str) -> int | None:
    return locks.holder(lock_of(service, instance_id, program))


def rows(login: Login) -> list[int]:
    with login.connect(connect_timeout=5) as session:
        return [row[0] for row in session.execute("SELECT n FROM kept ORDER BY n").fetchall()]


Kept = tuple[Service, str, Login]


def keeping(service: Service, engine: str) -> Kept:
    """A service with an instance that holds a row, and how its administrator connects."""
    service.start()
    instance = service.create(engine)
    login = service.login(instance)
    with login.connect() as session:
        session.execute("CREATE TABLE kept (n int)")
        session.execute("INSERT INTO kept VALUES (1)")
    return service, instance.id, login


@pytest.fixture
def kept(fresh_service: Service) -> Kept:
    return keeping(fresh_service, "PostgreSQL-17")


@pytest.fixture
def kept_by_each(fresh_service: Service, newest: str) -> Kept:
    """The same on each engine, for what is the engine's matter."""
    return keeping(fresh_service, newest)


@pytest.mark.parametrize("program", ["node", "balancer"])
def test_a_killed_process_comes_back(kept_by_each: Kept, program: str) -> None:
    service, instance_id, login = kept_by_each
    for _ in range(3):
        old = holder(service, instance_id, program)
        assert old is not None
        os.kill(old, signal.SIGKILL)
        wait_until(lambda old=old: holder(service, instance_id, program) not in (None, old), BACK)
        wait_until(login.answers, BACK)
    assert rows(login) == [1]


@pytest.mark.parametrize("program", ["node", "balancer"])
def test_a_process_comes_back_without_the_control_plane(kept: Kept, program: str) -> None:
    service, instance_id, login = kept
    service.kill()
    old = holder(service, instance_id, program)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: holder(service, instance_id, program) not in (None, old), BACK)
    wait_until(login.answers, BACK)


def test_sessions_do_not_notice_the_control_plane_die(kept_by_each: Kept) -> None:
    service, _, login = kept_by_each
    with login.connect() as session:
        number = login.tenant.session_id(session)
        service.kill()
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1,)
        service.start()
        assert login.tenant.session_id(session) == number


def test_sessions_do_not_notice_the_supervisor_die(kept_by_each: Kept) -> None:
    service, instance_id, login = kept_by_each
    supervisor = service.data_dir / "run" / "supervisor.lock"
    with login.connect() as session:
        number = login.tenant.session_id(session)
        for _ in range(2):
            old = locks.holder(supervisor)
            assert old is not None
            os.kill(old, signal.SIGKILL)
            wait_until(lambda old=old: locks.holder(supervisor) not in (None, old), BACK)
        assert login.tenant.session_id(session) == number
    # The new supervisor takes over what the old one left, when that dies …
    for program in ("node", "balancer"):
        pid = holder(service, instance_id, program)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda program=program, pid=pid: (
                holder(service, instance_id, program) not in (None, pid)
            ),
            BACK,
        )
    wait_until(login.answers, BACK)
    # … and ends it when asked to.
    api = service.sdk()
    api.restart_instance(instance_id=instance_id)
    assert api.wait_for_instance(instance_id=instance_id).status == "ready"
    api.delete_instance(instance_id=instance_id)
    wait_until(lambda: not (service.data_dir / "instances" / instance_id).exists(), BACK)
    assert not service.processes(instance_id)


def test_a_supervisor_that_lost_its_socket_is_replaced(kept: Kept) -> None:
    service, instance_id, login = kept
    lock = service.data_dir / "run" / "supervisor.lock"
    old = locks.holder(lock)
    with login.connect() as session:
        number = login.tenant.session_id(session)
        (service.data_dir / "run" / "supervisor.sock").unlink()
        wait_until(lambda: locks.holder(lock) not in (None, old), BACK)
        assert login.tenant.session_id(session) == number
    api = service.sdk()
    api.restart_instance(instance_id=instance_id)
    assert ready(api, instance_id).status == "ready"


def test_deletion_with_the_supervisor_just_killed(kept: Kept) -> None:
    service, instance_id, _ = kept
    old = locks.holder(service.data_dir / "run" / "supervisor.lock")
    assert old is not None
    os.kill(old, signal.SIGKILL)
    service.sdk().delete_instance(instance_id=instance_id)
    wait_until(lambda: service.request("GET", f"/instances/{instance_id}").status_code == 404, BACK)
    assert not (service.data_dir / "instances" / instance_id).exists()
    assert not service.processes(instance_id)


def test_reboot_brings_everything_back(kept: Kept, newest: str) -> None:
    service, instance_id, login = kept
    others = [service.create(engine, name="other") for engine in ("PostgreSQL-14", newest)]
    logins = [service.login(other) for other in others]
    service.kill_everything()
    service.start()
    wait_until(login.answers, BACK)
    wait_until(lambda: all(other.answers() for other in logins), BACK)
    assert rows(login) == [1]
    assert service.sdk().get_instance(instance_id=instance_id).status == "ready"


def test_stop_ends_everything_and_serve_brings_it_back(kept_by_each: Kept) -> None:
    service, instance_id, login = kept_by_each
    service.kill(signal.SIGTERM)
    assert login.answers(), "SIGTERM must leave databases running"
    assert service.run("stop", "--data-dir", str(service.data_dir)).returncode == 0
    assert not service.processes()
    log = next((service.data_dir / "instances" / instance_id).glob("nodes/*/log/*.log"))
    assert login.tenant.clean_end in log.read_text(), "the shutdown was not clean"
    service.start()
    wait_until(login.answers, BACK)


def test_no_acknowledged_row_is_lost_when_the_engine_is_killed_amid_writes(
    kept_by_each: Kept,
) -> None:
    service, instance_id, login = kept_by_each
    acknowledged: list[int] = []
    stop = threading.Event()

    def write() -> None:
        number = 1
        while not stop.is_set():
            try:
                with login.connect(connect_timeout=5) as session:
                    while not stop.is_set():
                        number += 1
                        session.execute("INSERT INTO kept VALUES (%s)", [number])
                        acknowledged.append(number)
            except login.tenant.failed:
                continue

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(4):
        before = len(acknowledged)
        wait_until(lambda before=before: len(acknowledged) > before + 50, BACK)
        pid = holder(service, instance_id, "node")
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    before = len(acknowledged)
    wait_until(lambda: len(acknowledged) > before + 50, BACK)
    stop.set()
    writer.join()
    assert set(acknowledged) <= set(rows(login))
