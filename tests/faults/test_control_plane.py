"""kill -9 of the control plane at random moments: what was accepted completes, nothing is left."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from scaleway.rdb.v1 import Instance

from tests.faults.matrix.faults import seed
from tests.support.service import (
    PASSWORD,
    Service,
    creation,
    gone,
    in_background,
    installed,
    ready,
    wait_until,
)
from tests.support.tenants import tenant_of

CYCLES = {"PostgreSQL-17": 14, "MySQL-9": 5}
"""Random moments of creation, and as many of deletion, of each test of an engine."""
HOW = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)
ROUNDS = {"PostgreSQL-17": 3, "MySQL-9": 1}
"""Of a restart, an update and a renewal."""
LATEST = {"PostgreSQL-17": 0.45, "MySQL-9": 1.4}
"""Seconds after the requests; a creation takes about half of that."""


def left_behind(service: Service) -> list[str]:
    """What should not be there once all instances are deleted."""
    found = [str(path) for path in (service.data_dir / "instances").iterdir()]
    found += [str(path) for path in (service.data_dir / "run").iterdir() if path.is_dir()]
    found += service.commands("/instances/")
    with sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True) as state:
        for table in ("instances", "nodes", "endpoints", "instance_tags"):
            (count,) = state.execute(f"SELECT count(*) FROM {table}").fetchone()
            found += [f"{count} rows in {table}"] if count else []
        query = "SELECT kind, status, error FROM operations WHERE status != 'done'"
        found += [str(row) for row in state.execute(query)]
    return found


def assert_nothing_left(service: Service) -> None:
    """The operation's last word may come after the instance has gone."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not left_behind(service), 10)
    assert left_behind(service) == []


@pytest.mark.parametrize("version", CYCLES)
def test_killed_amid_creation_and_deletion(
    fresh_service: Service, cache: Path, version: str
) -> None:
    service, engine = fresh_service, installed(cache, version)
    chance, tenant = random.Random(seed()), tenant_of(engine)  # noqa: S311
    service.start()
    steady = service.create(engine, name="steady")
    doomed: Instance = service.create(engine, name="0")
    with service.connection(steady) as session:
        for cycle in range(1, CYCLES[engine] + 1):
            api, answered = service.sdk(), list[str]()

            def create(api: Any = api, answered: list[str] = answered, cycle: int = cycle) -> None:
                try:
                    created = api.create_instance(
                        **creation(engine, name=str(cycle), tags=["cycle"])
                    )
                    answered.append(created.id)
                except requests.ConnectionError:
                    pass  # killed before the answer: it may be there or not, but whole

            creator = in_background(create)
            deleted = service.request("DELETE", f"/instances/{doomed.id}")
            assert deleted.json()["status"] == "deleting"
            time.sleep(chance.uniform(0, LATEST[engine]))
            service.kill(chance.choice(HOW))
            creator.join()
            assert session.execute("SELECT 1").fetchone() == (1,), "the session was cut"
            service.start()

            api = service.sdk()
            wait_until(lambda api=api, doomed=doomed: gone(api, doomed.id))
            found = api.list_instances_all(tags=["cycle"], name=str(cycle))
            assert set(answered) <= {instance.id for instance in found}
            doomed = _one_ready(service, engine, found, cycle)
            with service.connection(doomed) as own:
                assert tenant.who(own) == ("admin", "rdb")
    for instance in service.sdk().list_instances_all():
        service.request("DELETE", f"/instances/{instance.id}")
        wait_until(lambda instance=instance: gone(service.sdk(), instance.id))
    assert_nothing_left(service)


def _one_ready(service: Service, engine: str, found: list[Instance], cycle: int) -> Instance:
    """The instance of this cycle, or a new one where the request had not been taken."""
    if not found:
        return service.create(engine, name=str(cycle))
    (instance,) = found
    return ready(service.sdk(), instance.id)


@pytest.mark.parametrize("version", ROUNDS)
def test_killed_amid_restart_update_and_renewal(
    fresh_service: Service, cache: Path, version: str
) -> None:
    service, engine = fresh_service, installed(cache, version)
    chance = random.Random(seed())  # noqa: S311
    service.start()
    instance = service.create(engine)
    with service.connection(instance) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    path = f"/instances/{instance.id}"
    for cycle in range(3 * ROUNDS[engine]):
        if cycle % 3 == 0:
            assert service.request("POST", f"{path}/restart").json()["status"] == "restarting"
        elif cycle % 3 == 1:
            policy = {"logs_policy": {"max_age_retention": cycle}, "name": f"n{cycle}"}
            assert service.request("PATCH", path, json=policy).json()["status"] == "configuring"
        else:
            in_background(lambda: _ignoring(service, f"{path}/renew-certificate"))
        time.sleep(chance.uniform(0, LATEST[engine]))
        service.kill()
        service.start()
        assert ready(service.sdk(), instance.id).id == instance.id
        with service.connection(instance) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    last = 3 * ROUNDS[engine] - 2
    found = service.sdk().get_instance(instance_id=instance.id)
    assert (found.logs_policy.max_age_retention, found.name) == (last, f"n{last}")


def _ignoring(service: Service, path: str) -> None:
    with contextlib.suppress(requests.ConnectionError):
        service.request("POST", path)


def test_a_second_control_plane_is_refused(fresh_service: Service) -> None:
    fresh_service.start()
    arguments = ("serve", "--data-dir", str(fresh_service.data_dir), "--listen", "127.0.0.1:0")
    second = fresh_service.run(*arguments)
    assert second.returncode == 1
    assert "is served already" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert fresh_service.healthy()


def test_what_waits_at_the_end_is_cut_and_completes_later(fresh_service: Service) -> None:
    """The service does not say that it failed, and the log has no tracebacks."""
    service = fresh_service
    service.start()
    instance = service.create()
    path = f"/instances/{instance.id}"
    answers: list[int] = []

    def change() -> None:
        user = {"name": "app", "password": PASSWORD, "is_admin": False}
        with contextlib.suppress(requests.ConnectionError):
            answers.append(service.request("POST", f"{path}/users", json=user).status_code)

    with service.superuser(instance) as session, session.transaction():
        session.execute("LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")
        asked = in_background(change)
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'pg_authid'::regclass"
        wait_until(lambda: session.execute(waiting).fetchone() is not None)
        service.kill(signal.SIGTERM)
        asked.join()
    assert answers == []
    assert "Traceback" not in (service.home / "serve.log").read_text()
    service.start()
    users = f"{path}/users?name=app"
    wait_until(lambda: service.request("GET", users).json()["total_count"] == 1)


def test_a_power_cut_may_take_the_workflows_last_writes(fresh_service: Service) -> None:
    """They are not synced; here all of them are lost, and every process with them."""
    service = fresh_service
    service.start()
    doomed = service.create()
    service.request("DELETE", f"/instances/{doomed.id}")
    created = service.sdk().create_instance(**creation(name="amid"))
    service.kill_everything()
    for file in service.data_dir.glob("workflows.sqlite*"):
        file.unlink()
    service.start()
    wait_until(lambda: gone(service.sdk(), doomed.id))
    with service.connection(ready(service.sdk(), created.id)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_operations_of_long_ago_are_forgotten(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    service.create()
    state, workflows = (service.data_dir / f"{name}.sqlite" for name in ("state", "workflows"))
    wait_until(lambda: count(state, "operations WHERE status = 'done'") == 1)
    service.kill(signal.SIGTERM)
    with sqlite3.connect(state) as connection:
        connection.execute("UPDATE operations SET finished_at = '2026-01-01 00:00:00.000000'")
    assert count(workflows, "operation_outputs") > 5
    service.start()
    wait_until(lambda: count(state, "operations") == 0)
    assert count(workflows, "workflow_status") == 0
    assert count(workflows, "operation_outputs") == 0


def count(database: Path, what: str) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


def test_what_was_recorded_but_not_started_is_swept_up(fresh_service: Service) -> None:
    """A crash between the commit and the start of the workflow, as SQL can make one."""
    service = fresh_service
    service.start()
    instance = service.create()
    service.kill()
    with sqlite3.connect(service.data_dir / "state.sqlite") as state:
        state.execute("UPDATE instances SET status = 'deleting'")
        state.execute(
            "INSERT INTO operations (id, subject_type, subject_id, kind, parameters, status,"
            " created_at, is_checked, is_overdue, attempts) "
            "SELECT lower(hex(randomblob(16))), 'instance', id, 'delete_instance', '{}',"
            " 'recorded', '2026-01-01 00:00:00.000000', 0, 0, 0 FROM instances"
        )
    service.start()
    wait_until(lambda: gone(service.sdk(), instance.id))
    assert_nothing_left(service)
