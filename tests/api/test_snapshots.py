"""Snapshots and clones on the wire, in every status: what is shown, listed, changed and refused.

That they are made and started is tested with real engines in `tests/clients`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests

from openrdb.operations.snapshots.create import CreateSnapshot
from openrdb.state import snapshots
from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.master_key import open_secrets
from openrdb.state.models import Endpoint, Instance, Node, Operation, Snapshot, now
from openrdb.state.statuses.instance import TRANSIENT, WORKING, InstanceStatus
from openrdb.state.statuses.snapshot import SnapshotStatus
from openrdb.system.layout import Layout
from tests.support.state_database import Api, another_key, row

pytest_plugins = ["tests.support.state_database"]

Json = Any
MOMENT = datetime(2025, 12, 10, 5, 6, 25, 211540, tzinfo=UTC)
PORTS = iter(range(20000, 30000))
SIZE = 10_000_000_000
BLOCK = {"volume_type": "sbs_5k", "volume_class": "sbs", "volume_size": SIZE}
AddInstance = Callable[..., str]
Add = Callable[..., str]


@pytest.fixture
def add_instance(api: Api, tmp_path: Path) -> AddInstance:
    """Adds an instance on block storage that is ready, and that nothing runs of."""
    secrets = open_secrets(api.database, Layout(tmp_path).master_key)

    def add(key: NewKey | None = None, *, public: bool = True, **values: Any) -> str:
        with api.database.write() as session:
            made = row(key or api.key, **({"first_ready_at": now()} | BLOCK | values))
            made.nodes = [Node(address="127.0.0.1", port=next(PORTS), version="17.11")]
            if public:
                made.endpoints = [Endpoint(ip="127.0.0.1", port=next(PORTS), published=True)]
            secrets.create(made)
            session.add(made)
            return str(made.id)

    return add


@pytest.fixture
def add(api: Api, add_instance: AddInstance, tmp_path: Path) -> Add:
    """Adds a snapshot that is ready, of an instance of its own."""
    secrets = open_secrets(api.database, Layout(tmp_path).master_key)

    def add_snapshot(key: NewKey | None = None, **values: Any) -> str:
        of_snapshots = values.keys() & set(Snapshot.__table__.columns.keys())
        changed = {name: values.pop(name) for name in of_snapshots}
        instance_id = add_instance(key, **values)
        ordinary = {"status": "ready", "size": SIZE, "updated_at": MOMENT}
        with api.database.write() as session:
            instance = session.get_one(Instance, UUID(instance_id))
            made = snapshots.new(session, instance, "one")
            secrets.seal_for(made, instance)
            for name, value in (ordinary | changed).items():
                setattr(made, name, value)
            session.add(made)
            return str(made.id)

    return add_snapshot


def get(api: Api, snapshot_id: str) -> Json:
    answer = api.request("GET", f"/snapshots/{snapshot_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(api: Api, query: str = "", key: NewKey | None = None) -> list[str]:
    answer = api.request("GET", f"/snapshots?{query}", key)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["total_count"] >= len(found["snapshots"])
    return [one["id"] for one in found["snapshots"]]


def refusal(answer: requests.Response) -> tuple[int, str]:
    """Return the status, and the argument that is named or the error's type."""
    error = answer.json()
    details = error.get("details")
    return answer.status_code, details[0]["argument_name"] if details else error["type"]


def create(api: Api, instance_id: str, **sent: Any) -> requests.Response:
    return api.request("POST", f"/instances/{instance_id}/snapshots", json={"name": "one"} | sent)


def restore(api: Api, snapshot_id: str, **sent: Any) -> requests.Response:
    body = {"instance_name": "copy"} | sent
    return api.request("POST", f"/snapshots/{snapshot_id}/create-instance", json=body)


def clone(api: Api, instance_id: str, **sent: Any) -> requests.Response:
    return api.request("POST", f"/instances/{instance_id}/clone", json={"name": "copy"} | sent)


def status_of(database: Database, model: Any, row_id: str) -> str:
    with database.read() as session:
        return str(session.get_one(model, UUID(row_id)).status)


# -- what is shown ----------------------------------------------------------------------------------


def test_a_snapshot_is_shown_as_recorded(api: Api, add: Add) -> None:
    instance_id = uuid4()
    snapshot_id = add(
        instance_id=instance_id,
        instance_name="its",
        created_at=MOMENT,
        expires_at=datetime(2032, 1, 2, 22, 4, 5, tzinfo=UTC),
    )
    assert list(get(api, snapshot_id).items()) == [
        ("id", snapshot_id),
        ("instance_id", str(instance_id)),
        ("name", "one"),
        ("status", "ready"),
        ("size", SIZE),
        ("expires_at", "2032-01-02T22:04:05Z"),
        ("created_at", "2025-12-10T05:06:25.211540Z"),
        ("updated_at", "2025-12-10T05:06:25.211540Z"),
        ("instance_name", "its"),
        ("node_type", "db-dev-s"),
        ("region", "fr-par"),
        ("volume_type", {"type": "sbs_5k", "class": "sbs"}),
    ]


def test_a_new_one_is_made_meanwhile_and_expires_in_a_year(
    api: Api, add_instance: AddInstance
) -> None:
    instance_id = add_instance()
    answer = create(api, instance_id)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["status"], shown["size"], shown["updated_at"]) == ("creating", None, None)
    created, expires = (
        datetime.fromisoformat(shown[f"{one}_at"]) for one in ("created", "expires")
    )
    assert expires - created == timedelta(days=365)
    assert status_of(api.database, Instance, instance_id) == "snapshotting"
    with api.database.read() as session:
        (operation,) = session.query(Operation).filter_by(subject_id=UUID(shown["id"]))
        assert operation.kind == CreateSnapshot.kind
    assert refusal(create(api, instance_id)) == (409, "transient_state")
    assert refusal(clone(api, instance_id)) == (409, "transient_state")
    renamed = api.request("PATCH", f"/instances/{instance_id}", json={"name": "renamed"})
    assert renamed.status_code == 200
    assert get(api, shown["id"])["instance_name"] == "renamed"
    assert refusal(api.request("DELETE", f"/instances/{instance_id}")) == (409, "transient_state")
    assert refusal(api.request("DELETE", f"/snapshots/{shown['id']}")) == (409, "transient_state")


@pytest.mark.parametrize(
    ("sent", "argument"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"expires_at": "2020-01-02T22:04:05Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": 7}, "expires_at"),
    ],
)
def test_what_a_new_one_must_not_be(
    api: Api, add_instance: AddInstance, sent: Json, argument: str
) -> None:
    assert refusal(create(api, add_instance(), **sent)) == (400, argument)


def test_local_volumes_have_none(api: Api, add_instance: AddInstance) -> None:
    instance_id = add_instance(volume_type="lssd", volume_class="lssd")
    assert refusal(create(api, instance_id)) == (412, "precondition_failed")
    assert status_of(api.database, Instance, instance_id) == "ready"


@pytest.mark.parametrize("ask", [create, clone])
@pytest.mark.parametrize("status", list(InstanceStatus))
def test_what_works_is_copied(
    api: Api, add_instance: AddInstance, status: str, ask: Callable[..., requests.Response]
) -> None:
    instance_id = add_instance(status=status)
    if status == "disk_full":
        with api.database.write() as session:
            session.get_one(Instance, UUID(instance_id)).primary.observed_writes = "read_only"
    answer = ask(api, instance_id)
    if status in WORKING:
        assert answer.status_code == 200, answer.text
        assert status_of(api.database, Instance, instance_id) == "snapshotting"
        return
    if status in TRANSIENT:
        assert (answer.status_code, answer.json()["current_state"]) == (409, status)
    else:
        assert (answer.status_code, answer.json()["precondition"]) == (412, "resource_not_usable")
    assert status_of(api.database, Instance, instance_id) == status
    assert listed(api) == []


def test_of_an_instance_that_is_not_there(api: Api) -> None:
    for ask in (create, clone):
        answer = ask(api, str(uuid4()))
        assert (answer.status_code, answer.json()["resource"]) == (404, "instance")
    for method, path in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/create-instance")]:
        answer = api.request(method, f"/snapshots/{uuid4()}{path}", json={})
        assert (answer.status_code, answer.json()["resource"]) == (404, "instance_snapshot")


# -- lists ------------------------------------------------------------------------------------------


def test_lists_are_narrowed(api: Api, add: Add) -> None:
    first, second = add(name="daily"), add(name="Weekly")
    other = another_key(api.database, api.key.organization_id)
    third = add(other, name="daily too")
    stranger = another_key(api.database)
    assert set(listed(api)) == {first, second, third}
    assert listed(api, key=stranger) == []
    assert listed(api, key=other) == [third]
    assert set(listed(api, "name=AIL")) == {first, third}
    assert listed(api, f"instance_id={get(api, second)['instance_id']}") == [second]
    assert listed(api, f"project_id={other.project_id}") == [third]
    assert len(listed(api, f"organization_id={api.key.organization_id}")) == 3
    assert listed(api, "page=2&page_size=2") == [third]
    answer = api.request("GET", f"/snapshots/{first}", stranger)
    assert (answer.status_code, answer.json()["resource"]) == (404, "instance_snapshot")


@pytest.mark.parametrize("column", ["created_at", "name", "expires_at"])
def test_orders(api: Api, add: Add, column: str) -> None:
    values = {
        "created_at": [MOMENT + timedelta(days=day) for day in range(3)],
        "expires_at": [now() + timedelta(days=day) for day in range(1, 4)],
        "name": ["a", "b", "c"],
    }[column]
    made = [add(**{column: value}) for value in values]
    assert listed(api, f"order_by={column}_asc") == made
    assert listed(api, f"order_by={column}_desc") == made[::-1]
    assert refusal(api.request("GET", "/snapshots?order_by=size_asc")) == (400, "order_by")


# -- changes ----------------------------------------------------------------------------------------


def test_name_and_expiry_are_changed(api: Api, add: Add) -> None:
    snapshot_id = add(updated_at=None)

    def update(**sent: Any) -> Json:
        answer = api.request("PATCH", f"/snapshots/{snapshot_id}", json=sent)
        assert answer.status_code == 200, answer.text
        return answer.json()

    before = get(api, snapshot_id)
    assert update() == update(name=None) == before
    changed = update(name="two")
    assert changed["name"] == "two"
    assert changed["updated_at"] is not None
    assert update(expires_at="2099-01-02T22:04:05Z")["expires_at"] == "2099-01-02T22:04:05Z"
    assert update(expires_at=None)["expires_at"] is None
    past = {"expires_at": "2020-01-02T22:04:05Z"}
    refused = api.request("PATCH", f"/snapshots/{snapshot_id}", json=past)
    assert refusal(refused) == (400, "expires_at")


def test_a_locked_snapshot_is_shown_and_not_changed(api: Api, add: Add) -> None:
    """Nothing here sets the status; it lasts, so no client may be told to ask again."""
    snapshot_id = add(status="locked")
    before = get(api, snapshot_id)
    assert before["status"] == "locked"
    assert listed(api) == [snapshot_id]
    path = f"/snapshots/{snapshot_id}"
    for answer in (
        api.request("PATCH", path, json={"name": "x"}),
        restore(api, snapshot_id),
        api.request("DELETE", path),
    ):
        assert (answer.status_code, answer.json()["precondition"]) == (412, "resource_not_usable")
        assert "locked" in answer.json()["help_message"]
    assert get(api, snapshot_id) == before


@pytest.mark.parametrize("status", list(SnapshotStatus))
def test_what_each_status_allows(api: Api, add: Add, status: str) -> None:
    def asked(request: Callable[[str], requests.Response]) -> int:
        return request(add(status=status)).status_code

    transient = status in ("creating", "restoring", "deleting")
    waits = 409 if transient else 412
    update = asked(lambda one: api.request("PATCH", f"/snapshots/{one}", json={"name": "x"}))
    assert update == (409 if status == "deleting" else 200)
    deletion = asked(lambda one: api.request("DELETE", f"/snapshots/{one}"))
    assert deletion == (409 if transient else 200)
    assert asked(lambda one: restore(api, one)) == (200 if status == "ready" else waits)


# -- instances of copies ----------------------------------------------------------------------------


def test_an_instance_of_a_snapshot_is_as_its_source(api: Api, add: Add) -> None:
    settings = {"work_mem": "7", "max_connections": "80"}
    snapshot_id = add(settings=settings, backup_frequency=12, logs_max_age_retention=9)
    answer = restore(api, snapshot_id, is_ha_cluster=False, node_type="db-dev-m")
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["name"], made["status"]) == ("copy", "provisioning")
    assert made["node_type"] == "db-dev-m"
    assert made["volume"] == {"type": "sbs_5k", "size": SIZE, "class": "sbs"}
    assert {one["name"]: one["value"] for one in made["settings"]} == settings
    assert made["backup_schedule"]["frequency"] == 12
    assert made["logs_policy"]["max_age_retention"] == 9
    assert made["endpoints"] == []
    assert get(api, snapshot_id)["status"] == "restoring"
    with api.database.read() as session:
        instance = session.get_one(Instance, UUID(made["id"]))
        assert [one.kind for one in instance.endpoints] == ["load_balancer"]
        assert [one.ip for one in instance.acl_rules] == ["0.0.0.0/0"]
    assert refusal(restore(api, snapshot_id)) == (409, "transient_state")


def test_with_less_memory_settings_are_the_defaults(api: Api, add: Add) -> None:
    snapshot_id = add(node_type="db-dev-m", settings={"work_mem": "7"})
    made = restore(api, snapshot_id, node_type="db-dev-s").json()
    settings = {one["name"]: one["value"] for one in made["settings"]}
    assert settings["effective_cache_size"] == "1300"
    assert settings["work_mem"] == "4"


def test_without_a_public_endpoint_a_copy_gets_none(
    api: Api, add: Add, add_instance: AddInstance
) -> None:
    made = [
        clone(api, add_instance(public=False)).json(),
        restore(api, add(public=False)).json(),
    ]
    with api.database.read() as session:
        for one in made:
            assert session.get_one(Instance, UUID(one["id"])).endpoints == []


@pytest.mark.parametrize(
    ("sent", "argument"),
    [
        ({"node_type": "db-none"}, "node_type"),
        ({"is_ha_cluster": True, "high_availability_mode": "disabled"}, "high_availability_mode"),
        ({"instance_name": 7}, "instance_name"),
    ],
)
def test_what_an_instance_of_a_snapshot_cannot_be(
    api: Api, add: Add, sent: Json, argument: str
) -> None:
    snapshot_id = add()
    assert refusal(restore(api, snapshot_id, **sent)) == (400, argument)
    assert get(api, snapshot_id)["status"] == "ready"


def test_a_copy_of_what_is_encrypted_is_never_plain(
    api: Api, add: Add, add_instance: AddInstance
) -> None:
    """Its operator does not say any more that volumes are on an encrypted device."""
    snapshot_id, instance_id = add(encryption=True), add_instance(encryption=True)
    for answer in (restore(api, snapshot_id), clone(api, instance_id)):
        assert (answer.status_code, answer.json()["precondition"]) == (412, "encrypted_volumes")
        assert "volumes_encrypted" in answer.json()["help_message"]
    assert get(api, snapshot_id)["status"] == "ready"
    assert status_of(api.database, Instance, instance_id) == "ready"


def test_a_clone_is_as_large_or_larger(api: Api, add_instance: AddInstance) -> None:
    instance_id = add_instance(node_type="db-dev-m")
    assert refusal(clone(api, instance_id, node_type="db-dev-s")) == (400, "node_type")
    assert refusal(clone(api, instance_id, node_type="db-none")) == (400, "node_type")
    answer = clone(api, instance_id)
    assert answer.status_code == 200, answer.text
    assert answer.json()["node_type"] == "db-dev-m"
    assert status_of(api.database, Instance, instance_id) == "snapshotting"


def test_a_clone_of_a_local_volume_has_the_node_types_size(
    api: Api, add_instance: AddInstance
) -> None:
    local = {"volume_type": "lssd", "volume_class": "lssd", "volume_size": 5_000_000_000}
    made = clone(api, add_instance(**local), node_type="db-dev-m").json()
    assert made["volume"] == {"type": "lssd", "size": 25_000_000_000, "class": "lssd"}


def test_a_project_with_snapshots_cannot_be_deleted(api: Api, add: Add) -> None:
    other = another_key(api.database, api.key.organization_id)
    add(other)
    with api.database.write() as session:
        for one in session.query(Instance).filter_by(project_id=other.project_id):
            session.delete(one)
    answer = api.request("DELETE", f"//account/v3/projects/{other.project_id}")
    assert answer.status_code == 412
    assert "snapshots" in answer.text
