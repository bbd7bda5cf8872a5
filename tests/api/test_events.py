"""The record of who asked for what: every change and every refusal, without secrets."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from openrdb.state import access, events
from openrdb.state.models import Event, Instance, Operation, Project, now
from openrdb.state.operations import mark_overdue
from tests.api.test_keys import MUTATIONS, OPERATIONS, arguments, filled, ids_of
from tests.support.service import Service
from tests.support.state_database import REGION, Api, row

pytest_plugins = ["tests.support.state_database"]

PASSWORD = "Correct-horse-7-battery"
VPC = f"//vpc/v2/regions/{REGION}"


def recorded(api: Api) -> list[Event]:
    """All events, the oldest first."""
    with api.database.read() as session:
        return session.query(Event).order_by(Event.at).all()


@pytest.fixture
def instance(api: Api) -> Instance:
    """A ready instance, of which only the row is there."""
    with api.database.write() as session:
        added = row(api.key, certificate="PEM", first_ready_at=now())
        session.add(added)
    return added


def creation(**changes: Any) -> dict[str, Any]:
    ordinary = {
        "engine": "PostgreSQL-17",
        "node_type": "db-dev-s",
        "user_name": "admin",
        "password": PASSWORD,
        "name": "ours",
    }
    return ordinary | changes


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for method, path in MUTATIONS if ids_of(path)]
)
def test_every_change_of_what_is_not_there_leaves_one_event(
    api: Api, method: str, path: str
) -> None:
    (operation,) = [found for verb, known, found in OPERATIONS if (verb, known) == (method, path)]
    answer = api.request(method, filled(path, {}), **arguments(operation))
    assert answer.status_code in (400, 404), answer.text
    (event,) = recorded(api)
    assert event.access_key == api.key.access_key
    assert event.source == "127.0.0.1"
    assert event.request_id == answer.headers["X-Request-Id"]
    assert (event.outcome, event.error_type) == ("refused", answer.json()["type"])
    assert event.action
    assert " " not in event.action
    assert event.subject_id is not None


def test_the_event_of_a_creation(api: Api) -> None:
    answer = api.request("POST", "/instances", json=creation())
    (event,) = recorded(api)
    assert (event.action, event.outcome) == ("create_instance", "accepted")
    assert (event.subject_type, event.subject_id) == ("instance", answer.json()["id"])
    assert event.request_id == answer.headers["X-Request-Id"]
    assert [event.operation_id] == api.started
    assert event.parameters == {
        "engine": "PostgreSQL-17",
        "node_type": "db-dev-s",
        "user_name": "admin",
        "name": "ours",
    }


def test_no_secret_is_in_any_event(api: Api, instance: Instance) -> None:
    users = f"/instances/{instance.id}/users"
    sent = {"name": "bob", "password": PASSWORD, "is_admin": False}
    api.request("POST", "/instances", json=creation())
    api.request("POST", "/instances", json=creation(node_type="none"))
    api.request("POST", users, json=sent)
    api.request("POST", f"/instances/{uuid4()}/users", json=sent | {"Password": [PASSWORD]})
    api.request("POST", users, json={"x": {"nested": [{"the_secret": PASSWORD}]}})
    found = recorded(api)
    assert len(found) == 5
    whole = json.dumps([one.parameters for one in found])
    assert PASSWORD not in whole
    assert "SCRAM" not in whole
    assert found[2].parameters == {"name": "bob", "is_admin": False}


def test_accepted_changes_around_an_instance(api: Api, instance: Instance) -> None:
    path = f"/instances/{instance.id}"
    for method, what, sent, action in (
        ("PATCH", path, {"name": "renamed"}, "update_instance"),
        ("PATCH", path, {"logs_policy": {"max_age_retention": 3}}, "update_instance"),
        ("PUT", f"{path}/acls", {"rules": []}, "set_instance_acl_rules"),
        ("POST", f"{path}/restart", None, "restart_instance"),
        ("DELETE", path, None, "delete_instance"),
    ):
        with api.database.write() as session:
            session.execute(update(Instance).values(status="ready"))
        before = len(api.started)
        assert api.request(method, what, json=sent).status_code == 200
        event = recorded(api)[-1]
        assert (event.action, event.outcome) == (action, "accepted")
        assert event.subject_id == str(instance.id)
        assert [event.operation_id] == (api.started[before:] or [None])
        assert event.parameters == (sent or {})


def test_a_status_that_refuses_leaves_the_refusal_alone(api: Api, instance: Instance) -> None:
    path = f"/instances/{instance.id}"
    assert api.request("POST", f"{path}/restart").status_code == 200
    assert api.request("PUT", f"{path}/acls", json={"rules": []}).status_code == 409
    assert [(one.outcome, one.error_type) for one in recorded(api)] == [
        ("accepted", None),
        ("refused", "transient_state"),
    ]
    with api.database.read() as session:
        (operation,) = session.query(Operation)
        assert (operation.kind, operation.status_before) == ("restart_instance", "ready")
        assert session.get_one(Instance, instance.id).status == "restarting"


def test_companions(api: Api) -> None:
    network = api.request("POST", f"{VPC}/private-networks", json={"name": "net"}).json()
    one = f"{VPC}/private-networks/{network['id']}"
    source = {"private_network_id": network["id"]}
    ips = f"//ipam/v1/regions/{REGION}/ips"
    ip = api.request("POST", ips, json={"source": source}).json()
    api.request("PATCH", f"{ips}/{ip['id']}", json={"tags": ["a"]})
    api.request("DELETE", f"{ips}/{ip['id']}")
    api.request("PATCH", one, json={"name": "other"})
    api.request("POST", f"{one}/enable-dhcp")
    api.request("DELETE", one)
    vpc = api.request("POST", f"{VPC}/vpcs", json={"name": "vpc"}).json()
    api.request("PATCH", f"{VPC}/vpcs/{vpc['id']}", json={"name": "other"})
    api.request("POST", f"{VPC}/vpcs/{vpc['id']}/enable-routing")
    api.request("DELETE", f"{VPC}/vpcs/{vpc['id']}")
    project = api.request("POST", "//account/v3/projects", json={"name": "p"}).json()
    api.request("PATCH", f"//account/v3/projects/{project['id']}", json={"name": "q"})
    api.request("DELETE", f"//account/v3/projects/{project['id']}")
    found = recorded(api)
    assert {one.outcome for one in found} == {"accepted"}
    assert [(one.subject_type, one.subject_id) for one in found] == [
        ("private_network", network["id"]),
        *[("ip", ip["id"])] * 3,
        *[("private_network", network["id"])] * 3,
        *[("vpc", vpc["id"])] * 4,
        *[("project", project["id"])] * 3,
    ]


def test_keys_that_may_not(api: Api) -> None:
    with api.database.write() as session:
        project = session.query(Project).first()
        assert project is not None
        reading = access.create_key(session, project, whole_organization=True, read_only=True)
    assert api.request("POST", "/instances", reading, json=creation()).status_code == 403
    (event,) = recorded(api)
    assert (event.access_key, event.error_type) == (reading.access_key, "permissions_denied")
    answer = api.request("POST", "/instances", headers={"X-Auth-Token": str(uuid4())})
    assert answer.status_code == 401
    assert answer.headers["X-Request-Id"]
    assert len(recorded(api)) == 1


def test_reads_leave_no_events_and_have_an_id(api: Api) -> None:
    first, second = (api.request("GET", "/instances") for _ in range(2))
    assert api.request("GET", f"/instances/{uuid4()}").status_code == 404
    assert recorded(api) == []
    assert UUID(first.headers["X-Request-Id"]) != UUID(second.headers["X-Request-Id"])


def test_texts_are_shortened(api: Api) -> None:
    api.request("POST", "/instances", json={"name": "x" * 10_000, "y" * 10_000: ["z"] * 10_000})
    api.request("POST", "/" + "p" * 5000, json={})
    api.request("POST", "/instances", json={"name": "a\x00b"})
    assert all(len(json.dumps(one.parameters)) < 2000 for one in recorded(api))
    assert max(len(one.action) for one in recorded(api)) <= 255


def test_events_outlive_their_subject_by_ninety_days(api: Api, instance: Instance) -> None:
    long_ago, lately = (now() - timedelta(days=days) for days in (91, 89))

    def event(subject: Any, at: Any) -> Event:
        return Event(
            at=at, action="x", outcome="done", subject_type="instance", subject_id=str(subject)
        )

    gone, going = uuid4(), uuid4()
    with api.database.write() as session:
        session.add_all([event(instance.id, long_ago), event(gone, long_ago)])
        session.add_all([event(going, long_ago), event(going, lately)])
        session.add(Event(at=long_ago, action="x", outcome="refused"))
        session.add(Event(at=lately, action="x", outcome="refused"))
    with api.database.write() as session:
        events.prune(session)
    left = sorted(str(one.subject_id) for one in recorded(api))
    assert left == sorted([str(instance.id), str(going), str(going), "None"])


def test_an_operation_past_its_deadline_is_said_once(api: Api, instance: Instance) -> None:
    api.request("POST", f"/instances/{instance.id}/restart")
    with api.database.write() as session:
        assert mark_overdue(session) == []
        session.execute(update(Operation).values(deadline_at=now() - timedelta(seconds=1)))
    for _ in range(2):
        with api.database.write() as session:
            mark_overdue(session)
    assert [one.outcome for one in recorded(api)] == ["accepted", "overdue"]


def test_one_event_of_a_request_that_waits_and_is_refused(service: Service) -> None:
    """The refusal is the engine's, after the request was accepted: its operation's end says so."""
    instance = service.create()
    path = f"/instances/{instance.id}/users/nobody"
    refused = service.request("DELETE", path)
    assert refused.status_code == 404
    query = (
        "SELECT action, outcome, error_type, request_id FROM events WHERE subject_id = ? "
        "ORDER BY at DESC LIMIT 2"
    )
    with sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True) as state:
        found = state.execute(query, (instance.id,)).fetchall()
    assert found == [
        ("delete_user", "refused", "not_found", None),
        ("delete_user", "accepted", None, refused.headers["X-Request-Id"]),
    ]
    assert service.request("GET", f"/instances/{instance.id}").json()["status"] == "ready"
