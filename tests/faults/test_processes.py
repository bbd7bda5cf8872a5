"""kill -9 of every kind of process: users' data stay, what died comes back by itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable

import psutil
import pytest

from openrdb.system.processes import is_alive
from tests.support.programs import agent, holder, keeper, kill_and_wait, lock_of
from tests.support.service import Service, gone, ready, unprivileged, wait_until
from tests.support.tenants import Login

BACK = 60.0


def replaced(find: Callable[[Service], int | None], service: Service, old: int | None) -> bool:
    return find(service) not in (None, old)


def rows(login: Login) -> list[int]:
    with login.connect(connect_timeout=5) as session:
        return [row[0] for row in session.execute("SELECT n FROM kept ORDER BY n").fetchall()]


Kept = tuple[Service, str, Login]


def keeping(service: Service, engine: str) -> Kept:
    """A running service with an instance that holds a row, and how its administrator connects."""
    instance = service.create(engine)
    login = service.login(instance)
    with login.connect() as session:
        session.execute("CREATE TABLE kept (n int)")
        session.execute("INSERT INTO kept VALUES (1)")
    return service, instance.id, login


@pytest.fixture
def kept(reused_service: Service) -> Kept:
    return keeping(reused_service, "PostgreSQL-17")


@pytest.fixture
def kept_by_each(reused_service: Service, newest: str) -> Kept:
    """The same on each engine, for what is the engine's matter."""
    return keeping(reused_service, newest)


@pytest.mark.parametrize("program", ["node", "balancer"])
def test_a_killed_process_comes_back(kept_by_each: Kept, program: str) -> None:
    service, instance_id, login = kept_by_each
    for _ in range(3):
        kill_and_wait(service, instance_id, program)
        wait_until(login.answers, BACK)
    assert rows(login) == [1]


@pytest.mark.parametrize("program", ["node", "balancer"])
def test_a_process_comes_back_without_the_control_plane(kept: Kept, program: str) -> None:
    service, instance_id, login = kept
    service.kill()
    kill_and_wait(service, instance_id, program)
    wait_until(login.answers, BACK)


def test_sessions_do_not_notice_the_control_plane_die(kept_by_each: Kept) -> None:
    service, _, login = kept_by_each
    with login.connect() as session:
        number = login.tenant.session_id(session)
        service.kill()
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1,)
        service.start()
        assert login.tenant.session_id(session) == number


@pytest.mark.parametrize("find", [agent, keeper])
def test_sessions_do_not_notice_agent_and_keeper_die(
    kept_by_each: Kept, find: Callable[[Service], int | None]
) -> None:
    service, instance_id, login = kept_by_each
    with login.connect() as session:
        number = login.tenant.session_id(session)
        for _ in range(5):
            old = find(service)
            assert old is not None
            os.kill(old, signal.SIGKILL)
            wait_until(lambda old=old: replaced(find, service, old), BACK)
        wait_until(lambda: agent(service) is not None, BACK)
        assert login.tenant.session_id(session) == number
    # The one that was replaced may need a moment to end.
    wait_until(lambda: len(service.processes("openrdb.agent")) == 1, BACK)
    # The new agent takes over what the old one left, when that dies …
    for program in ("node", "balancer"):
        kill_and_wait(service, instance_id, program)
    wait_until(login.answers, BACK)
    # … restarts it for a setting, and ends it when asked to.
    api = service.sdk()
    api.restart_instance(instance_id=instance_id)
    assert ready(api, instance_id).status == "ready"
    api.delete_instance(instance_id=instance_id)
    wait_until(lambda: gone(api, instance_id), BACK)
    wait_until(lambda: not service.processes(instance_id), BACK)


@pytest.mark.parametrize("find", [agent, keeper])
def test_a_frozen_agent_or_keeper_is_replaced(
    kept: Kept, find: Callable[[Service], int | None]
) -> None:
    service, instance_id, login = kept
    with login.connect() as session:
        number = login.tenant.session_id(session)
        old = find(service)
        assert old is not None
        os.kill(old, signal.SIGSTOP)
        wait_until(lambda: replaced(find, service, old), BACK)
        assert login.tenant.session_id(session) == number
    wait_until(lambda: not psutil.pid_exists(old), BACK)
    service.sdk().restart_instance(instance_id=instance_id)
    ready(service.sdk(), instance_id)


@pytest.mark.parametrize(("find", "socket"), [(keeper, "supervisor.sock"), (agent, "agent.sock")])
def test_what_lost_its_socket_is_replaced(
    kept: Kept, find: Callable[[Service], int | None], socket: str
) -> None:
    service, instance_id, login = kept
    old = find(service)
    with login.connect() as session:
        number = login.tenant.session_id(session)
        (service.data_dir / "run" / socket).unlink()
        wait_until(lambda: replaced(find, service, old), BACK)
        assert login.tenant.session_id(session) == number
    service.sdk().restart_instance(instance_id=instance_id)
    ready(service.sdk(), instance_id)


def test_without_control_plane_and_keeper_the_agent_heals(kept: Kept) -> None:
    service, instance_id, login = kept
    service.kill()
    old = keeper(service)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    kill_and_wait(service, instance_id, "node")
    wait_until(login.answers, BACK)


@pytest.mark.parametrize("program", ["node", "balancer"])
def test_a_frozen_engine_or_balancer_is_replaced(kept_by_each: Kept, program: str) -> None:
    service, instance_id, login = kept_by_each
    old = holder(service, instance_id, program)
    assert old is not None
    os.kill(old, signal.SIGSTOP)
    wait_until(lambda: holder(service, instance_id, program) not in (None, old), BACK)
    wait_until(login.answers, BACK)
    assert rows(login) == [1]


def test_a_new_server_never_meets_an_old_ones_backends(kept: Kept) -> None:
    """Each backend has a process group of its own, and a busy one outlives its postmaster."""
    service, instance_id, login = kept
    busy = threading.Thread(target=_count_for_long, args=(login,))
    busy.start()

    def counting() -> list[int]:
        """By the server: how much of a process's title is shown depends on the length of a path."""
        with login.connect() as session:
            rows = session.execute(
                "SELECT pid FROM pg_stat_activity "
                "WHERE query ~ 'generate_series' AND pid <> pg_backend_pid()"
            )
            return [int(row[0]) for row in rows.fetchall()]

    wait_until(counting, BACK)
    (backend,) = counting()
    kill_and_wait(service, instance_id, "node")
    assert not is_alive(backend)
    busy.join(BACK)
    wait_until(login.answers, BACK)


def _count_for_long(login: Login) -> None:
    with contextlib.suppress(login.tenant.failed), login.connect() as session:
        session.execute("SELECT count(*) FROM generate_series(1, 100000000000)")


def test_a_recycled_pid_is_nobody_of_ours(kept: Kept) -> None:
    """The record of a killed postmaster names a pid that is a stranger's by now."""
    service, instance_id, login = kept
    record = lock_of(service, instance_id, "node").with_suffix(".process")
    service.kill_everything()
    with subprocess.Popen([*unprivileged(), "sleep", "600"]) as stranger:
        text = json.loads(record.read_text())
        record.write_text(json.dumps(text | {"pid": stranger.pid}))
        postmaster = next((service.data_dir / "instances").glob("*/nodes/*/data/postmaster.pid"))
        lines = postmaster.read_text().splitlines()
        postmaster.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        service.start()
        wait_until(login.answers, BACK)
        service.sdk().restart_instance(instance_id=instance_id)
        ready(service.sdk(), instance_id)
        assert service.run("stop", "--data-dir", str(service.data_dir)).returncode == 0
        assert stranger.poll() is None
        stranger.kill()


def test_stop_leaves_nothing_after_deaths(kept: Kept) -> None:
    service, _, _ = kept
    for find in (keeper, agent, keeper, agent):
        old = find(service)
        if old is not None:
            os.kill(old, signal.SIGKILL)
            wait_until(lambda find=find, old=old: replaced(find, service, old), BACK)
    service.kill()
    for find in (keeper, agent):
        old = find(service)
        if old is not None:
            os.kill(old, signal.SIGKILL)
    assert service.processes("postgres"), "the database runs on"
    stopped = service.run("stop", "--data-dir", str(service.data_dir))
    assert stopped.returncode == 0, stopped.stderr
    assert not service.processes()


def test_deletion_with_the_agent_just_killed(kept: Kept) -> None:
    service, instance_id, _ = kept
    old = agent(service)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    service.sdk().delete_instance(instance_id=instance_id)
    wait_until(lambda: service.request("GET", f"/instances/{instance_id}").status_code == 404, BACK)
    assert not (service.data_dir / "instances" / instance_id).exists()
    wait_until(lambda: not service.processes(instance_id), BACK)


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
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.wait_procs([psutil.Process(pid)], timeout=10)
    before = len(acknowledged)
    wait_until(lambda: len(acknowledged) > before + 50, BACK)
    stop.set()
    writer.join()
    assert set(acknowledged) <= set(rows(login))
