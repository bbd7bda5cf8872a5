"""Backups under way when the service is stopped, and when their job is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scaleway.rdb.v1 import DatabaseBackup

from tests.support.service import Service, kill, ready, wait_until

SOON = 15.0
"""Seconds within which a service that is told to stop is gone, however long its backups take."""


@contextmanager
def held_up(service: Service) -> Iterator[DatabaseBackup]:
    """A backup that is being made: its dump waits for a lock of its tenant's."""
    instance = service.create("PostgreSQL-17", name="held up")
    with service.connection(instance) as session:
        session.execute("CREATE TABLE t AS SELECT 7 AS n")
    with service.connection(instance, autocommit=False) as session:
        session.execute("LOCK TABLE t")
        backup = service.sdk().create_database_backup(instance_id=instance.id, database_name="rdb")
        wait_until(lambda: service.processes("pg_dump"))
        yield backup


def status(service: Service, backup: DatabaseBackup) -> str:
    listed = service.sdk().list_database_backups_all(instance_id=backup.instance_id)
    return str(next(one.status for one in listed if one.id == backup.id))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_backup_goes_on_while_nobody_serves(fresh_service: Service, how: signal.Signals) -> None:
    service = fresh_service
    service.start()
    with held_up(service) as backup:
        began = time.monotonic()
        service.kill(how)
        assert time.monotonic() - began < SOON
        assert service.processes("pg_dump")
        service.start()
        assert status(service, backup) == "creating"
    wait_until(lambda: status(service, backup) == "ready")
    ready(service.sdk(), str(backup.instance_id))


def test_backups_that_wait_for_a_place_keep_nobody_from_stopping(fresh_service: Service) -> None:
    service = fresh_service
    service.environment["OPENRDB_BACKUPS_AT_ONCE"] = "1"
    service.start()
    other = service.create("PostgreSQL-17", name="other")
    with held_up(service) as first:
        api = service.sdk()
        second = api.create_database_backup(instance_id=other.id, database_name="rdb")
        began = time.monotonic()
        service.kill(signal.SIGTERM)
        assert time.monotonic() - began < SOON
        service.start()
        assert (status(service, first), status(service, second)) == ("creating", "creating")
        assert len(service.processes("bin/pg_dump")) == 1
    for backup in (first, second):
        wait_until(lambda backup=backup: status(service, backup) == "ready")


def test_an_instance_has_one_backup_at_a_time(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    with held_up(service) as backup:
        api, path = service.sdk(), f"/instances/{backup.instance_id}"
        sent = {"instance_id": backup.instance_id, "database_name": "rdb"}
        answer = service.request("POST", "/backups", json=sent)
        assert (answer.status_code, answer.json()["type"]) == (409, "transient_state")
        assert answer.json()["resource"] == "instance"
        assert answer.json()["current_state"] == "backuping"
        assert api.list_database_backups_all(instance_id=backup.instance_id) == [backup]
        assert service.request("GET", path).json()["status"] == "backuping"
    wait_until(lambda: status(service, backup) == "ready")


def test_a_dump_that_is_killed_is_made_again(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    with held_up(service) as backup:
        first = service.processes("pg_dump")
        kill(first)
        wait_until(lambda: set(service.processes("pg_dump")) - set(first))
    wait_until(lambda: status(service, backup) == "ready")


def test_a_dump_that_is_killed_each_time_leaves_an_error(fresh_service: Service) -> None:
    """And no object; the instance is as it was."""
    service = fresh_service
    service.start()
    with held_up(service) as backup:

        def failed() -> bool:
            kill(service.processes("pg_dump"))
            return status(service, backup) == "error"

        wait_until(failed)
    ready(service.sdk(), str(backup.instance_id))
    objects = service.data_dir / "objects"
    assert [path for path in objects.rglob(f"*{backup.id}*") if path.is_file()] == []
