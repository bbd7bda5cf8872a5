"""One recorded flow against a service: its steps asked in turn, every answer compared.

Ids, addresses, ports, times and certificates are others here, but must be as constant as they were
recorded: each recorded one stands for one of ours from its first appearance on.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import requests
from cryptography import x509

from tests.api.test_wire import INSTANT
from tests.support import files_of_volume
from tests.support.recorded import (
    FLOWS,
    MOVES,
    TRANSITORY,
    Step,
    created_at,
    settled,
    unmasked,
)
from tests.support.service import Service, wait_until

Json = Any

UUID_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ACCESS_KEY = re.compile(r"SCW[0-9A-Z]{17}")
FULL_HOUR = re.compile(r"\d{4}-\d\d-\d\dT\d\d:00:00Z")
OF_FORM = {
    "forced_at": FULL_HOUR,
    "stops_at": FULL_HOUR,
    "mac_address": re.compile(r"02(:[0-9A-F]{2}){5}"),
    "node_name": re.compile(r"\d{8}"),
    "reason": re.compile(r".*The database will be unavailable for a few (minutes|seconds)\."),
}
SHARED = {"organization_id", "project_id"}
"""Several recorded ones may be one here: the organization's id is its default project's."""
NOT_RECORDED = {"high_availability_mode", "default_route_propagation_enabled"}
"""Only the newer recordings have them."""
ADDRESSES = {"ip", "service_ip", "address", "subnet"}
TIMES = {
    *("created_at", "updated_at", "next_run_at", "download_url_expires_at"),
    *("starts_at", "closed_at"),
}
CONFLICT = {"message": "Tuple concurrently updated"}
"""Recorded when two changes of privileges met; here they are made one after the other."""
ANOTHER_PRODUCT = "instance/v1/"
"""Flexible addresses of virtual machines, which the recorded client only put into an ACL."""
REPLICA = "read-replica-"
"""What the names of read replicas begin with, before the first eight characters of their ids."""
DOWNLOAD = ".custom"
"""What the path of an object in the recorded service's store ends in."""


def replay(service: Service, scenario: str, there: dict[str, str] | None = None) -> None:
    """`there`: ids of ours by those of what the recorded client found, and had not made."""
    flow = _Replay(service, scenario, there or {})
    try:
        flow.run()
    finally:
        flow.clean_up()


class _Replay:
    def __init__(self, service: Service, scenario: str, there: dict[str, str]) -> None:
        self.service = service
        self.steps = FLOWS[scenario]
        self.masked = scenario.startswith("cli/")
        self.ours: dict[tuple[str, Json], Json] = {
            ("id", recorded): ours for recorded, ours in there.items()
        }
        self.sent = ""
        self.last: dict[str, dict[str, Json]] = {}
        self.statuses: dict[str, str] = {}
        self.changing = False
        self.filled = False
        """Whether an instance was; its node type then makes it larger, as the reference says."""
        self.created: list[str] = []

    def run(self) -> None:
        for number, step in enumerate(self.steps):
            if ANOTHER_PRODUCT in step["path"]:
                continue
            if step["path"].endswith(DOWNLOAD):
                self._download(step)
                continue
            self._run_step(settled(self.steps, number), self._request(number))

    def clean_up(self) -> None:
        """Remove what the flow left, instances first, and nothing before what was made in it."""
        newest_first = self.created[::-1]
        for path in sorted(newest_first, key=lambda path: "/instances/" not in path):

            def gone(path: str = path) -> bool:
                return self.service.request("DELETE", path).status_code == 404

            wait_until(gone)

    def _download(self, step: Step) -> None:
        """By the URL that stands for the recorded one, and without a key."""
        recorded = f"{step['path']}?{step['query']}"
        (url,) = {
            ours
            for (kind, theirs), ours in self.ours.items()
            if kind == "download_url" and theirs.endswith(recorded)
        }
        answer = requests.get(url, timeout=60)
        assert answer.status_code == step["status"], f"{url}: {answer.text}"
        assert answer.content

    # -- asking --------------------------------------------------------------------------------

    def _run_step(self, step: Step, request: Json) -> None:
        place = f"{step['method']} {step['path']}"
        recorded = step["response"]
        if (step["method"], step["status"]) == ("DELETE", 404):
            # It was deleted before, by a request that is not recorded.
            assert self._ask(step, request).status_code == 204, place
        answer = self._poll(step, request)
        if recorded == CONFLICT:
            assert (answer.status_code, answer.json()) == (200, step["request"]), place
            return
        assert answer.status_code == step["status"], f"{place}: {answer.text}"
        if recorded is None:
            assert answer.content == b"", place
        elif "/iam/" in step["path"]:
            assert answer.json().keys() == recorded.keys(), place
        elif recorded == "see catalog/":
            assert answer.json()["engines"], place
        else:
            self._compare(step, answer.json(), place)
        changing = step["path"].endswith(("/acls", "/settings", "/endpoints"))
        self.changing = changing and step["method"] != "GET"
        if step["path"].endswith("/upgrade"):  # which may be over before it is asked for
            self.statuses.pop(step["path"].removesuffix("/upgrade"), None)

    def _poll(self, step: Step, request: Json) -> requests.Response:
        """Ask until the answer is the last recorded one; all but the first GETs are polls."""
        recorded = step["response"]
        if step["statuses"] == ["disk_full"]:
            self._fill(step)
        answers = [self._ask(step, request)]
        if step["method"] == "GET" and isinstance(recorded, dict):
            status = recorded.get("status")

            def reached() -> bool:
                answer = answers[-1]
                seen = answer.json().get("status")
                self._note_status(step["path"], seen)
                if answer.status_code == step["status"] and seen == status:
                    return True
                assert seen in {*TRANSITORY, status}, f"{answer.text} on the way to {recorded}"
                answers.append(self._ask(step, request))
                return False

            wait_until(reached, 120)
        return answers[-1]

    def _fill(self, step: Step) -> None:
        """Fill the volume of a step's instance, as the recorded client did by SQL."""
        path = self._translated(step["path"])
        instance = self.service.request("GET", f"//{path.lstrip('/')}").json()
        if instance["status"] == "ready":
            self.filled = True
            files_of_volume.fill(self.service, instance["id"], instance["volume"]["size"])
            wait_until(lambda: self._ask(step, None).json()["status"] == "disk_full", 60)

    def _note_status(self, path: str, seen: str | None) -> None:
        """Statuses follow each other only as somebody has recorded them to."""
        if seen is None:
            return
        before = self.statuses.get(path, seen)
        assert before == seen or (before, seen) in MOVES, f"{path}: from {before} to {seen}"
        self.statuses[path] = seen

    def _ask(self, step: Step, request: Json) -> requests.Response:
        path = self._translated(step["path"])
        query = self._translated(step["query"])
        return self.service.request(
            step["method"], f"//{path.lstrip('/')}" + (f"?{query}" if query else ""), json=request
        )

    def _request(self, number: int) -> Json:
        step = self.steps[number]
        if step["method"] == "GET":
            return None
        sent = unmasked(self.steps, number) if self.masked else step["request"]
        if sent is None:
            return None
        self.sent += json.dumps(sent)
        return json.loads(self._translated(json.dumps(sent)))

    def _translated(self, text: str) -> str:
        """With our ids and key in the place of the recorded ones."""
        text = ACCESS_KEY.sub(self.service.credentials["SCW_ACCESS_KEY"], text)
        ids = {recorded: ours for (kind, recorded), ours in self.ours.items() if kind == "id"}
        text = UUID_FORM.sub(lambda found: ids.get(found[0], found[0]), text)
        own = {ours for (kind, _), ours in self.ours.items() if kind == "id"}
        for kind in SHARED:
            default = self.service.credentials[f"SCW_DEFAULT_{kind.upper()}"]

            def replaced(found: re.Match[str], default: str = default) -> str:
                return found[0] if found[2] in own else found[1] + default

            text = re.sub(rf'({kind}(?:=|": "))([0-9a-f-]{{36}})', replaced, text)
        return text

    # -- comparing -----------------------------------------------------------------------------

    def _compare(self, step: Step, ours: Json, place: str) -> None:
        recorded = step["response"]
        if step["method"] == "POST" and "id" in recorded and "/endpoints" not in step["path"]:
            self.created.append(f"//{created_at(step['path']).lstrip('/')}/{ours['id']}")
        for listed in ("instances", "database_backups", "snapshots"):
            if listed in recorded:
                ours = self._own(listed, recorded, ours)
        self._same(recorded, ours, place)
        if "backup_schedule" in recorded:
            if step["method"] == "PATCH":
                self._compare_next_run(recorded, ours, place)
            self.last[recorded["id"]] = {"recorded": recorded, "ours": ours}

    def _own(self, what: str, recorded: Json, ours: Json) -> Json:
        """Without what other tests made."""
        listed = [
            one for one in ours[what] if any(path.endswith(one["id"]) for path in self.created)
        ]
        assert ours["total_count"] >= len(listed)
        return ours | {what: listed, "total_count": recorded["total_count"]}

    def _compare_next_run(self, recorded: Json, ours: Json, place: str) -> None:
        """It moves at the changes at which it was recorded to move, and at no others."""
        last = self.last[recorded["id"]]
        moved = [
            last[whose]["backup_schedule"]["next_run_at"] != now["backup_schedule"]["next_run_at"]
            for whose, now in (("recorded", recorded), ("ours", ours))
        ]
        assert moved[0] == moved[1], f"{place}: next_run_at"

    def _same(self, recorded: Json, ours: Json, place: str) -> None:
        assert type(ours) is type(recorded), f"{place}: {ours}"
        if isinstance(recorded, dict):
            assert ours.keys() - NOT_RECORDED == recorded.keys() - NOT_RECORDED, place
            for key in recorded.keys() & ours.keys():
                here = f"{place}: {key}"
                if key == "size" and "owner" in recorded:
                    assert (ours[key] > 0) == (recorded[key] > 0), here
                elif key == "disabled" and "next_run_at" in recorded:
                    # Recorded as false in one flow after a request that set it.
                    assert ours[key] == (recorded["next_run_at"] is None), here
                elif recorded[key] in (None, ""):
                    assert ours[key] == recorded[key], here
                elif key == "port" and "direct_access" in recorded:
                    self._bind("direct port", recorded[key], ours[key], here)
                else:
                    self._same_field(key, recorded[key], ours[key], here)
        elif isinstance(recorded, list):
            assert len(ours) == len(recorded), place
            for theirs, mine in zip(recorded, ours, strict=True):
                self._same(theirs, mine, place)
        else:
            assert ours == recorded, place

    def _same_field(self, key: str, recorded: Json, ours: Json, here: str) -> None:
        if key == "upgradable_version":
            self._same_versions(recorded, ours, here)
        elif key == "status":
            # What a change before this one set going may be over already.
            over = {"ready"} if self.changing and recorded == "configuring" else set()
            assert ours in {recorded, *over}, f"{here}: {ours}"
        elif key == "content":
            self._same_certificate(recorded, ours, here)
        elif key == "size" and (self.filled or "/backups" in here):
            assert ours >= (recorded if self.filled else 1), here
        elif key == "download_url":
            assert ours.startswith("http"), here
            self._bind(key, recorded, ours, here)
        elif key in TIMES or (key == "expires_at" and recorded not in self.sent):
            assert INSTANT.fullmatch(ours), here
            self._bind(key, recorded, ours, here)
        elif key == "id" or key.endswith("_id"):
            assert UUID_FORM.fullmatch(ours), here
            self._bind(key if key in SHARED else "id", recorded, ours, here)
        elif key in ADDRESSES:
            self._same_address(recorded, ours, here)
        elif key == "name" and recorded.startswith(REPLICA):
            ids = {theirs: mine for (kind, theirs), mine in self.ours.items() if kind == "id"}
            short = recorded.removeprefix(REPLICA)
            (own,) = {mine for theirs, mine in ids.items() if theirs.startswith(short)}
            assert ours == f"{REPLICA}{own[:8]}", here
        elif key in OF_FORM:
            assert OF_FORM[key].fullmatch(ours), here
            self._bind(key, recorded, ours, here)
        elif key == "port":
            assert (ours == recorded) or 0 not in (ours, recorded), here
            self._bind(key, recorded, ours, here)
        else:
            self._same(recorded, ours, here)

    def _same_versions(self, recorded: Json, ours: Json, here: str) -> None:
        """The newer versions that there were then, which have other ids and minor versions here."""
        offered = {one["name"]: one for one in ours}
        for one in recorded:
            mine = offered[one["name"]]
            assert (mine.keys(), mine["version"]) == (one.keys(), one["version"]), here
            self._bind("id", one["id"], mine["id"], here)

    def _same_address(self, recorded: str, ours: str, here: str) -> None:
        """Its network's size is the recorded one; what the client asked for, it got."""
        address, *prefix = recorded.split("/")
        our_address, *our_prefix = ours.split("/")
        assert our_prefix == prefix, here
        if address in self.sent or recorded == "0.0.0.0/0":
            assert our_address == address, here
        self._bind("address", address, our_address, here)

    def _same_certificate(self, recorded: str, ours: str, here: str) -> None:
        """For the address that was the instance's first; another one only for other addresses."""
        self._same_address(_common_name(recorded), _common_name(ours), here)
        of = here.partition("/instances/")[2].partition("/")[0]
        endpoints = self.last[of]["recorded"]["endpoints"]
        self._bind("content", f"{recorded} {endpoints}", ours, here)

    def _bind(self, kind: str, recorded: Json, ours: Json, here: str) -> None:
        before = self.ours.setdefault((kind, recorded), ours)
        assert before == ours, f"{here}: {recorded} was {before}, is {ours}"
        if kind not in SHARED | {"address"}:
            same = [theirs for (k, theirs), mine in self.ours.items() if k == kind and mine == ours]
            assert same == [recorded], f"{here}: two recorded ones are one here"


def _common_name(content: str) -> str:
    pem = base64.b64decode(content, validate=True)
    subject = x509.load_pem_x509_certificate(pem).subject
    name = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    assert isinstance(name, str)
    return name
