"""What an upgrade is refused for, and what of it the state has: nothing runs behind this API."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

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
    # what this version has not
    (SBS, {"volume_type": "sbs_15k"}, {"volume_type"}),
    ({}, {"volume_type": "bssd"}, {"volume_type"}),
    ({}, {"volume_type": "ssd"}, {"volume_type"}),
    ({}, {"enable_ha": True}, {"enable_ha"}),
    ({}, {"enable_ha": False}, {"enable_ha"}),
    ({}, {"high_availability_mode": "single_zone"}, {"high_availability_mode"}),
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
    instances = dict[str, str]()
    for changes, asked, arguments in REFUSED:
        identifier = instances.setdefault(str(changes), made(api, **changes))
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
