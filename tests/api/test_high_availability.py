"""What requests say of high availability, and what of it the state has: nothing runs behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from openrdb.state import instances
from openrdb.state.database import Database
from openrdb.state.models import Instance, Snapshot
from tests.api.test_refusals import assert_refused, recorded
from tests.api.test_upgrades import kinds, made
from tests.api.test_wire import body
from tests.support.state_database import Api

pytest_plugins = ["tests.support.state_database"]

Json = Any
GB = 10**9
UNKNOWN = "unknown_high_availability_mode"


def roles(api: Api, identifier: str) -> list[str]:
    """The roles of an instance's nodes, each with a port and a volume of its own."""
    with api.database.read() as session:
        nodes = session.get_one(Instance, UUID(identifier)).nodes
        assert len({node.port for node in nodes}) == len(nodes)
        volumes = [node.volume for node in nodes if node.volume is not None]
        assert len({volume.key for volume in volumes}) == len(nodes)
        return sorted(node.role for node in nodes)


@pytest.mark.parametrize(
    ("asked", "is_ha_cluster", "mode"),
    [
        ({"is_ha_cluster": True}, True, UNKNOWN),
        ({"is_ha_cluster": True, "high_availability_mode": None}, True, UNKNOWN),
        ({"is_ha_cluster": True, "high_availability_mode": "multiple_zone"}, True, "multiple_zone"),
        # Clients send `false` for what nobody has set.
        ({"is_ha_cluster": False, "high_availability_mode": "single_zone"}, True, "single_zone"),
        ({"is_ha_cluster": False, "high_availability_mode": "disabled"}, False, "disabled"),
        ({"high_availability_mode": UNKNOWN}, False, UNKNOWN),
    ],
)
def test_what_a_new_instance_is(api: Api, asked: Json, is_ha_cluster: bool, mode: str) -> None:
    answer = api.request("POST", "/instances", json=body() | asked)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["is_ha_cluster"], shown["high_availability_mode"]) == (is_ha_cluster, mode)
    expected = ["primary", "standby"] if is_ha_cluster else ["primary"]
    assert roles(api, shown["id"]) == expected


def test_both_volumes_count(database: Database, tmp_path: Path, cache: Path) -> None:
    block = {"volume_type": "sbs_5k", "volume_size": 10 * GB}
    with Api(database, tmp_path, cache=cache, quotas={"volume_bytes": 45 * GB}) as api:
        identifier = made(api, is_ha_cluster=True, **block)
        one = made(api, **block)
        path = f"/instances/{identifier}/upgrade"
        refused = api.request("POST", path, json={"volume_size": 20 * GB})
        assert refused.json()["details"] == [
            {"resource": "volume_bytes", "quota": 45 * GB, "current": 30 * GB}
        ]
        assert api.request("POST", path, json={"volume_size": 15 * GB}).status_code == 200
        path = f"/instances/{one}"
        before = api.request("GET", path).json()
        refused = api.request("POST", f"{path}/upgrade", json={"enable_ha": True})
        assert (refused.status_code, refused.json()["details"][0]["current"]) == (403, 40 * GB)
        assert api.request("GET", path).json() == before
        assert roles(api, one) == ["primary"]


def test_ports_of_a_small_range_are_never_shared(
    database: Database, tmp_path: Path, cache: Path
) -> None:
    with Api(database, tmp_path, cache=cache, node_ports=(20000, 20002)) as api:
        identifier = made(api, is_ha_cluster=True)
        assert roles(api, identifier) == ["primary", "standby"]
        refused = api.request("POST", "/instances", json=body(is_ha_cluster=True))
        assert (refused.status_code, refused.json()["type"]) == (403, "quotas_exceeded")
        made(api)


@pytest.mark.parametrize(
    ("asked", "before", "mode"),
    [
        ({"enable_ha": True}, UNKNOWN, UNKNOWN),
        ({"enable_ha": True}, "disabled", "single_zone"),
        ({"enable_ha": True, "high_availability_mode": "multiple_zone"}, UNKNOWN, "multiple_zone"),
        ({"high_availability_mode": "single_zone"}, UNKNOWN, "single_zone"),
    ],
)
def test_enabling_it(api: Api, asked: Json, before: str, mode: str) -> None:
    identifier = made(api, high_availability_mode=before)
    path = f"/instances/{identifier}"
    answer = api.request("POST", f"{path}/upgrade", json=asked)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["status"], shown["is_ha_cluster"]) == ("initializing", True)
    assert shown["high_availability_mode"] == mode
    assert kinds(api.database) == ["enable_high_availability"]
    assert roles(api, identifier) == ["primary", "standby"]


@pytest.mark.parametrize(
    ("asked", "mode"),
    [
        ({"enable_ha": True}, "single_zone"),
        ({"high_availability_mode": "single_zone"}, "single_zone"),
        ({"high_availability_mode": "multiple_zone"}, "multiple_zone"),
    ],
)
def test_what_has_it_is_answered_as_it_is(api: Api, asked: Json, mode: str) -> None:
    """On one host another mode is another word for the same."""
    identifier = made(api, is_ha_cluster=True, high_availability_mode="single_zone")
    answer = api.request("POST", f"/instances/{identifier}/upgrade", json=asked)
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["high_availability_mode"] == mode
    assert kinds(api.database) == []


def test_it_cannot_be_disabled(api: Api) -> None:
    identifier = made(api, is_ha_cluster=True)
    path = f"/instances/{identifier}"
    before = api.request("GET", path).json()
    for asked, argument in [
        ({"enable_ha": False}, "enable_ha"),
        ({"high_availability_mode": "disabled"}, "high_availability_mode"),
        ({"enable_ha": True, "high_availability_mode": "disabled"}, "high_availability_mode"),
        ({"enable_ha": False, "high_availability_mode": "single_zone"}, "enable_ha"),
    ]:
        assert_refused(api.request("POST", f"{path}/upgrade", json=asked), argument, "constraint")
    assert api.request("GET", path).json() == before
    standalone = made(api)
    path = f"/instances/{standalone}/upgrade"
    answer = api.request("POST", path, json={"high_availability_mode": "disabled"})
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert recorded(api.database) == 0


def test_clones_are_standalone(api: Api) -> None:
    block = {"volume_type": "sbs_5k", "volume_size": 10 * GB}
    identifier = made(api, is_ha_cluster=True, high_availability_mode="single_zone", **block)
    clone = api.request("POST", f"/instances/{identifier}/clone", json={"name": "copy"}).json()
    assert (clone["is_ha_cluster"], clone["high_availability_mode"]) == (False, UNKNOWN)
    assert roles(api, clone["id"]) == ["primary"]


def test_an_instance_of_a_snapshot_is_as_asked(api: Api) -> None:
    identifier = made(api, volume_type="sbs_5k", volume_size=10 * GB)
    path = f"/instances/{identifier}/snapshots"
    snapshot = api.request("POST", path, json={"name": "copy"}).json()["id"]
    with api.database.write() as session:
        session.get_one(Snapshot, UUID(snapshot)).status = "ready"
        session.get_one(Instance, UUID(identifier)).status = "ready"
    asked = {"instance_name": "restored", "is_ha_cluster": True}
    answer = api.request("POST", f"/snapshots/{snapshot}/create-instance", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["is_ha_cluster"] is True
    assert roles(api, answer.json()["id"]) == ["primary", "standby"]


def test_a_major_upgrade_makes_a_standalone_instance(api: Api) -> None:
    """And leaves the old one with its standby."""
    identifier = made(api, engine="PostgreSQL-17", is_ha_cluster=True)
    path = f"/instances/{identifier}"
    newest = api.request("GET", path).json()["upgradable_version"][-1]["id"]
    answer = api.request("POST", f"{path}/upgrade", json={"upgradable_version_id": newest})
    assert answer.status_code == 200, answer.text
    assert answer.json()["is_ha_cluster"] is False
    assert roles(api, answer.json()["id"]) == ["primary"]
    assert roles(api, identifier) == ["primary", "standby"]
    assert api.request("GET", path).json()["is_ha_cluster"] is True


def test_the_primary_is_what_its_host_says(api: Api) -> None:
    identifier = made(api, is_ha_cluster=True)
    with api.database.write() as session:
        instance = session.get_one(Instance, UUID(identifier))
        first, second = sorted(instance.nodes, key=lambda node: node.role)
        assert (instance.primary, instance.standby) == (first, second)
        first.observed_role, first.observed_epoch = "primary", 1
        second.observed_role, second.observed_epoch = "primary", 2  # the first was not asked since
        assert (instance.primary, instance.standby) == (second, first)
        first.observed_role, first.observed_epoch = "standby", 2
        assert (instance.primary, instance.standby) == (second, first)
        assert instances.pool_of(instance) == "default"
