"""What an upgrade is refused for, and what of it the state has: nothing runs behind this API."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from openrdb.host.space import capacity
from openrdb.state import instances
from openrdb.state.database import Database
from openrdb.state.models import Instance, Operation, now
from openrdb.system.memory import physical_memory
from tests.api.test_refusals import assert_refused, recorded
from tests.api.test_wire import body
from tests.support.state_database import Api

pytest_plugins = ["tests.support.state_database"]

GB = 10**9
VERSION = str(uuid4())
WORKFLOW = {"upgradable_version_id": VERSION, "with_endpoints": True}
SBS = {"volume_type": "sbs_5k", "volume_size": 10 * GB}


def made(api: Api, **changes: Any) -> str:
    """An instance that is ready by its row, with all volumes that quotas count."""
    identifier = str(api.request("POST", "/instances", json=body(**changes)).json()["id"])
    with api.database.write() as session:
        instance = session.get_one(Instance, UUID(identifier))
        instance.status, instance.first_ready_at = "ready", now()
        for operation in session.query(Operation):
            session.delete(operation)
    api.started.clear()
    return identifier


REFUSED: list[tuple[dict[str, Any], dict[str, Any], set[str]]] = [
    # exactly one target
    ({}, {}, {"node_type"}),
    ({}, {"node_type": None, "volume_size": 0, "upgradable_version_id": ""}, {"node_type"}),
    ({}, {"node_type": "db-dev-m", "volume_size": 10 * GB}, {"node_type", "volume_size"}),
    ({}, {"enable_ha": True, "volume_type": "lssd"}, {"enable_ha", "volume_type"}),
    (
        {},
        {"upgradable_version_id": VERSION, "major_upgrade_workflow": WORKFLOW},
        {"upgradable_version_id", "major_upgrade_workflow"},
    ),
    # node types
    ({}, {"node_type": "db-dev-xxl"}, {"node_type"}),
    ({}, {"node_type": 1}, {"node_type"}),
    ({}, {"node_type": "db-play2-nano"}, {"node_type"}),  # has no local volumes
    ({"node_type": "db-dev-m"}, {"node_type": "db-dev-s"}, {"node_type"}),  # a smaller one
    # sizes
    ({}, {"volume_size": 10 * GB}, {"volume_size"}),  # a local volume
    (SBS, {"volume_size": 5 * GB}, {"volume_size"}),
    (SBS, {"volume_size": 12 * GB}, {"volume_size"}),
    (SBS, {"volume_size": 10_000 * GB + 5 * GB}, {"volume_size"}),
    (SBS, {"volume_size": -1}, {"volume_size"}),
    # types of volumes
    (SBS, {"volume_type": "lssd"}, {"volume_type"}),
    ({}, {"volume_type": "ssd"}, {"volume_type"}),
    # what only becomes true
    ({}, {"enable_ha": False}, {"enable_ha"}),
    ({}, {"enable_encryption": False}, {"enable_encryption"}),
    # versions
    ({}, {"upgradable_version_id": VERSION}, {"upgradable_version_id"}),
    ({}, {"upgradable_version_id": "17"}, {"upgradable_version_id"}),
    (
        {},
        {"major_upgrade_workflow": WORKFLOW},
        {"major_upgrade_workflow.upgradable_version_id"},
    ),
    (
        {},
        {"major_upgrade_workflow": {"with_endpoints": True}},
        {"major_upgrade_workflow.upgradable_version_id"},
    ),
]


def test_refusals(api: Api) -> None:
    made_before = dict[str, str]()
    for changes, asked, arguments in REFUSED:
        identifier = made_before.setdefault(str(changes), made(api, **changes))
        path = f"/instances/{identifier}"
        before = api.request("GET", path).json()
        answer = api.request("POST", f"{path}/upgrade", json=asked)
        details = assert_refused(answer, next(iter(arguments)))
        assert {detail["argument_name"] for detail in details} == arguments
        assert api.request("GET", path).json() == before
    assert recorded(api.database) == 0
    assert not api.started


def test_more_memory_than_the_host_has(api: Api) -> None:
    identifier = made(api, **SBS)
    answer = api.request("POST", f"/instances/{identifier}/upgrade", json={"node_type": "db-gp-xl"})
    assert physical_memory() < 256 * 2**30
    (detail,) = assert_refused(answer, "node_type", "constraint")
    assert "256 GiB" in detail["help_message"]


def test_only_a_ready_instance(api: Api) -> None:
    identifier = made(api, **SBS)
    for status, refused in [("initializing", 409), ("backuping", 409), ("error", 412)]:
        with api.database.write() as session:
            session.get_one(Instance, UUID(identifier)).status = status
        path = f"/instances/{identifier}/upgrade"
        assert api.request("POST", path, json={"volume_size": 15 * GB}).status_code == refused
    gone = api.request("POST", f"/instances/{uuid4()}/upgrade", json={"volume_size": 15 * GB})
    assert gone.status_code == 404


def test_what_helps_a_full_instance(api: Api) -> None:
    """A copy of another major version would be as full."""
    identifier = made(api, engine="PostgreSQL-17", **SBS)
    path = f"/instances/{identifier}"
    with api.database.write() as session:
        instance = session.get_one(Instance, UUID(identifier))
        instance.primary.observed_writes, instance.status = "read_only", "disk_full"
    before = api.request("GET", path).json()
    newest = before["upgradable_version"][-1]
    assert newest["name"] == "PostgreSQL-18"
    workflow = {"upgradable_version_id": newest["id"], "with_endpoints": False}
    for asked in (
        {"upgradable_version_id": newest["id"]},
        {"major_upgrade_workflow": workflow},
    ):
        answer = api.request("POST", f"{path}/upgrade", json=asked)
        assert (answer.status_code, answer.json()["precondition"]) == (412, "resource_not_usable")
        assert "disk_full" in answer.json()["help_message"]
    assert api.request("GET", path).json() == before
    assert api.request("GET", "/instances").json()["total_count"] == 1
    answer = api.request("POST", f"{path}/upgrade", json={"volume_size": 15 * GB})
    assert (answer.status_code, answer.json()["status"]) == (200, "initializing")


@pytest.mark.parametrize(
    "asked", [{"volume_size": 10 * GB}, {"volume_type": "sbs_5k"}, {"node_type": "DB-DEV-S"}]
)
def test_what_it_has_already_changes_nothing(api: Api, asked: dict[str, Any]) -> None:
    """A client repeats a request whose answer was lost."""
    identifier = made(api, **SBS)
    answer = api.request("POST", f"/instances/{identifier}/upgrade", json=asked)
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert not api.started


def test_a_larger_volume_is_within_the_quota(
    database: Database, tmp_path: Path, cache: Path
) -> None:
    quotas = {"volume_bytes": 20 * GB}
    with Api(database, tmp_path, cache=cache, quotas=quotas) as api:
        identifier = made(api, **SBS)
        path = f"/instances/{identifier}/upgrade"
        answer = api.request("POST", path, json={"volume_size": 25 * GB})
        assert answer.status_code == 403
        assert answer.json()["details"] == [
            {"resource": "volume_bytes", "quota": 20 * GB, "current": 10 * GB}
        ]
        answer = api.request("POST", path, json={"volume_size": 20 * GB})
        assert (answer.status_code, answer.json()["status"]) == (200, "initializing")
        assert answer.json()["volume"] == {"type": "sbs_5k", "size": 20 * GB, "class": "sbs"}
        with database.read() as session:
            volume = session.get_one(Instance, UUID(identifier)).primary.volume
            assert volume is not None
            assert volume.size == 20 * GB
        refused = api.request("POST", "/instances", json=body(**SBS))
        assert refused.json()["details"][0]["current"] == 20 * GB


@pytest.mark.parametrize(
    ("before", "asked", "shown"),
    [
        ({}, "bssd", {"type": "bssd", "class": "bssd", "size": 5 * GB}),
        ({"node_type": "db-dev-m"}, "sbs_5k", {"type": "sbs_5k", "class": "sbs", "size": 25 * GB}),
        (SBS, "sbs_15k", {"type": "sbs_15k", "class": "sbs", "size": 10 * GB}),
        ({"volume_type": "bssd"}, "sbs_5k", {"type": "sbs_5k", "class": "sbs", "size": 5 * GB}),
    ],
)
def test_another_volume_type_of_the_same_pool(
    api: Api, before: dict[str, Any], asked: str, shown: dict[str, Any]
) -> None:
    """Nothing moves."""
    identifier = made(api, **before)
    path = f"/instances/{identifier}/upgrade"
    answer = api.request("POST", path, json={"volume_type": asked})
    assert (answer.status_code, answer.json()["status"]) == (200, "initializing")
    assert answer.json()["volume"] == shown
    assert kinds(api.database) == ["upgrade_instance"]


def kinds(database: Database) -> list[str]:
    with database.read() as session:
        return [operation.kind for operation in session.query(Operation)]


POOLS: dict[str, dict[str, Any]] = {
    "plain": {"volume_types": ["sbs_5k"]},
    "safe": {"volume_types": ["sbs_5k", "bssd"], "encrypted": True},
}


def with_pools(database: Database, tmp_path: Path, cache: Path, **settings: Any) -> Api:
    for name, pool in POOLS.items():
        pool["directory"] = tmp_path / name
        pool["directory"].mkdir()
    (tmp_path / "data").mkdir()
    return Api(database, tmp_path / "data", cache=cache, pools=POOLS, **settings)


def pool_of(api: Api, identifier: str) -> str:
    with api.database.read() as session:
        return instances.pool_of(session.get_one(Instance, UUID(identifier)))


def test_the_pool_of_a_type(database: Database, tmp_path: Path, cache: Path) -> None:
    encrypted = {"encryption": {"enabled": True}}
    with with_pools(database, tmp_path, cache) as api:
        found = [
            pool_of(api, made(api, **asked))
            for asked in (
                {},
                {"volume_type": "sbs_15k"},
                SBS,
                SBS | encrypted,
                {"volume_type": "bssd"},
                {"volume_type": "bssd"} | encrypted,
            )
        ]
        assert found == ["default", "default", "plain", "safe", "safe", "safe"]
        refused = api.request("POST", "/instances", json=body(**encrypted))
        assert (refused.status_code, refused.json()["precondition"]) == (412, "encrypted_volumes")
        assert "volumes_encrypted" in refused.json()["help_message"]


def test_a_volume_moves_to_the_pool_of_its_type(
    database: Database, tmp_path: Path, cache: Path
) -> None:
    with with_pools(database, tmp_path, cache) as api:
        identifier = made(api)
        path = f"/instances/{identifier}/upgrade"
        assert api.request("POST", path, json={"volume_type": "sbs_5k"}).status_code == 200
        assert pool_of(api, identifier) == "plain"
        assert kinds(database) == ["move_volume"]
        other = made(api, **SBS)
        path = f"/instances/{other}/upgrade"
        answer = api.request("POST", path, json={"enable_encryption": True})
        assert answer.json()["encryption"] == {"enabled": True}
        assert pool_of(api, other) == "safe"
        third = made(api, volume_type="bssd")  # is in an encrypted one without having asked for it
        path = f"/instances/{third}/upgrade"
        assert api.request("POST", path, json={"enable_encryption": True}).status_code == 200
        assert kinds(database) == ["upgrade_instance"]


def test_what_a_pool_may_promise(database: Database, tmp_path: Path, cache: Path) -> None:
    """Each has its own bound, which what moves there counts for."""
    size = capacity(tmp_path)
    with with_pools(database, tmp_path, cache, overcommit=12 * GB / size) as api:
        first, second = made(api), made(api)
        refused = api.request("POST", "/instances", json=body())
        assert refused.json()["details"][0]["current"] == 10 * GB
        for identifier, status in ((first, 200), (second, 200)):
            path = f"/instances/{identifier}/upgrade"
            answer = api.request("POST", path, json={"volume_type": "sbs_5k"})
            assert answer.status_code == status
        third = made(api)
        path = f"/instances/{third}/upgrade"
        answer = api.request("POST", path, json={"volume_type": "sbs_5k"})
        assert answer.status_code == 403
        assert answer.json()["details"][0]["current"] == 10 * GB
        assert pool_of(api, third) == "default"


def test_a_pool_that_is_missing(database: Database, tmp_path: Path, cache: Path) -> None:
    with with_pools(database, tmp_path, cache) as api:
        identifier = made(api)
        (tmp_path / "plain").rename(tmp_path / "away")
        for path, asked in (
            ("/instances", body(**SBS)),
            (f"/instances/{identifier}/upgrade", {"volume_type": "sbs_5k"}),
        ):
            answer = api.request("POST", path, json=asked)
            assert answer.status_code == 412
            assert "plain" in answer.json()["help_message"]
        assert made(api)
