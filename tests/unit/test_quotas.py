"""Quotas of projects, and what a pool may promise, on a state of each kind."""

from __future__ import annotations

import pytest

from openrdb.errors import QuotasExceeded
from openrdb.state import backups, quotas
from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.models import Node, Volume
from openrdb.state.quotas import Limits
from tests.support.state_database import another_key, first_key, row

pytest_plugins = ["tests.support.state_database"]

SIZE = 5_000_000_000
PORTS = iter(range(20000, 30000))


def add(database: Database, key: NewKey, count: int) -> None:
    with database.write() as session:
        for _ in range(count):
            instance = row(key, volume_size=SIZE)
            node = Node(address="127.0.0.1", port=next(PORTS), version="17.11")
            node.volume = Volume(key=str(instance.id), size=SIZE)
            instance.nodes = [node]
            session.add(instance)


def require(database: Database, key: NewKey, limits: Limits) -> None:
    with database.write() as session:
        quotas.require(session, key.project_id, limits, SIZE)


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        (Limits(None, None, 100 * SIZE), None),
        (Limits(3, 3 * SIZE, 4 * SIZE), None),
        (Limits(2, None, 100 * SIZE), ("instances", 2, 2)),
        (Limits(0, None, 100 * SIZE), ("instances", 0, 2)),
        (Limits(None, 3 * SIZE - 1, 100 * SIZE), ("volume_bytes", 3 * SIZE - 1, 2 * SIZE)),
        (Limits(None, None, 4 * SIZE - 1), ("volume_bytes", 4 * SIZE - 1, 3 * SIZE)),
    ],
)
def test_limits(database: Database, limits: Limits, refusal: tuple[str, int, int] | None) -> None:
    """A project has two volumes, another one the third of the pool."""
    key, other = first_key(database), another_key(database)
    add(database, key, 2)
    add(database, other, 1)
    if refusal is None:
        require(database, key, limits)
        return
    with pytest.raises(QuotasExceeded) as refused:
        require(database, key, limits)
    error = refused.value
    assert (error.resource, error.quota, error.current) == refusal


def test_of_nothing(database: Database) -> None:
    key = first_key(database)
    require(database, key, Limits(1, SIZE, SIZE))
    with pytest.raises(QuotasExceeded):
        require(database, key, Limits(None, None, SIZE - 1))


@pytest.mark.parametrize(("limit", "is_refused"), [(None, False), (3, False), (2, True), (0, True)])
def test_backups(database: Database, limit: int | None, is_refused: bool) -> None:
    """A project has two, one of which could not be made; another one has a third."""
    key, other = first_key(database), another_key(database)
    with database.write() as session:
        for owner, status in [(key, "ready"), (key, "error"), (other, "ready")]:
            made = backups.new(row(owner), "rdb", store_region="nl-ams", suffix=".custom")
            made.status = status
            session.add(made)
    with database.write() as session:
        if not is_refused:
            quotas.require_backup(session, key.project_id, limit)
            return
        with pytest.raises(QuotasExceeded) as refused:
            quotas.require_backup(session, key.project_id, limit)
    error = refused.value
    assert (error.resource, error.quota, error.current) == ("database_backups", limit, 2)
