"""Recorded flows of the official clients, replayed: same statuses, same shapes, same values.

Ids, addresses, ports, times and certificates are others here, but must be as constant as they were
recorded: each recorded one stands for one of ours from its first appearance on.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.api.test_wire import INSTANT, remove
from tests.service import Service, ports_of_worker, wait_until

Json = Any

FLOWS: dict[str, list[dict[str, Json]]] = {
    flow["scenario"]: flow["steps"]
    for flow in map(
        json.loads,
        gzip.decompress((Path(__file__).parent / "recordings/flows.jsonl.gz").read_bytes())
        .decode()
        .splitlines(),
    )
}
ENCRYPTED = [
    "terraform/instance-encryption-at-rest",
    "terraform/instance-update-encryption-at-rest",
]
"""Flows that need volumes on an encrypted device."""

UUID_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHARED = {"organization_id", "project_id"}
"""Several recorded ones may be one here: the organization's id is its default project's."""
NOT_RECORDED = {"high_availability_mode"}
"""Only the newest recordings have it."""


class Replay:
    """One flow against a service."""

    def __init__(self, service: Service, scenario: str) -> None:
        self.service = service
        self.masked = scenario.startswith("cli/")
        self.ours: dict[tuple[str, Json], Json] = {}
        self.last: dict[str, Json] = {}
        self.created: list[tuple[str, str]] = []

    def run(self, steps: list[dict[str, Json]]) -> None:
        for number, step in enumerate(steps):
            place = f"step {number}, {step['method']} {step['path']}"
            answer = self._poll(step)
            assert answer.status_code == step["status"], f"{place}: {answer.text}"
            if step["response"] is None:
                assert answer.content == b"", place
            elif step["response"] == "see catalog/":
                assert answer.json()["engines"], place
            else:
                self._compare(step, answer.json(), place)

    def _poll(self, step: dict[str, Json]) -> Any:
        """Ask until the answer is the last recorded one; all but the first GETs are polls."""
        answers = [self._ask(step)]
        recorded = step["response"]
        if step["method"] == "GET" and isinstance(recorded, dict):
            status = recorded.get("status")

            def reached() -> bool:
                answer = answers[-1]
                if answer.status_code == step["status"] and answer.json().get("status") == status:
                    return True
                seen = answer.json().get("status")
                assert seen in {*TRANSITORY, status}, f"{seen} on the way to {status}"
                answers.append(self._ask(step))
                return False

            wait_until(reached, 120)
        return answers[-1]

    def _ask(self, step: dict[str, Json]) -> Any:
        path = self._translated(step["path"])
        query = self._translated(step["query"])
        return self.service.request(
            step["method"],
            f"/{path}" + (f"?{query}" if query else ""),
            json=self._request(step),
        )

    def _request(self, step: dict[str, Json]) -> Json:
        method, sent = step["method"], step["request"]
        if method not in {"POST", "PATCH"}:
            return None
        if self.masked:
            derive = _derived_creation if method == "POST" else _derived_change
            sent = derive(step["response"])
        sent = json.loads(self._translated(json.dumps(sent)))
        if "project_id" in sent:
            sent["project_id"] = self.service.credentials["SCW_DEFAULT_PROJECT_ID"]
        if "is_ha_cluster" in sent:
            sent["is_ha_cluster"] = False  # this version has no high availability
        return sent

    def _translated(self, text: str) -> str:
        """With our ids in the place of the recorded ones."""
        project = self.service.credentials["SCW_DEFAULT_PROJECT_ID"]
        text = re.sub(r"(?<=project_id=)[0-9a-f-]+", project, text)
        ids = {recorded: ours for (kind, recorded), ours in self.ours.items() if kind == "id"}
        return UUID_FORM.sub(lambda found: ids.get(found[0], found[0]), text)

    # -- comparing -----------------------------------------------------------------------------

    def _compare(self, step: dict[str, Json], ours: Json, place: str) -> None:
        recorded = step["response"]
        if step["method"] == "POST" and step["path"].endswith("/instances"):
            self.created.append((ours["region"], ours["id"]))
        if "instances" in recorded:
            self._compare_list(step["query"], recorded, ours, place)
            return
        self._same(recorded, ours, place)
        if step["method"] == "PATCH":
            self._compare_next_run(recorded, ours, place)
        if "endpoint" in recorded:
            self.last = {"recorded": recorded, "ours": ours}

    def _compare_list(self, query: str, recorded: Json, ours: Json, place: str) -> None:
        assert ours.keys() == recorded.keys(), place
        if "name=" not in query and "tags=" not in query:
            # Other tests' instances are in such a list too.
            known = {identifier for _, identifier in self.created}
            ours = {
                "instances": [one for one in ours["instances"] if one["id"] in known],
                "total_count": recorded["total_count"],
            }
        self._same(recorded, ours, place)

    def _compare_next_run(self, recorded: Json, ours: Json, place: str) -> None:
        """It moves at the changes at which it was recorded to move, and at no others."""
        moved = [
            self.last[whose]["backup_schedule"]["next_run_at"]
            != now["backup_schedule"]["next_run_at"]
            for whose, now in (("recorded", recorded), ("ours", ours))
        ]
        assert moved[0] == moved[1], f"{place}: next_run_at"

    def _same(self, recorded: Json, ours: Json, place: str, name: str = "") -> None:
        here = f"{place}: {name}"
        if isinstance(recorded, dict):
            assert isinstance(ours, dict), here
            assert ours.keys() - NOT_RECORDED == recorded.keys() - NOT_RECORDED, here
            for key, value in recorded.items():
                self._same_field(key, value, ours[key], place)
        elif isinstance(recorded, list):
            assert isinstance(ours, list), here
            assert len(ours) == len(recorded), here
            for mine, theirs in zip(recorded, ours, strict=True):
                self._same(mine, theirs, place, name)
        else:
            assert type(ours) is type(recorded), here
            assert ours == recorded, here

    def _same_field(self, key: str, recorded: Json, ours: Json, place: str) -> None:
        here = f"{place}: {key}"
        if key == "upgradable_version":
            _check_versions(ours, here)
        elif key == "is_ha_cluster":
            assert ours is False, here
        elif key == "content":
            for whose, content in (("recorded", recorded), ("ours", ours)):
                assert _common_name(content) == self.last[whose]["endpoint"]["ip"], here
            self._bind(key, recorded, ours, here)
        elif recorded is None:
            assert ours is None, here
        elif key in {"created_at", "next_run_at"}:
            assert INSTANT.fullmatch(ours), here
            self._bind(key, recorded, ours, here)
        elif key in {"id", "resource_id"} | SHARED:
            assert UUID_FORM.fullmatch(ours), here
            self._bind(key if key in SHARED else "id", recorded, ours, here)
        elif key in {"ip", "port"}:
            assert type(ours) is type(recorded), here
            self._bind(key, recorded, ours, here)
        else:
            self._same(recorded, ours, place, key)

    def _bind(self, kind: str, recorded: Json, ours: Json, here: str) -> None:
        before = self.ours.setdefault((kind, recorded), ours)
        assert before == ours, here
        if kind not in SHARED | {"ip"}:
            same = [theirs for (k, theirs), mine in self.ours.items() if k == kind and mine == ours]
            assert same == [recorded], f"{here}: two recorded ones are one here"


TRANSITORY = {"provisioning", "initializing", "configuring", "restarting", "deleting"}


def _derived_creation(answer: Json) -> Json:
    """What the CLI must have sent to get this answer."""
    return {
        "name": answer["name"],
        "project_id": answer["project_id"],
        "engine": answer["engine"],
        "user_name": "cli-test",
        "password": "Recorded-password-1",
        "node_type": answer["node_type"],
        "is_ha_cluster": answer["is_ha_cluster"],
        "disable_backup": answer["backup_schedule"]["disabled"],
        "tags": answer["tags"],
        "volume_type": answer["volume"]["type"],
        "volume_size": answer["volume"]["size"],
        "backup_same_region": answer["backup_same_region"],
    }


def _derived_change(answer: Json) -> Json:
    return {"name": answer["name"], "tags": answer["tags"]}


def _check_versions(versions: Json, here: str) -> None:
    """Their number depends on the deployment and on the day of the recording."""
    for version in versions:
        assert version.keys() == {"id", "name", "version", "minor_version"}, here
        assert UUID_FORM.fullmatch(version["id"]), here
        assert all(isinstance(value, str) for value in version.values()), here


def _common_name(content: str) -> str | bytes:
    pem = base64.b64decode(content, validate=True)
    subject = x509.load_pem_x509_certificate(pem).subject
    return subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


def replay(service: Service, scenario: str) -> None:
    flow = Replay(service, scenario)
    try:
        flow.run(FLOWS[scenario])
    finally:
        for region, identifier in flow.created:
            remove(service, identifier, region=region)


@pytest.mark.parametrize("scenario", [name for name in FLOWS if name not in ENCRYPTED])
def test_flow(service: Service, scenario: str) -> None:
    replay(service, scenario)


@pytest.fixture(scope="module")
def encrypted_service(cache: Path, worker_id: str) -> Iterator[Service]:
    """A deployment whose operator says that its volumes are on an encrypted device."""
    with Service(cache, ports_of_worker(worker_id, 1)) as running:
        running.environment["OPENRDB_VOLUMES_ENCRYPTED"] = "true"
        running.start()
        yield running


def test_encrypted_flows(encrypted_service: Service) -> None:
    for scenario in ENCRYPTED:
        replay(encrypted_service, scenario)


def test_the_recordings_are_what_the_replay_takes_them_for() -> None:
    """What they say of themselves: a new recording that says otherwise needs a new look."""
    assert FLOWS.keys() > set(ENCRYPTED)
    instants = 0
    for steps in FLOWS.values():
        for step in steps:
            if step["method"] != "POST" or not step["path"].endswith("/instances"):
                continue
            created = step["response"]
            assert created["engine"].startswith("PostgreSQL-")
            assert created["status"] == "provisioning"
            due = created["backup_schedule"]["next_run_at"]
            if due is not None:
                made = datetime.fromisoformat(created["created_at"])
                assert datetime.fromisoformat(due) - made == timedelta(hours=24)
                instants += 1
    assert instants
