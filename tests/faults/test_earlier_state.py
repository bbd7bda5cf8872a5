"""A data directory of the release before is taken over, with what was under way in it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from tests.support.earlier import BEFORE_AGENTS, KNOWN, serve_with, sources
from tests.support.killed_service import KilledService
from tests.support.service import Service, creation, gone, ports_of_worker, ready, wait_until


@pytest.fixture
def killed_service(cache: Path, worker_id: str) -> Iterator[KilledService]:
    with KilledService(cache, ports_of_worker(worker_id, 1)) as service:
        yield service


def create_until(service: KilledService, steps: int) -> str:
    """The id of an instance whose creation ends with the control plane, after some steps."""
    service.kill()
    service.kill_after("create_instance", steps)
    service.start()
    with contextlib.suppress(requests.ConnectionError):
        service.request("POST", "/instances", json=creation(name="amid"))
    wait_until(service.ended)
    service.kill()
    with contextlib.closing(sqlite3.connect(service.data_dir / "state.sqlite")) as state:
        (row,) = state.execute("SELECT id FROM instances WHERE name = 'amid'").fetchall()
    return str(row[0])


def test_an_unfinished_creation_completes(fresh_service: Service) -> None:
    service = fresh_service
    serve_with(service, sources(BEFORE_AGENTS, service.home / "old"))
    service.start()
    engine = KNOWN["PostgreSQL"]
    running, doomed = (service.create(engine, name=name) for name in ("running", "doomed"))
    with service.connection(running) as session:
        accepted = service.request("POST", "/instances", json=creation(engine, name="amid"))
        service.kill()
        instance_id = accepted.json()["id"]
        serve_with(service, None)
        state_file = service.data_dir / "state.sqlite"
        with contextlib.closing(sqlite3.connect(state_file)) as state, state:
            # A change of users whose precondition had held, and a deletion that nobody began.
            for kind, subject, parameters in (
                (
                    "create_database",
                    running.id,
                    {"name": "late", "checked": True},
                ),
                ("delete_instance", doomed.id, {}),
            ):
                state.execute(
                    "INSERT INTO operations (id, instance_id, kind, parameters, status, created_at)"
                    " VALUES (?, ?, ?, ?, 'recorded', '2026-01-01 00:00:00.000000')",
                    (uuid4().hex, subject.replace("-", ""), kind, json.dumps(parameters)),
                )
            state.execute("UPDATE instances SET status = 'deleting' WHERE name = 'doomed'")
        service.start()
        instance = ready(service.sdk(), str(instance_id))
        with service.connection(instance) as own:
            assert own.execute("SELECT current_user").fetchone() == ("admin",)
        wait_until(lambda: gone(service.sdk(), doomed.id))
        wait_until(lambda: "late" in databases(service, running.id))
        assert session.execute("SELECT 1").fetchone() == (1,)
    saved = service.data_dir / "state.sqlite.before-0003"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(saved)) as state:
        names = [row[0] for row in state.execute("SELECT name FROM instances ORDER BY name")]
        assert names == ["amid", "doomed", "running"]
        assert "instance_id" in {row[1] for row in state.execute("PRAGMA table_info(operations)")}


def databases(service: Service, instance_id: str) -> list[str]:
    listed = service.request("GET", f"/instances/{instance_id}/databases").json()["databases"]
    return [row["name"] for row in listed]


def test_damaged_workflows_are_discarded(killed_service: KilledService) -> None:
    service = killed_service
    service.start()
    instance_id = create_until(service, 5)
    for file in service.data_dir.glob("workflows.sqlite-*"):
        file.unlink()
    (service.data_dir / "workflows.sqlite").write_bytes(b"no database" * 1000)
    service.start()
    ready(service.sdk(), instance_id)


def test_a_changed_build_begins_again_at_the_first_step(killed_service: KilledService) -> None:
    """Checkpoints of other sources are not trusted: here one is wrong, and never read."""
    service = killed_service
    service.start()
    instance_id = create_until(service, 7)
    path = service.data_dir / "workflows.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as workflows, workflows:
        workflows.execute("UPDATE workflow_status SET application_version = 'earlier'")
        renamed = workflows.execute("UPDATE operation_outputs SET function_name = 'no_such_step'")
        assert renamed.rowcount >= 5
    service.start()
    instance = ready(service.sdk(), instance_id)
    with service.connection(instance) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
