"""kill -9 of every kind of process: users' data stay, what died comes back by itself."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from openrdb.host import locks
from tests.service import Service, ready, wait_until

BACK = 60.0


def lock_of(service: Service, instance_id: str, program: str) -> Path:
    return next((service.data_dir / "instances" / instance_id).glob(f"{program}*.lock"))


def holder(service: Service, instance_id: str, program: str) -> int | None:
    return locks.holder(lock_of(service, instance_id, program))


def rows(line: str) -> list[int]:
    with psycopg.connect(line, connect_timeout=5) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM kept ORDER BY n")]


def answers(line: str) -> bool:
    try:
        with psycopg.connect(line, connect_timeout=5) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


@pytest.fixture
def kept(fresh_service: Service) -> tuple[Service, str, str]:
    """A service with an instance that holds a row, and its connection line."""
    fresh_service.start()
    instance = fresh_service.create()
    line = fresh_service.connection_line(instance)
    with psycopg.connect(line) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    return fresh_service, instance.id, line


@pytest.mark.parametrize("program", ["node", "balancer"])
def test_a_killed_process_comes_back(kept: tuple[Service, str, str], program: str) -> None:
    service, instance_id, line = kept
    for _ in range(3):
        old = holder(service, instance_id, program)
        assert old is not None
        os.kill(old, signal.SIGKILL)
        wait_until(lambda old=old: holder(service, instance_id, program) not in (None, old), BACK)
        wait_until(lambda: answers(line), BACK)
    assert rows(line) == [1]


@pytest.mark.parametrize("program", ["node", "balancer"])
def test_a_process_comes_back_without_the_control_plane(
    kept: tuple[Service, str, str], program: str
) -> None:
    service, instance_id, line = kept
    service.kill()
    old = holder(service, instance_id, program)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: holder(service, instance_id, program) not in (None, old), BACK)
    wait_until(lambda: answers(line), BACK)


def test_sessions_do_not_notice_the_control_plane_die(kept: tuple[Service, str, str]) -> None:
    service, _, line = kept
    with psycopg.connect(line, autocommit=True) as session:
        backend = session.info.backend_pid
        service.kill()
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1,)
        service.start()
        assert session.execute("SELECT pg_backend_pid()").fetchone() == (backend,)


def test_sessions_do_not_notice_the_supervisor_die(kept: tuple[Service, str, str]) -> None:
    service, instance_id, line = kept
    supervisor = service.data_dir / "run" / "supervisor.lock"
    with psycopg.connect(line, autocommit=True) as session:
        backend = session.info.backend_pid
        for _ in range(2):
            old = locks.holder(supervisor)
            assert old is not None
            os.kill(old, signal.SIGKILL)
            wait_until(lambda old=old: locks.holder(supervisor) not in (None, old), BACK)
        assert session.execute("SELECT pg_backend_pid()").fetchone() == (backend,)
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
    wait_until(lambda: answers(line), BACK)
    # … and ends it when asked to.
    api = service.sdk()
    api.restart_instance(instance_id=instance_id)
    assert api.wait_for_instance(instance_id=instance_id).status == "ready"
    api.delete_instance(instance_id=instance_id)
    wait_until(lambda: not (service.data_dir / "instances" / instance_id).exists(), BACK)
    assert not service.processes(instance_id)


def test_a_supervisor_that_lost_its_socket_is_replaced(kept: tuple[Service, str, str]) -> None:
    service, instance_id, line = kept
    lock = service.data_dir / "run" / "supervisor.lock"
    old = locks.holder(lock)
    with psycopg.connect(line, autocommit=True) as session:
        backend = session.info.backend_pid
        (service.data_dir / "run" / "supervisor.sock").unlink()
        wait_until(lambda: locks.holder(lock) not in (None, old), BACK)
        assert session.execute("SELECT pg_backend_pid()").fetchone() == (backend,)
    api = service.sdk()
    api.restart_instance(instance_id=instance_id)
    assert ready(api, instance_id).status == "ready"


def test_deletion_with_the_supervisor_just_killed(kept: tuple[Service, str, str]) -> None:
    service, instance_id, _ = kept
    old = locks.holder(service.data_dir / "run" / "supervisor.lock")
    assert old is not None
    os.kill(old, signal.SIGKILL)
    service.sdk().delete_instance(instance_id=instance_id)
    wait_until(lambda: service.request("GET", f"/instances/{instance_id}").status_code == 404, BACK)
    assert not (service.data_dir / "instances" / instance_id).exists()
    assert not service.processes(instance_id)


def test_reboot_brings_everything_back(kept: tuple[Service, str, str]) -> None:
    service, instance_id, line = kept
    other = service.create("PostgreSQL-14", name="other")
    other_line = service.connection_line(other)
    service.kill_everything()
    service.start()
    wait_until(lambda: answers(line), BACK)
    wait_until(lambda: answers(other_line), BACK)
    assert rows(line) == [1]
    assert service.sdk().get_instance(instance_id=instance_id).status == "ready"


def test_stop_ends_everything_and_serve_brings_it_back(kept: tuple[Service, str, str]) -> None:
    service, instance_id, line = kept
    service.kill(signal.SIGTERM)
    assert answers(line), "SIGTERM must leave databases running"
    assert service.run("stop", "--data-dir", str(service.data_dir)).returncode == 0
    assert not service.processes()
    log = next((service.data_dir / "instances" / instance_id).glob("nodes/*/log/*.log"))
    assert "database system is shut down" in log.read_text(), "the shutdown was not clean"
    service.start()
    wait_until(lambda: answers(line), BACK)


def test_no_acknowledged_row_is_lost_when_the_engine_is_killed_amid_writes(
    kept: tuple[Service, str, str],
) -> None:
    service, instance_id, line = kept
    acknowledged: list[int] = []
    stop = threading.Event()

    def write() -> None:
        number = 1
        while not stop.is_set():
            try:
                with psycopg.connect(line, autocommit=True, connect_timeout=5) as connection:
                    while not stop.is_set():
                        number += 1
                        connection.execute("INSERT INTO kept VALUES (%s)", [number])
                        acknowledged.append(number)
            except psycopg.Error:
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
    assert set(acknowledged) <= set(rows(line))
