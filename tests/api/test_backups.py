"""Backups on the wire, in every status: what is shown, listed, changed and refused.

That they are made and restored is tested with real engines in `tests/engines` and `tests/clients`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests

from openrdb.errors import HostUnavailable
from openrdb.state import backups
from openrdb.state.access import NewKey
from openrdb.state.models import DatabaseBackup, Instance, Node, Operation, now
from openrdb.state.statuses.backup import BackupStatus
from tests.support.state_database import Api, another_key, row

pytest_plugins = ["tests.support.state_database"]

Json = Any
MOMENT = datetime(2025, 12, 10, 5, 6, 25, 211540, tzinfo=UTC)
PORTS = iter(range(20000, 30000))


def add_instance(api: Api, key: NewKey | None = None, **values: Any) -> str:
    """Add an instance that is ready, and that nothing runs of."""
    with api.database.write() as session:
        made = row(key or api.key, **({"first_ready_at": now()} | values))
        made.nodes = [Node(address="127.0.0.1", port=next(PORTS), version="17.11")]
        session.add(made)
        return str(made.id)


def add(api: Api, key: NewKey | None = None, **values: Any) -> str:
    """Add a backup that is ready."""
    ordinary = {"status": "ready", "size": 1255, "checksum": "0" * 64, "updated_at": MOMENT}
    of_instance = {name: values.pop(name) for name in ("engine", "region") if name in values}
    with api.database.write() as session:
        instance = row(key or api.key, **of_instance)
        made = backups.new(instance, "shop", store_region="nl-ams", suffix=".custom", name="one")
        for name, value in (ordinary | values).items():
            setattr(made, name, value)
        session.add(made)
        return str(made.id)


def get(api: Api, backup_id: str) -> Json:
    answer = api.request("GET", f"/backups/{backup_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(api: Api, query: str = "", key: NewKey | None = None) -> list[str]:
    answer = api.request("GET", f"/backups?{query}", key)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["total_count"] >= len(found["database_backups"])
    return [one["id"] for one in found["database_backups"]]


def refusal(answer: requests.Response) -> tuple[int, str]:
    """Return the status, and the argument that is named or the error's type."""
    error = answer.json()
    details = error.get("details")
    return answer.status_code, details[0]["argument_name"] if details else error["type"]


def restore(api: Api, backup_id: str, instance_id: str, **sent: Any) -> requests.Response:
    body = {"instance_id": instance_id} | sent
    return api.request("POST", f"/backups/{backup_id}/restore", json=body)


def operation_of(api: Api, backup_id: str) -> Operation:
    with api.database.read() as session:
        (found,) = session.query(Operation).filter_by(subject_id=UUID(backup_id))
        return found


# -- what is shown ----------------------------------------------------------------------------------


def test_a_backup_is_shown_as_recorded(api: Api) -> None:
    instance_id = uuid4()
    backup_id = add(
        api,
        instance_id=instance_id,
        instance_name="its",
        created_at=MOMENT,
        expires_at=datetime(2032, 1, 2, 22, 4, 5, tzinfo=UTC),
        download_url="https://store/1",
        download_url_expires_at=MOMENT + timedelta(hours=24),
    )
    assert list(get(api, backup_id).items()) == [
        ("id", backup_id),
        ("instance_id", str(instance_id)),
        ("database_name", "shop"),
        ("name", "one"),
        ("status", "ready"),
        ("size", 1255),
        ("expires_at", "2032-01-02T22:04:05Z"),
        ("created_at", "2025-12-10T05:06:25.211540Z"),
        ("updated_at", "2025-12-10T05:06:25.211540Z"),
        ("instance_name", "its"),
        ("download_url", "https://store/1"),
        ("download_url_expires_at", "2025-12-11T05:06:25.211540Z"),
        ("same_region", False),
        ("region", "fr-par"),
    ]


def test_what_is_absent_is_null(api: Api) -> None:
    shown = get(api, add(api, status="creating", size=None, checksum=None, updated_at=None))
    absent = ["size", "expires_at", "updated_at", "download_url", "download_url_expires_at"]
    assert [name for name, value in shown.items() if value is None] == absent


def test_an_instances_new_name_is_its_backups_too(api: Api) -> None:
    instance_id = add_instance(api)
    backup_id, other = add(api, instance_id=UUID(instance_id)), add(api)
    api.request("PATCH", f"/instances/{instance_id}", json={"name": "renamed"})
    assert get(api, backup_id)["instance_name"] == "renamed"
    assert get(api, other)["instance_name"] == "test"


# -- lists ------------------------------------------------------------------------------------------


def test_lists_are_narrowed(api: Api) -> None:
    of_one = uuid4()
    first = add(api, instance_id=of_one, name="Nightly of shop")
    second = add(api, instance_id=of_one, name="before the sale")
    third = add(api, name="nightly")
    other = another_key(api.database, api.key.organization_id)
    foreign = add(api, other, name="foreign")
    assert listed(api) == [first, second, third, foreign]
    assert listed(api, f"instance_id={of_one}") == [first, second]
    assert listed(api, "name=nightly") == [first, third]
    assert listed(api, f"name=nightly&instance_id={of_one}") == [first]
    assert listed(api, f"project_id={other.project_id}") == [foreign]
    assert listed(api, f"organization_id={api.key.organization_id}&name=foreig") == [foreign]
    assert listed(api, f"organization_id={uuid4()}") == []
    assert listed(api, "name=&instance_id=&project_id=&organization_id=") == listed(api)
    assert listed(api, "name=%25") == []


def test_orders_and_pages(api: Api) -> None:
    made = [
        add(api, name=name, status=status, created_at=MOMENT + timedelta(seconds=number))
        for number, (name, status) in enumerate(
            [("b", "ready"), ("a", "ready"), ("b", "error"), ("c", "creating")]
        )
    ]
    orders = {
        "created_at": made,
        "name": [made[1], made[0], made[2], made[3]],
        "status": [made[3], made[2], made[0], made[1]],
    }
    for name, expected in orders.items():
        assert listed(api, f"order_by={name}_asc") == expected
        assert listed(api, f"order_by={name}_desc") == expected[::-1]
        pages = [listed(api, f"order_by={name}_asc&page_size=3&page={page}") for page in (1, 2, 3)]
        assert pages == [expected[:3], expected[3:], []]
    assert listed(api, "order_by=") == made
    for wrong in ("order_by=size_asc", "page=0", "page_size=101", "instance_id=x"):
        answer = api.request("GET", f"/backups?{wrong}")
        assert refusal(answer) == (400, wrong.partition("=")[0])


def test_nobody_sees_beyond_their_key_and_region(api: Api) -> None:
    backup_id = add(api)
    elsewhere = add(api, region="nl-ams")
    assert listed(api) == [backup_id]
    stranger = another_key(api.database)
    colleague = another_key(api.database, api.key.organization_id)
    calls = [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/export"),
        ("POST", "/restore"),
    ]
    sent = {"instance_id": str(uuid4())}
    for method, below in calls:
        for key, wanted in [(stranger, backup_id), (colleague, backup_id), (api.key, elsewhere)]:
            answer = api.request(method, f"/backups/{wanted}{below}", key, json=sent)
            assert answer.status_code == 404
            assert answer.json() == {
                "message": "resource is not found",
                "resource": "database_backup",
                "resource_id": wanted,
                "type": "not_found",
            }
    assert listed(api, "", stranger) == listed(api, "", colleague) == []


# -- changes ----------------------------------------------------------------------------------------


def test_name_and_expiry_can_be_changed(api: Api) -> None:
    backup_id = add(api)
    path = f"/backups/{backup_id}"
    before = get(api, backup_id)
    assert api.request("PATCH", path, json={}).json() == before
    later = (now() + timedelta(days=9)).replace(microsecond=0)
    text = later.isoformat().replace("+00:00", "Z")
    changed = api.request("PATCH", path, json={"name": "two", "expires_at": text}).json()
    assert (changed["name"], changed["expires_at"]) == ("two", text)
    assert changed["updated_at"] > before["updated_at"]
    # By a client that writes null, or nothing, for what it does not mean.
    for sent in ({"name": None}, {"name": ""}):
        assert api.request("PATCH", path, json=sent).json() == changed
    without = api.request("PATCH", path, json={"expires_at": None}).json()
    assert (without["name"], without["expires_at"]) == ("two", None)
    assert get(api, backup_id) == without


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2100-01-02T22:04:05Z", "2100-01-02T22:04:05Z"),
        ("2100-01-02T22:04:05.5+02:00", "2100-01-02T20:04:05.500000Z"),
        ("2100-01-02T22:04:05.123456789Z", "2100-01-02T22:04:05.123456Z"),
        ("2100-01-02T22:04:05", "2100-01-02T22:04:05Z"),
    ],
)
def test_times_as_clients_write_them(api: Api, text: str, shown: str) -> None:
    changed = api.request("PATCH", f"/backups/{add(api)}", json={"expires_at": text})
    assert changed.json()["expires_at"] == shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "tomorrow"},
        {"expires_at": "2100-01-01"},
        {"expires_at": "4102444800"},
        {"expires_at": 4102444800},
        {"expires_at": "9999-12-31T23:59:59-10:00"},
        {"expires_at": "2100-02-30T00:00:00Z"},
        {"name": "two\nlines"},
        {"name": " "},
        {"name": "x" * 256},
        {"name": 1},
    ],
    ids=str,
)
def test_wrong_changes(api: Api, wrong: Json) -> None:
    backup_id = add(api)
    before = get(api, backup_id)
    answer = api.request("PATCH", f"/backups/{backup_id}", json=wrong)
    assert refusal(answer) == (400, next(iter(wrong)))
    assert get(api, backup_id) == before


ALLOWED = {
    "update": {"creating", "ready", "restoring", "exporting", "error"},
    "export": {"ready"},
    "restore": {"ready"},
    "delete": {"ready", "error"},
}
LEADS_TO = {"export": "exporting", "restore": "restoring", "delete": "deleting"}


def test_a_locked_backup_is_shown_and_not_changed(api: Api) -> None:
    """Nothing here sets the status; it lasts, so no client may be told to ask again."""
    instance_id, backup_id = add_instance(api), add(api, status="locked")
    before = get(api, backup_id)
    assert before["status"] == "locked"
    assert listed(api) == [backup_id]
    path = f"/backups/{backup_id}"
    for method, below, sent in (
        ("PATCH", "", {"name": "new"}),
        ("POST", "/export", {}),
        ("POST", "/restore", {"instance_id": instance_id}),
        ("DELETE", "", None),
    ):
        answer = api.request(method, path + below, json=sent)
        assert (answer.status_code, answer.json()["precondition"]) == (412, "resource_not_usable")
        assert "locked" in answer.json()["help_message"]
    assert get(api, backup_id) == before


@pytest.mark.parametrize("status", BackupStatus)
@pytest.mark.parametrize("request_", ALLOWED)
def test_what_each_status_allows(api: Api, status: str, request_: str) -> None:
    instance_id, backup_id = add_instance(api), add(api, status=str(status))
    path = f"/backups/{backup_id}"
    method, below, sent = {
        "update": ("PATCH", "", {"name": "new"}),
        "export": ("POST", "/export", {}),
        "restore": ("POST", "/restore", {"instance_id": instance_id}),
        "delete": ("DELETE", "", None),
    }[request_]
    answer = api.request(method, path + below, json=sent)
    if status in ALLOWED[request_]:
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == LEADS_TO.get(request_, status)
        return
    if status == "error":
        assert (answer.status_code, answer.json()["precondition"]) == (412, "resource_not_usable")
    else:
        assert (answer.status_code, answer.json()["current_state"]) == (409, status)
        assert answer.json()["resource"] == "database_backup"
    assert get(api, backup_id)["status"] == status


def test_an_export_keeps_the_last_url_until_there_is_another(api: Api) -> None:
    url = {"download_url": "https://store/1", "download_url_expires_at": MOMENT}
    exported = api.request("POST", f"/backups/{add(api, **url)}/export").json()
    assert exported["status"] == "exporting"
    assert exported["download_url"] == "https://store/1"
    assert exported["updated_at"] == "2025-12-10T05:06:25.211540Z"


# -- restores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "destination"),
    [
        ({}, "shop"),
        ({"database_name": None}, "shop"),
        ({"database_name": ""}, "shop"),
        ({"database_name": "shop"}, "shop"),
        ({"database_name": "rdb"}, "rdb"),
        ({"database_name": "copy"}, "copy"),
    ],
)
def test_where_a_backup_is_restored_to(api: Api, sent: Json, destination: str) -> None:
    instance_id, backup_id = add_instance(api), add(api)
    answer = restore(api, backup_id, instance_id, **sent)
    assert answer.json()["status"] == "restoring"
    assert answer.json()["database_name"] == "shop"
    parameters = {"instance_id": instance_id, "database_name": destination}
    assert operation_of(api, backup_id).parameters == parameters
    assert api.request("GET", f"/instances/{instance_id}").json()["status"] == "backuping"


def test_a_newer_version_takes_what_an_older_one_made(api: Api) -> None:
    instance_id = add_instance(api, engine="PostgreSQL-18")
    assert restore(api, add(api, engine="PostgreSQL-14"), instance_id).status_code == 200


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ({"engine": "MySQL-9"}, "runs MySQL-9, and the backup is of PostgreSQL-17"),
        ({"engine": "PostgreSQL-16"}, "is older than PostgreSQL-17"),
    ],
)
def test_another_engine_takes_no_backup(api: Api, there: Json, why: str) -> None:
    answer = restore(api, add(api), add_instance(api, **there))
    assert refusal(answer) == (400, "instance_id")
    assert why in answer.text


def test_another_project_or_region_takes_no_backup(api: Api) -> None:
    backup_id = add(api)
    colleague = another_key(api.database, api.key.organization_id)
    answer = restore(api, backup_id, add_instance(api, colleague))
    assert refusal(answer) == (400, "instance_id")
    stranger = another_key(api.database)
    for unseen in (
        add_instance(api, stranger),
        add_instance(api, region="nl-ams"),
        str(uuid4()),
    ):
        answer = restore(api, backup_id, unseen)
        assert (answer.status_code, answer.json()["resource"]) == (404, "instance")
    assert get(api, backup_id)["status"] == "ready"


@pytest.mark.parametrize("name", ["postgres", "template1", "_rdb_x", "a/b", "x" * 64, "\x00"])
def test_databases_that_cannot_be_made_are_no_destination(api: Api, name: str) -> None:
    answer = restore(api, add(api), add_instance(api), database_name=name)
    assert refusal(answer) == (400, "database_name")


@pytest.mark.parametrize("sent", [{}, {"instance_id": None}, {"instance_id": "x"}])
def test_a_restore_needs_an_instance(api: Api, sent: Json) -> None:
    answer = api.request("POST", f"/backups/{add(api)}/restore", json=sent)
    assert refusal(answer) == (400, "instance_id")


@pytest.mark.parametrize("status", ["configuring", "backuping", "deleting", "error"])
def test_an_instance_that_is_not_ready_takes_no_backup(api: Api, status: str) -> None:
    backup_id, instance_id = add(api), add_instance(api, status=status)
    answer = restore(api, backup_id, instance_id)
    if status == "error":
        assert (answer.status_code, answer.json()["precondition"]) == (412, "resource_not_usable")
    else:
        assert answer.status_code == 409
        assert (answer.json()["resource"], answer.json()["current_state"]) == ("instance", status)
    assert get(api, backup_id)["status"] == "ready"


# -- the instance meanwhile -------------------------------------------------------------------------


def test_an_instance_that_is_backed_up_can_be_renamed_and_nothing_else(api: Api) -> None:
    instance_id = add_instance(api, status="backuping")
    path = f"/instances/{instance_id}"
    assert api.request("PATCH", path, json={"name": "new"}).json()["name"] == "new"
    for method, below in [("DELETE", ""), ("POST", "/restart")]:
        answer = api.request(method, path + below)
        assert (answer.status_code, answer.json()["current_state"]) == (409, "backuping")


def test_a_backup_without_the_agent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other requests for an instance: the deployment is not out of anything."""

    def is_away(*_: Any) -> None:
        raise HostUnavailable("the agent does not answer")

    instance_id = add_instance(api)
    monkeypatch.setattr("openrdb.api.content.administration", is_away)
    sent = {"instance_id": instance_id, "database_name": "shop", "name": "one"}
    answer = api.request("POST", "/backups", json=sent)
    assert answer.status_code == 409, answer.text
    shown = answer.json()
    assert (shown["resource_id"], shown["current_state"]) == (instance_id, "autohealing")
    assert listed(api) == []


def test_a_project_with_backups_stays(api: Api) -> None:
    project = api.request("POST", "//account/v3/projects", json={"name": "p"}).json()["id"]
    backup_id = add(api, project_id=UUID(project))
    path = f"//account/v3/projects/{project}"
    assert api.request("DELETE", path).json()["precondition"] == "resource_still_in_use"
    with api.database.write() as session:
        session.delete(session.get_one(DatabaseBackup, UUID(backup_id)))
    assert api.request("DELETE", path).status_code == 204


# -- the schedule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "moves"),
    [
        ({"backup_schedule_start_hour": 3}, True),
        ({"backup_schedule_frequency": 12}, True),
        ({"is_backup_schedule_disabled": False}, False),
        ({"backup_schedule_retention": 3}, False),
        ({"backup_same_region": True}, False),
    ],
)
def test_when_the_next_backup_is_made(api: Api, sent: Json, moves: bool) -> None:
    due = now() + timedelta(hours=1)
    instance_id = add_instance(
        api, backup_disabled=False, backup_frequency=24, backup_next_run_at=due
    )
    api.request("PATCH", f"/instances/{instance_id}", json=sent)
    with api.database.read() as session:
        instance = session.get_one(Instance, UUID(instance_id))
    assert (instance.backup_next_run_at != due) == moves
    if "backup_schedule_start_hour" in sent:
        assert instance.backup_next_run_at is not None
        assert (instance.backup_next_run_at.hour, instance.backup_next_run_at.minute) == (3, 0)
