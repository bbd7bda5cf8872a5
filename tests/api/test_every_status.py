"""The calls of recorded clients, made to an instance in every status: none is repeated without end.

The clients ask again at once what was answered with 409, or look whether the status has settled and
then ask again. So only a status that an operation will end may be answered with 409.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests

from openrdb.state.database import Database
from openrdb.state.models import Instance, now
from openrdb.state.statuses import instance as statuses
from tests.api.test_endpoints import PUBLIC, create, network, private
from tests.support.recorded import FLOWS, unmasked
from tests.support.state_database import REGION, Api

pytest_plugins = ["tests.support.state_database"]

Json = Any
Call = tuple[str, str, Json]
"""Method, path below the instance, body."""

_OF_INSTANCE = re.compile(rf"/rdb/v1/regions/{REGION}/instances/[0-9a-f-]{{36}}(.*)")
_NAME = re.compile("(/users/|/databases/).*")
_MOST = 3
"""Requests for one call: the first, and again when an operation has ended."""


def calls() -> list[Call]:
    """Return the calls to one instance that clients were recorded with, one of each form."""
    found: dict[str, Call] = {}
    for scenario, steps in FLOWS.items():
        for number, step in enumerate(steps):
            matched = _OF_INSTANCE.fullmatch(step["path"])
            if matched is None or "private_network" in str(step["request"]):
                continue
            sent = step["request"] if step["method"] != "GET" else None
            if scenario.startswith("cli/") and sent is not None:
                sent = unmasked(steps, number)
            below = matched[1] + (f"?{step['query']}" if step["query"] else "")
            form = (step["method"], _NAME.sub(r"\1", matched[1]), sorted(sent or ()))
            found.setdefault(str(form), (step["method"], below, sent))
    return list(found.values())


CALLS = calls()


def test_the_calls_are_of_all_kinds() -> None:
    kinds = {(method, below.partition("?")[0].split("/")[-1][:12]) for method, below, _ in CALLS}
    for what in ("users", "databases", "privileges", "acls", "certificate", ""):
        assert ("GET", what) in kinds
    for what in ("users", "databases", "acls", "endpoints", "restart"):
        assert ("POST", what) in kinds
    assert {("PUT", "privileges"), ("PUT", "settings"), ("PUT", "acls"), ("PATCH", "")} <= kinds
    assert ("DELETE", "") in kinds


class Client:
    """Asks as the recorded clients do, and gives up where they never would."""

    def __init__(self, api: Api, instance_id: str, then: str) -> None:
        self._api = api
        self._id = instance_id
        self._then = then
        """The status in which whatever is under way ends."""

    def ask(self, call: Call) -> requests.Response:
        method, below, sent = call
        for _ in range(_MOST):
            answer = self._api.request(method, f"/instances/{self._id}{below}", json=sent)
            if answer.status_code != 409:
                return answer
            with self._api.database.write() as session:
                instance = session.get_one(Instance, UUID(self._id))
                if instance.status in statuses.TRANSIENT:
                    instance.status = self._then
        pytest.fail(f"{method} {below} is asked without end: {answer.text}")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/state.sqlite")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture(params=[True, False], ids=["made", "never made"])
def instance_id(api: Api, request: pytest.FixtureRequest) -> str:
    created = str(create(api, PUBLIC, private(network(api))).json()["id"])
    with api.database.write() as session:
        instance = session.get_one(Instance, UUID(created))
        instance.first_ready_at = now() if request.param else None
    return created


@pytest.mark.parametrize("then", ["ready", "error"])
def test_every_call_has_an_end(
    api: Api, instance_id: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing makes the operations here: what waits for one's end gives up soon.
    monkeypatch.setattr("openrdb.api.instances._RENEWAL_WAIT", 0.05)
    client = Client(api, instance_id, then)
    for status in sorted(statuses.MOVES):
        for call in CALLS:
            with api.database.write() as session:
                instance = session.get_one(Instance, UUID(instance_id))
                full = status == "disk_full"
                instance.primary.observed_writes = "read_only" if full else "open"
                instance.status = status
            answer = client.ask(call)
            assert answer.status_code < 500, (status, call, answer.text)


def test_in_error_terraform_plans_applies_and_destroys(api: Api, instance_id: str) -> None:
    """What its refresh reads is there, and what its destroy removes is gone, or will be."""
    path = f"/instances/{instance_id}"
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).status = "error"
    for below in ("", "/certificate", "/users", "/databases", "/privileges", "/acls"):
        assert api.request("GET", path + below).status_code == 200, below
    assert api.request("GET", f"{path}/users").json()["users"] == [
        {"name": "admin", "is_admin": True}
    ]
    assert api.request("GET", f"{path}/databases").json()["databases"] == [
        {"name": "rdb", "owner": "_rdb_superadmin", "managed": True, "size": 0}
    ]
    assert api.request("GET", f"{path}/privileges").json()["privileges"] == [
        {"permission": "all", "database_name": "rdb", "user_name": "admin"}
    ]
    changed = api.request("PATCH", path, json={"name": "other", "tags": ["x"]})
    assert (changed.status_code, changed.json()["tags"]) == (200, ["x"])
    level = {"database_name": "rdb", "user_name": "admin", "permission": "none"}
    assert api.request("PUT", f"{path}/privileges", json=level).json() == level
    for below in ("/users/bob", "/databases/db"):
        answer = api.request("DELETE", path + below)
        assert (answer.status_code, answer.content) == (204, b""), below
    assert api.request("DELETE", path).json()["status"] == "deleting"


def test_a_locked_instance_is_shown_and_not_changed(api: Api, instance_id: str) -> None:
    """Nothing here sets the status; it lasts, so no client may be told to ask again."""
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).status = "locked"
    path = f"/instances/{instance_id}"
    before = api.request("GET", path).json()
    assert before["status"] == "locked"
    assert [one["status"] for one in api.request("GET", "/instances").json()["instances"]] == [
        "locked"
    ]
    refused = 0
    for method, below, sent in CALLS:
        answer = api.request(method, path + below, json=sent)
        if method != "GET":
            assert (answer.status_code, answer.json().get("precondition")) == (
                412,
                "resource_not_usable",
            ), (method, below, answer.text)
            assert "locked" in answer.json()["help_message"]
            refused += 1
    assert refused > 10
    assert api.request("GET", path).json() == before
