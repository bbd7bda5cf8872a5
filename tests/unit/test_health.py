"""An instance that works is `ready` or `disk_full`, whoever writes the row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from openrdb.state import events
from openrdb.state.database import Database
from openrdb.state.models import Instance, Node
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceStatus
from tests.support.state_database import first_key, row


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/state.sqlite")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def instance_id(database: Database) -> UUID:
    made = row(first_key(database))
    made.nodes = [Node(address="127.0.0.1", port=20000, version="17.11")]
    with database.write() as session:
        session.add(made)
    return made.id


def observe(database: Database, instance_id: UUID, writes: str, reason: str | None = None) -> str:
    """Write down what the host says of the node; return the instance's status then."""
    with database.write() as session:
        node = session.get_one(Instance, instance_id).nodes[0]
        node.observed_writes, node.observed_reason = writes, reason
    return status(database, instance_id)


def move(database: Database, instance_id: UUID, to: InstanceStatus) -> str:
    with database.write() as session:
        statuses.move(session.get_one(Instance, instance_id), to)
    return status(database, instance_id)


def status(database: Database, instance_id: UUID) -> str:
    with database.read() as session:
        return session.get_one(Instance, instance_id).status


def test_it_follows_the_host(database: Database, instance_id: UUID) -> None:
    assert observe(database, instance_id, "read_only", "nearly full") == "disk_full"
    assert observe(database, instance_id, "closed", "full") == "disk_full"
    assert observe(database, instance_id, "open") == "ready"
    with database.read() as session:
        told = [(one.outcome, one.reason) for one in events.of_subject(session, instance_id)]
    assert told == [("began", "nearly full"), ("ended", None)]


@pytest.mark.parametrize("end", [InstanceStatus.READY, InstanceStatus.DISK_FULL])
def test_what_ends_meanwhile_ends_in_the_right_one(
    database: Database, instance_id: UUID, end: InstanceStatus
) -> None:
    """Also where it is put back to what it was before."""
    meanwhile = InstanceStatus.CONFIGURING
    move(database, instance_id, meanwhile)
    assert observe(database, instance_id, "read_only") == meanwhile
    assert move(database, instance_id, end) == "disk_full"
    move(database, instance_id, meanwhile)
    assert observe(database, instance_id, "open") == meanwhile
    assert move(database, instance_id, end) == "ready"


def test_an_error_stays_one(database: Database, instance_id: UUID) -> None:
    move(database, instance_id, InstanceStatus.CONFIGURING)
    move(database, instance_id, InstanceStatus.ERROR)
    assert observe(database, instance_id, "read_only") == "error"
