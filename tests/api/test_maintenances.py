"""apply-maintenance and what instances show of their maintenances, on both kinds of state."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, select

from openrdb.api.wire import format_instant
from openrdb.state.models import Instance, Maintenance, Operation, now
from openrdb.state.statuses import instance as statuses
from tests.support.service import creation
from tests.support.state_database import Api, another_key

pytest_plugins = ["tests.support.state_database"]

DAY = timedelta(days=1)


@pytest.fixture
def instance_id(api: Api) -> str:
    """A ready instance; nothing is performed here."""
    created = str(api.request("POST", "/instances", json=creation()).json()["id"])
    with api.database.write() as session:
        instance = session.get_one(Instance, UUID(created))
        instance.status, instance.first_ready_at = "ready", now()
    return created


def plan(api: Api, instance_id: str, status: str = "pending", **values: Any) -> Maintenance:
    """Add a maintenance that can be applied since yesterday."""
    moment = now().replace(microsecond=5)
    times = {"starts_at": moment - DAY, "forced_at": moment + DAY, "stops_at": moment + 2 * DAY}
    ordinary = {"version": "17.99", "reason": "newer", "closed_at": None} | times
    with api.database.write() as session:
        planned = Maintenance(instance_id=UUID(instance_id), status=status, **(ordinary | values))
        session.add(planned)
    return planned


def apply(api: Api, instance_id: str, **options: Any) -> Any:
    return api.request("POST", f"/instances/{instance_id}/apply-maintenance", json={}, **options)


def test_it_is_applied_once(api: Api, instance_id: str) -> None:
    plan(api, instance_id, "canceled", created_at=now() - DAY, closed_at=now())
    planned = plan(api, instance_id)
    shown = {
        "reason": "newer",
        "status": "pending",
        "is_applicable": True,
        "starts_at": format_instant(planned.starts_at),
        "stops_at": format_instant(planned.stops_at),
        "closed_at": None,
        "forced_at": format_instant(planned.forced_at),
    }
    path = f"/instances/{instance_id}"
    canceled, pending = api.request("GET", path).json()["maintenances"]
    assert (canceled["status"], canceled["is_applicable"]) == ("canceled", False)
    assert pending == shown
    answer = apply(api, instance_id)
    shown |= {"status": "ongoing", "is_applicable": False}
    assert (answer.status_code, answer.json()) == (200, shown)
    found = api.request("GET", path).json()
    assert (found["status"], found["maintenances"][-1]) == ("initializing", shown)
    with api.database.read() as session:
        query = select(Operation).where(Operation.kind == "apply_maintenance")
        (operation,) = session.scalars(query)
    assert operation.id in api.started
    assert operation.parameters == {"version": "17.99", "bundle_before": None}
    again = apply(api, instance_id)
    assert (again.status_code, again.json()["type"]) == (409, "transient_state")


def test_one_that_is_done_is_answered_as_it_is(api: Api, instance_id: str) -> None:
    plan(api, instance_id, "done", closed_at=now())
    begun = len(api.started)
    answer = apply(api, instance_id)
    assert (answer.status_code, answer.json()["status"]) == (200, "done")
    assert api.request("GET", f"/instances/{instance_id}").json()["status"] == "ready"
    assert len(api.started) == begun


def test_without_one_to_apply_nothing_changes(api: Api, instance_id: str) -> None:
    for planned in (
        None,
        {"status": "canceled"},
        {"starts_at": now() + DAY},
        {"stops_at": now() - timedelta(hours=1)},
    ):
        if planned is not None:
            plan(api, instance_id, **planned)
        answer = apply(api, instance_id)
        refusal = answer.json()
        assert (answer.status_code, refusal["type"]) == (412, "precondition_failed"), planned
        assert refusal["precondition"] == "maintenance"
        assert api.request("GET", f"/instances/{instance_id}").json()["status"] == "ready"
        with api.database.write() as session:
            session.execute(delete(Maintenance))


def test_in_each_status(api: Api, instance_id: str) -> None:
    planned = plan(api, instance_id)
    for status in sorted(statuses.MOVES):
        with api.database.write() as session:
            session.get_one(Maintenance, planned.id).status = "pending"
            instance = session.get_one(Instance, UUID(instance_id))
            instance.status = status
            instance.primary.observed_writes = "read_only" if status == "disk_full" else "open"
        expected = 200 if status in statuses.WORKING else 409
        answer = apply(api, instance_id)
        assert answer.status_code == (412 if status == "error" else expected), status


def test_others_do_not_see_it(api: Api, instance_id: str) -> None:
    plan(api, instance_id)
    answer = apply(api, instance_id, key=another_key(api.database))
    assert (answer.status_code, answer.json()["resource"]) == (404, "instance")


def test_one_of_several_is_listed(api: Api, instance_id: str) -> None:
    other = str(api.request("POST", "/instances", json=creation()).json()["id"])
    plan(api, other)
    plan(api, instance_id, "done", closed_at=now())
    listed = {
        wanted: [one["id"] for one in api.request("GET", f"/instances{wanted}").json()["instances"]]
        for wanted in ("", "?has_maintenances=true", "?has_maintenances=false")
    }
    assert listed["?has_maintenances=true"] == [other]
    assert listed["?has_maintenances=false"] == listed[""] == [instance_id, other]
