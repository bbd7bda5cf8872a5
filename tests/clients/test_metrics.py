"""Metrics by the official SDK on real servers: what is measured, when, and how it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import Instance
from scaleway_core.bridge import TimeSeries

from openrdb.spec import METRICS
from tests.support.high_availability import nodes, remove
from tests.support.keys import create
from tests.support.service import Service, wait_until

OF_FOLLOWERS = "replication_lag_seconds"


def series(service: Service, instance: Instance, **asked: Any) -> dict[str, TimeSeries]:
    found = service.sdk().get_instance_metrics(instance_id=instance.id, **asked).timeseries
    assert all(one.points for one in found)
    named = {one.name: one for one in found}
    assert len(named) == len(found)
    return named


def values(service: Service, instance: Instance, name: str) -> list[float]:
    found = series(service, instance, metric_name=name)
    return [point.value for one in found.values() for point in one.points]


@pytest.fixture
def instance(service: Service, newest: str) -> Iterator[Instance]:
    made = service.create(newest, name="measured")
    yield made
    remove(service, made)


def test_what_a_busy_instance_shows(service: Service, instance: Instance) -> None:
    before = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)

    def shows(name: str, least: float) -> bool:
        session.execute("SELECT 1 FROM t")
        session.execute("INSERT INTO t VALUES (1)")
        return any(value >= least for value in values(service, instance, name))

    with service.connection(instance) as first, service.connection(instance) as session:
        first.execute("CREATE TABLE t (n int)")
        wait_until(lambda: shows("total_connections", 2))
        wait_until(lambda: shows("transactions_per_second", 0.2))
        wait_until(lambda: shows("disk_usage_percent", 0.1))
    found = series(service, instance)
    assert found.keys() == set(METRICS) - {OF_FOLLOWERS}
    assert max(values(service, instance, "total_connections")) == 2
    (node,) = nodes(service, instance)
    for one in found.values():
        assert one.metadata["role"] == "primary"
        assert one.metadata["node"].isdecimal()
        assert len(one.metadata["node"]) == 8
        moments = [point.timestamp for point in one.points]
        assert moments == sorted(moments)
        assert before <= moments[0]
        assert moments[-1] <= datetime.now(UTC)
    assert 0 < max(values(service, instance, "cpu_usage_percent")) < 400
    memory = max(values(service, instance, "mem_usage_bytes"))
    assert 10 * 2**20 < memory < 2**30
    assert max(values(service, instance, "mem_usage_percent")) < 50
    assert max(values(service, instance, "disk_usage_bytes")) > 5 * 2**20
    assert (node / "samples").stat().st_mode & 0o777 == 0o600

    # The other official clients read pairs, and so does whoever asks without one.
    path = f"/instances/{instance.id}/metrics?metric_name=cpu_usage_percent"
    (raw,) = service.request("GET", path).json()["timeseries"]
    moment, value = raw["points"][-1]
    assert datetime.fromisoformat(moment) >= before
    assert moment.endswith("Z")
    assert isinstance(value, float)

    # Windows.
    now = datetime.now(UTC)
    assert series(service, instance, start_date=before, end_date=now).keys() == found.keys()
    assert series(service, instance, start_date=now - timedelta(days=365)).keys() == found.keys()
    assert series(service, instance, end_date=now).keys() == found.keys()
    assert series(service, instance, end_date=before) == {}
    assert series(service, instance, start_date=now + timedelta(days=1)) == {}
    empty = service.request("GET", f"/instances/{instance.id}/metrics?start_date=&metric_name=")
    assert len(empty.json()["timeseries"]) == len(found)


def test_what_is_refused(service: Service, instance: Instance) -> None:
    api, now = service.sdk(), datetime.now(UTC)

    def refusal(**asked: Any) -> dict[str, Any]:
        asked = {"instance_id": instance.id} | asked
        with pytest.raises(ScalewayException) as refused:
            api.get_instance_metrics(**asked)
        answer: dict[str, Any] = refused.value.response.json()
        return answer

    reversed_window = refusal(start_date=now, end_date=now - timedelta(seconds=1))
    assert reversed_window["type"] == "invalid_arguments"
    assert reversed_window["details"][0]["argument_name"] == "end_date"
    unknown = refusal(metric_name="load_average")
    assert unknown["type"] == "invalid_arguments"
    assert unknown["details"][0]["argument_name"] == "metric_name"
    assert "cpu_usage_percent" in unknown["details"][0]["help_message"]
    path = f"/instances/{instance.id}/metrics?start_date=yesterday"
    assert service.request("GET", path).json()["details"][0]["argument_name"] == "start_date"
    assert refusal(instance_id=str(uuid4()))["type"] == "not_found"
    project = service.request("POST", "//account/v3/projects", json={"name": "others"}).json()
    headers = {"X-Auth-Token": create(service, "--project", project["id"])["SCW_SECRET_KEY"]}
    path = f"/instances/{instance.id}/metrics"
    assert service.request("GET", path, headers=headers).status_code == 404
    extremes = "start_date=0001-01-01T00:00:00Z&end_date=9999-12-31T23:59:59Z"
    assert service.request("GET", f"{path}?{extremes}").status_code == 200
    assert service.request("GET", f"{path}?end_date=0001-01-01T00:00:00Z").status_code == 200
