"""The workflow engine's file is lost after any step of any operation: the work begins again, and ends.

So does a changed build begin, which discards that file's workflows itself.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from scaleway.rdb.v1 import Instance

from openrdb.operations.registry import KINDS
from tests.faults.test_control_plane import in_background
from tests.support.killed_service import KilledService
from tests.support.service import PASSWORD, creation, gone, ports_of_worker, ready, wait_until

NETWORKS = "//vpc/v2/regions/fr-par/private-networks"
LONGEST = 40
"""More steps than any sequence has."""


@dataclass
class Scene:
    """Two instances in one private network; only the first has a load balancer."""

    service: KilledService
    one: Instance
    other: Instance
    network_id: str
    added: str = ""
    """The id of what the round at hand made for itself."""

    def request(self, method: str, path: str, sent: Any = None) -> requests.Response:
        path = path.replace("{one}", f"/instances/{self.one.id}")
        return self.service.request(method, path, json=sent)

    def must(self, method: str, path: str, sent: Any = None) -> Any:
        """A request outside of the test's subject, done when its instances have settled."""
        answer = self.request(method, path, sent)
        assert answer.status_code in (200, 204), answer.text
        self.settle()
        return answer.json() if answer.content else None

    def settle(self) -> None:
        api = self.service.sdk()
        self.one, self.other = ready(api, self.one.id), ready(api, self.other.id)

    def names(self, what: str) -> set[str]:
        return {row["name"] for row in self.request("GET", f"{{one}}/{what}").json()[what]}

    def public(self, instance: Instance) -> list[str]:
        return [str(one.id) for one in instance.endpoints if one.private_network is None]

    def private(self, instance: Instance) -> list[str]:
        return [str(one.id) for one in instance.endpoints if one.private_network is not None]


@dataclass(frozen=True)
class Case:
    """One kind of operation: what asks for it, and how it shows that it was done."""

    ask: Callable[[Scene, int], Any]
    holds: Callable[[Scene, int], bool]
    before: Callable[[Scene, int], Any] = lambda scene, number: None
    after: Callable[[Scene, int], Any] = lambda scene, number: None


def made(scene: Scene, number: int) -> bool:
    """An instance of the round's name is there and answers SQL; it is removed again."""
    (found,) = scene.service.sdk().list_instances_all(name=f"made{number}")
    instance = ready(scene.service.sdk(), found.id)
    with scene.service.connection(instance) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    scene.request("DELETE", f"/instances/{instance.id}")
    wait_until(lambda: gone(scene.service.sdk(), instance.id))
    return True


def doomed(scene: Scene, number: int) -> None:
    scene.added = scene.service.create(name=f"doomed{number}").id


def is_gone(scene: Scene, _: int) -> bool:
    wait_until(lambda: gone(scene.service.sdk(), scene.added))
    return not list((scene.service.data_dir / "instances").glob(scene.added))


def certificate(scene: Scene, _: int) -> None:
    scene.added = scene.service.certificate(scene.one).read_text()


def with_private(scene: Scene, _: int) -> None:
    if not scene.private(scene.one):
        ask_private(scene, 0)
        scene.settle()


def without_private(scene: Scene, _: int) -> None:
    for endpoint_id in scene.private(scene.one):
        scene.must("DELETE", f"/endpoints/{endpoint_id}")


def ask_private(scene: Scene, _: int) -> None:
    spec = {"private_network": {"private_network_id": scene.network_id, "ipam_config": {}}}
    scene.request("POST", "{one}/endpoints", {"endpoint_spec": spec})


def ask_migration(scene: Scene, _: int) -> None:
    (endpoint_id,) = scene.public(scene.one)
    scene.request("POST", f"/endpoints/{endpoint_id}/migrate", {"instance_id": scene.other.id})


def migrate_back(scene: Scene, _: int) -> None:
    (endpoint_id,) = scene.public(scene.other)
    scene.must("POST", f"/endpoints/{endpoint_id}/migrate", {"instance_id": scene.one.id})


def user(name: str) -> dict[str, Any]:
    return {"name": name, "password": PASSWORD, "is_admin": False}


def setting(number: int) -> dict[str, Any]:
    # The first needs a restart, so every second round does.
    name, value = ("max_connections", "77") if number % 2 else ("work_mem", str(10 + number))
    return {"settings": [{"name": name, "value": value}]}


def has_setting(scene: Scene, number: int) -> bool:
    (wanted,) = setting(number)["settings"]
    return wanted in scene.request("GET", "{one}").json()["settings"]


CASES = {
    "create_instance": Case(
        lambda s, n: s.service.request("POST", "/instances", json=creation(name=f"made{n}")), made
    ),
    "delete_instance": Case(
        lambda s, n: s.request("DELETE", f"/instances/{s.added}"), is_gone, before=doomed
    ),
    "restart_instance": Case(lambda s, n: s.request("POST", "{one}/restart"), lambda s, n: True),
    "renew_certificate": Case(
        lambda s, n: s.request("POST", "{one}/renew-certificate"),
        lambda s, n: s.service.certificate(s.one).read_text() != s.added,
        before=certificate,
    ),
    "apply_settings": Case(
        lambda s, n: s.request("PUT", "{one}/settings", setting(n)), has_setting
    ),
    "apply_acl": Case(
        lambda s, n: s.request("POST", "{one}/acls", {"rules": [{"ip": f"192.0.2.{n}"}]}),
        lambda s, n: f"192.0.2.{n}/32" in s.request("GET", "{one}/acls?page_size=100").text,
    ),
    "apply_logs_policy": Case(
        lambda s, n: s.request("PATCH", "{one}", {"logs_policy": {"max_age_retention": n + 1}}),
        lambda s, n: s.one.logs_policy.max_age_retention == n + 1,
    ),
    "create_endpoint": Case(
        ask_private, lambda s, n: len(s.private(s.one)) == 1, before=without_private
    ),
    "delete_endpoint": Case(
        lambda s, n: s.request("DELETE", f"/endpoints/{s.private(s.one)[0]}"),
        lambda s, n: not s.private(s.one),
        before=with_private,
    ),
    "migrate_endpoint": Case(
        ask_migration,
        lambda s, n: not s.public(s.one) and len(s.public(s.other)) == 1,
        after=migrate_back,
    ),
    "create_user": Case(
        lambda s, n: s.request("POST", "{one}/users", user(f"made{n}")),
        lambda s, n: f"made{n}" in s.names("users"),
    ),
    "update_user": Case(
        lambda s, n: s.request("PATCH", f"{{one}}/users/up{n}", {"is_admin": True}),
        lambda s, n: (
            {"name": f"up{n}", "is_admin": True}
            in s.request("GET", f"{{one}}/users?name=up{n}").json()["users"]
        ),
        before=lambda s, n: s.must("POST", "{one}/users", user(f"up{n}")),
    ),
    "delete_user": Case(
        lambda s, n: s.request("DELETE", f"{{one}}/users/del{n}"),
        lambda s, n: f"del{n}" not in s.names("users"),
        before=lambda s, n: s.must("POST", "{one}/users", user(f"del{n}")),
    ),
    "create_database": Case(
        lambda s, n: s.request("POST", "{one}/databases", {"name": f"made{n}"}),
        lambda s, n: f"made{n}" in s.names("databases"),
    ),
    "delete_database": Case(
        lambda s, n: s.request("DELETE", f"{{one}}/databases/del{n}"),
        lambda s, n: f"del{n}" not in s.names("databases"),
        before=lambda s, n: s.must("POST", "{one}/databases", {"name": f"del{n}"}),
    ),
    "set_privilege": Case(
        lambda s, n: s.request(
            "PUT",
            "{one}/privileges",
            {"database_name": "rdb", "user_name": f"may{n}", "permission": "readwrite"},
        ),
        lambda s, n: "readwrite" in s.request("GET", f"{{one}}/privileges?user_name=may{n}").text,
        before=lambda s, n: s.must("POST", "{one}/users", user(f"may{n}")),
    ),
}


@pytest.fixture(scope="module")
def scene(cache: Path, worker_id: str) -> Iterator[Scene]:
    with KilledService(cache, ports_of_worker(worker_id, 1)) as service:
        service.start()
        network = service.request("POST", NETWORKS, json={"name": "net"}).json()
        private = {"private_network": {"private_network_id": network["id"], "ipam_config": {}}}
        sent = creation(name="other") | {"init_endpoints": [private]}
        other = service.request("POST", "/instances", json=sent).json()
        one = service.create(name="one")
        yield Scene(service, one, ready(service.sdk(), other["id"]), network["id"])


def last_status(service: KilledService, kind: str) -> str | None:
    """The status of the newest operation of a kind."""
    query = "SELECT status FROM operations WHERE kind = ? ORDER BY created_at DESC LIMIT 1"
    with contextlib.closing(
        sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True)
    ) as state:
        row = state.execute(query, (kind,)).fetchone()
    return str(row[0]) if row else None


def finished_count(service: KilledService, kind: str) -> int:
    query = "SELECT count(*) FROM operations WHERE kind = ? AND finished_at IS NOT NULL"
    with contextlib.closing(
        sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True)
    ) as state:
        return int(state.execute(query, (kind,)).fetchone()[0])


def ask(scene: Scene, case: Case, number: int) -> None:
    with contextlib.suppress(requests.ConnectionError):
        case.ask(scene, number)


@pytest.mark.parametrize("kind", CASES)
def test_workflows_lost_after_every_step(scene: Scene, kind: str) -> None:
    service, case = scene.service, CASES[kind]
    for number in range(LONGEST):
        scene.settle()
        case.before(scene, number)
        service.kill()
        done = finished_count(service, kind)
        service.kill_after(kind, number)
        service.start()
        asking = in_background(lambda number=number: ask(scene, case, number))
        wait_until(lambda done=done: service.ended() or finished_count(service, kind) > done)
        was_killed = finished_count(service, kind) == done
        asking.join()
        service.kill()
        if was_killed:
            service.lose_workflows()
        service.start()  # OpenRDB as it is
        wait_until(lambda done=done: finished_count(service, kind) > done)
        assert last_status(service, kind) == "done", f"after {number} steps"
        scene.settle()
        assert case.holds(scene, number), f"after {number} steps"
        case.after(scene, number)
        if not was_killed:
            break
    assert not was_killed
    assert number > 1  # it has been killed before its first step, and after one


def test_every_kind_is_tried() -> None:
    import openrdb.operations  # noqa: F401

    assert CASES.keys() == KINDS.keys()
