"""A reader of changes by the official SDK and a driver: through a failover, and what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from scaleway.rdb.v1 import Instance, InstanceSetting

from openrdb.system.layout import Layout
from tests.support.high_availability import kill_primary, remove
from tests.support.histories import Clients
from tests.support.pgoutput import Change, Decoder
from tests.support.service import Service, installed, ready, wait_until
from tests.support.tenants import Session
from tests.support.writers import Writers

PASSWORD = "Readers-pass-1"
OPTIONS = "'proto_version', '1', 'publication_names', 'every'"
PEEK = f"SELECT lsn, data FROM rdb_logical.peek_binary_changes('feed', NULL, 500, {OPTIONS})"
ADVANCE = "SELECT rdb_logical.advance('feed', %s)"
TAKEN_OVER = "SELECT FROM pg_replication_slots WHERE slot_name = 'feed' AND NOT temporary"


class Reader(Clients):
    """Reads changes, and confirms them when it has them: so it misses none, and may see some twice."""

    def __init__(self, service: Service, instance: Instance) -> None:
        login = service.login(instance, "reader", PASSWORD)
        super().__init__(lambda: login.connect(connect_timeout=2), threads=1, pause=0.1)
        self.changes: list[Change] = []

    def step(self, session: Session, number: int) -> bool:
        del number
        # Where there is no change for it, the slot has to move on as well.
        (end,) = session.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        rows = session.execute(PEEK).fetchall()
        self.changes += Decoder().changes(bytes(data) for _, data in rows)
        session.execute(ADVANCE, [rows[-1][0] if rows else end])
        return True

    def seen(self, kind: str, table: str, column: str) -> set[int]:
        found = [one for one in list(self.changes) if (one.kind, one.table) == (kind, table)]
        return {int(one.row[column] or 0) for one in found}


@pytest.fixture
def instance(service: Service, cache: Path) -> Iterator[Instance]:
    """A highly available one with logical replication, and a user who reads by a slot."""
    sdk, engine = service.sdk(), installed(cache, "PostgreSQL-18")
    made = service.create(engine, name="feeding", is_ha_cluster=True)
    enabled = InstanceSetting("rdb.enable_logical_replication", "on")
    sdk.add_instance_settings(instance_id=made.id, settings=[enabled])
    made = ready(sdk, made.id)
    sdk.create_user(instance_id=made.id, name="reader", password=PASSWORD, is_admin=False)
    sdk.set_privilege(
        instance_id=made.id, database_name="rdb", user_name="reader", permission="readonly"
    )
    yield made
    remove(service, made)


@contextmanager
def superusers(service: Service, instance: Instance) -> Iterator[dict[bool, Any]]:
    """Sessions of the superuser on both nodes, by whether they take writes."""
    nodes = Layout(service.data_dir).instance(UUID(instance.id)).glob("nodes/*/data/postmaster.pid")
    found = {}
    for running in nodes:
        lines = running.read_text().splitlines()
        where = {"host": lines[4], "port": lines[3], "user": "_rdb_superadmin"}
        secret = service.superuser_secret(instance)
        session = psycopg.connect(**where, dbname="postgres", password=secret, autocommit=True)
        (follows,) = session.execute("SELECT pg_is_in_recovery()").fetchone() or (None,)
        found[not follows] = session
    yield found
    for session in found.values():
        session.close()


def events(service: Service, instance: Instance) -> list[str]:
    place = str(service.data_dir)
    done = service.run("events", instance.id, "--data-dir", place, "--json")
    found = json.loads(done.stdout)
    return [one["reason"] for one in found if one["action"] == "logical_slot"]


def test_a_stream_survives_a_failover(service: Service, instance: Instance) -> None:
    with service.connection(instance) as admin:
        admin.execute("CREATE EXTENSION rdb_logical")
        admin.execute("SELECT rdb_logical.create_publication_for_all_tables('every')")
        admin.execute("SELECT rdb_logical.create_slot('feed', failover => true)")
        admin.execute("SELECT rdb_logical.create_slot('passing')")
        admin.execute(
            "GRANT EXECUTE ON FUNCTION rdb_logical.peek_binary_changes, rdb_logical.advance "
            "TO reader"
        )
        admin.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
        admin.execute("INSERT INTO items VALUES (1, 'one'), (2, 'two')")
        admin.execute("UPDATE items SET name = 'another' WHERE id = 1")
        admin.execute("DELETE FROM items WHERE id = 2")
    with Reader(service, instance) as reader:
        with superusers(service, instance) as both:

            def is_taken_over() -> bool:
                both[True].execute("SELECT pg_log_standby_snapshot()")  # every 15 s by itself
                return both[False].execute(TAKEN_OVER).fetchone() is not None

            wait_until(is_taken_over)
        known = Layout(service.data_dir).slots(UUID(instance.id))
        wait_until(lambda: known.exists() and "passing" in known.read_text())
        with Writers(service.login(instance), 2) as writers:
            writers.wait_for(20)
            kill_primary(service, instance)
            writers.wait_for(20)
        written = writers.keys("acknowledged")
        wait_until(lambda: written <= reader.seen("insert", "written", "k"))
        with service.connection(instance) as admin:
            admin.execute("UPDATE items SET name = 'a third' WHERE id = 1")
        wait_until(
            lambda: Change("update", "items", {"id": "1", "name": "a third"}) in reader.changes
        )
    assert reader.seen("insert", "items", "id") == {1, 2}
    assert reader.seen("delete", "items", "id") == {2}
    wait_until(lambda: events(service, instance))
    (told,) = events(service, instance)
    assert (
        told == "slot passing of the database rdb: it was lost when another node became the primary"
    )
    with service.connection(instance) as admin:
        assert admin.execute("SELECT slot_name FROM rdb_logical.slots").fetchall() == [("feed",)]
