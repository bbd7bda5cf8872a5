"""Read replicas of highly available instances by the official SDK: they follow whoever is primary."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scaleway.rdb.v1 import Instance, InstanceSetting

from tests.support.high_availability import kill_primary, remove
from tests.support.replicas import count, following, login_of, made, shows
from tests.support.service import Service, ready, wait_until

ROLES = {"primary", "standby", "replica"}


@pytest.fixture
def instance(service: Service, newest: str) -> Iterator[Instance]:
    made = service.create(newest, name="pair", is_ha_cluster=True)
    with service.connection(made) as session:
        session.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
    yield made
    remove(service, made)


def measured(service: Service, instance: Instance, name: str) -> dict[str, dict[str, str]]:
    """What is said of the nodes that a metric is measured of, by their roles."""
    answer = service.sdk().get_instance_metrics(instance_id=instance.id, metric_name=name)
    found = [series.metadata for series in answer.timeseries]
    assert len({one["node"] for one in found}) == len(found)
    return {one["role"]: one for one in found}


@pytest.mark.copies
def test_replica_follows_through_failovers_and_changes(
    service: Service, instance: Instance
) -> None:
    sdk, number = service.sdk(), 0
    replica = made(service, instance)
    login = login_of(service, instance, replica)

    def follows() -> None:
        """It shows what is acknowledged from now on, and is shown as ready again."""
        nonlocal number
        number += 1
        with service.connection(instance) as session:
            session.execute("INSERT INTO numbers VALUES (%s)", [number])
        wait_until(lambda: shows(login, number), 120)
        following(service, replica.id)

    follows()
    wait_until(lambda: measured(service, instance, "cpu_usage_percent").keys() == ROLES)
    lags = "replication_lag_seconds"
    wait_until(lambda: measured(service, instance, lags).keys() == ROLES - {"primary"})
    of_replica = measured(service, instance, "cpu_usage_percent")["replica"]
    assert of_replica["read_replica_id"] == replica.id
    for _ in range(2):
        kill_primary(service, instance)
        ready(sdk, instance.id)
        follows()
    name, value = login.tenant.cold
    for changed in (str(int(value) * 2), value):
        setting = InstanceSetting(name=name, value=changed)
        sdk.set_instance_settings(instance_id=instance.id, settings=[setting])
        ready(sdk, instance.id)
        follows()
    sdk.restart_instance(instance_id=instance.id)
    ready(sdk, instance.id)
    follows()
    promoted = sdk.promote_read_replica(read_replica_id=replica.id)
    promoted = ready(sdk, promoted.id)
    assert promoted.is_ha_cluster is False
    with service.connection(promoted) as session:
        assert count(session) == number
        session.execute("INSERT INTO numbers VALUES (-1)")
    remove(service, promoted)
    assert service.login(instance).answers()
