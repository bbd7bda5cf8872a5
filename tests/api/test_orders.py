"""Orders, filters and pages of what is within an instance, by the official SDK on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

import pytest
from scaleway.rdb.v1 import (
    Instance,
    ListDatabasesRequestOrderBy,
    ListInstanceLogsRequestOrderBy,
    ListInstancesRequestOrderBy,
    ListPrivilegesRequestOrderBy,
    ListSnapshotsRequestOrderBy,
    ListUsersRequestOrderBy,
)

from tests.support.service import Service, gone, wait_until

LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)


@pytest.fixture(scope="module")
def instances(service: Service) -> Iterator[list[Instance]]:
    made = [
        service.create(engine, name=f"ordered {engine}", volume_type="bssd", volume_size=10**10)
        for engine in ("PostgreSQL-17", "MySQL-9")
    ]
    sdk = service.sdk()
    for one in made:
        for number in range(2):
            sdk.create_user(
                instance_id=one.id,
                name=f"u{number}",
                password=f"Secr3t-{number}-of-u!",
                is_admin=False,
            )
            sdk.create_database(instance_id=one.id, name=f"d{number}")
    yield made
    for one in made:
        sdk.delete_instance(instance_id=one.id)
    for one in made:
        wait_until(lambda one=one: gone(sdk, one.id))


def assert_ordered(found: list[Any], order: Any) -> None:
    """By the field that the order names; what has the same value may be in any order."""
    field, _, direction = order.value.rpartition("_")
    values = [attrgetter(field)(one) for one in found]
    assert len(values) >= 2
    assert values == sorted(values, reverse=direction == "desc"), order


@pytest.mark.parametrize("number", [0, 1], ids=["PostgreSQL", "MySQL"])
def test_what_is_within_an_instance(
    service: Service, instances: list[Instance], number: int
) -> None:
    sdk, instance = service.sdk(), instances[number]
    for users in ListUsersRequestOrderBy:
        listed = sdk.list_users(instance_id=instance.id, order_by=users, page_size=50)
        assert_ordered(listed.users, users)
    for databases in ListDatabasesRequestOrderBy:
        found = sdk.list_databases(instance_id=instance.id, order_by=databases, page_size=50)
        assert_ordered(found.databases, databases)
    for privileges in ListPrivilegesRequestOrderBy:
        given = sdk.list_privileges(instance_id=instance.id, order_by=privileges, page_size=50)
        assert_ordered(given.privileges, privileges)
    owned = sdk.list_databases(instance_id=instance.id, owner="nobody")
    assert owned.databases == []
    managed = sdk.list_databases(instance_id=instance.id, managed=True)
    assert {one.managed for one in managed.databases} == {True}


@pytest.mark.copies
@pytest.mark.parametrize("number", [0, 1], ids=["PostgreSQL", "MySQL"])
def test_snapshots_of_it(service: Service, instances: list[Instance], number: int) -> None:
    sdk, instance = service.sdk(), instances[number]
    made = [sdk.create_snapshot(instance_id=instance.id, name="s0", expires_at=LATER)]
    wait_until(lambda: sdk.get_snapshot(snapshot_id=made[0].id).status == "ready")
    made.append(sdk.create_snapshot(instance_id=instance.id, name="s1"))
    wait_until(lambda: sdk.get_snapshot(snapshot_id=made[1].id).status == "ready")
    changed = sdk.update_snapshot(
        snapshot_id=made[1].id, name="t", expires_at=LATER + timedelta(days=5)
    )
    assert (changed.name, changed.expires_at) == ("t", LATER + timedelta(days=5))
    for order in ListSnapshotsRequestOrderBy:
        listed = sdk.list_snapshots(instance_id=instance.id, order_by=order, page_size=50)
        assert_ordered(listed.snapshots, order)
    for one in made:
        sdk.delete_snapshot(snapshot_id=one.id)


def test_instances_and_logs(service: Service, instances: list[Instance]) -> None:
    sdk = service.sdk()
    for order in ListInstancesRequestOrderBy:
        found = sdk.list_instances(order_by=order, page_size=50).instances
        if order is ListInstancesRequestOrderBy.REGION:
            assert {one.region for one in found} == {"fr-par"}
        else:
            assert_ordered(found, order)
    for _ in range(2):
        sdk.prepare_instance_logs(instance_id=instances[0].id)
    for logs in ListInstanceLogsRequestOrderBy:
        listed = sdk.list_instance_logs(instance_id=instances[0].id, order_by=logs)
        assert_ordered(listed.instance_logs, logs)
