"""An instance whose database does not start: clients come to an end, and what they removed is gone.

The data directory's mode is what breaks it, so that it can be mended: nobody may enter it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

from tests.support.kinds import last_error
from tests.support.programs import holder
from tests.support.service import PASSWORD, Service, gone, ready, wait_until

BACK = 60.0
SOON = 5.0
"""Seconds in which everything answers though nothing can be asked: an engine is waited for 10 s."""


class Broken:
    """An instance with content, whose engine ended and does not start."""

    def __init__(self, service: Service, engine: str) -> None:
        self.service = service
        self.instance = service.create(engine, name="broken")
        self.path = f"/instances/{self.instance.id}"
        for name in ("bob", "eve"):
            self.must("POST", "/users", {"name": name, "password": PASSWORD, "is_admin": False})
        for name in ("one", "two"):
            self.must("POST", "/databases", {"name": name})
        for user in ("bob", "eve"):
            self.must("PUT", "/privileges", self.level(user, "readwrite"))
        (self.data,) = (service.data_dir / "instances" / self.instance.id).glob("nodes/*/data")

    def level(self, user: str, permission: str) -> dict[str, str]:
        return {"database_name": "one", "user_name": user, "permission": permission}

    def must(self, method: str, below: str, sent: Any = None) -> Any:
        answer = self.service.request(method, self.path + below, json=sent)
        assert answer.status_code in (200, 204), answer.text
        return answer.json() if answer.content else None

    def status(self) -> str:
        return str(self.must("GET", "")["status"])

    def names(self, what: str, field: str = "name") -> set[str]:
        return {row[field] for row in self.must("GET", f"/{what}?page_size=100")[what]}

    def levels(self) -> dict[str, str]:
        rows = self.must("GET", "/privileges?database_name=one")["privileges"]
        return {row["user_name"]: row["permission"] for row in rows}

    def kill(self) -> None:
        """End the engine, and let it not be started again."""
        self.data.chmod(0)
        pid = holder(self.service, self.instance.id, "node")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def break_down(self) -> None:
        self.kill()
        self.must("POST", "/restart")
        wait_until(lambda: self.status() == "error", BACK)

    def mend(self) -> None:
        self.data.chmod(0o700)


def test_terraform_comes_to_an_end(reused_service: Service, newest: str) -> None:
    """Plan, apply and destroy of what is around an instance in `error`, and its repair."""
    broken = Broken(reused_service, newest)
    users, databases, levels = broken.names("users"), broken.names("databases"), broken.levels()
    assert users >= {"admin", "bob", "eve"}
    broken.break_down()

    began = time.monotonic()
    assert (broken.names("users"), broken.names("databases")) == (users, databases)
    assert broken.levels() == levels
    assert broken.must("GET", "/certificate")["content"]
    broken.must("PATCH", "", {"tags": ["changed"], "logs_policy": {"max_age_retention": 3}})
    for method, below, sent in (
        ("POST", "/users", {"name": "new", "password": PASSWORD, "is_admin": False}),
        ("POST", "/databases", {"name": "new"}),
        ("PUT", "/privileges", broken.level("eve", "all")),
        ("POST", "/endpoints", {"endpoint_spec": {"load_balancer": {}}}),
    ):
        answer = reused_service.request(method, broken.path + below, json=sent)
        assert (answer.status_code, answer.json()["type"]) == (412, "precondition_failed"), below
    broken.must("DELETE", "/users/bob")
    broken.must("DELETE", "/databases/two")
    assert broken.must("PUT", "/privileges", broken.level("eve", "none"))["permission"] == "none"
    assert "bob" not in broken.names("users")
    assert broken.levels()["eve"] == "none"
    assert time.monotonic() - began < SOON
    assert broken.status() == "error"

    broken.mend()
    broken.must("PUT", "/acls", {"rules": [{"ip": "127.0.0.1/32"}]})
    instance = ready(reused_service.sdk(), broken.instance.id)
    assert (instance.tags, instance.logs_policy.max_age_retention) == (["changed"], 3)
    assert broken.names("users") == users - {"bob"}
    assert broken.names("databases") == databases - {"two"}
    assert broken.levels() == {name: levels[name] for name in users - {"bob"}} | {"eve": "none"}
    assert reused_service.login(instance).answers()
    for kind in ("delete_user", "delete_database", "set_privilege"):
        assert last_error(reused_service, kind) == ("done", None)


def test_a_removal_that_is_refused_later(reused_service: Service, mysql_version: str) -> None:
    """It waits once; that it failed, and why, is kept. The rest is made."""
    broken = Broken(reused_service, mysql_version)
    with reused_service.connection(broken.instance) as session:
        session.execute("CREATE TABLE two.parent (id int PRIMARY KEY)")
        child = "id int, FOREIGN KEY (id) REFERENCES two.parent (id)"
        session.execute(f"CREATE TABLE one.child ({child})")
    broken.break_down()
    for _ in range(5):
        for below in ("/databases/two", "/users/bob"):
            broken.must("DELETE", below)
    assert count_waiting(reused_service) == 2
    broken.mend()
    broken.must("POST", "/restart")
    ready(reused_service.sdk(), broken.instance.id)
    assert "two" in broken.names("databases")
    assert "bob" not in broken.names("users")
    assert count_waiting(reused_service) == 0
    told = reused_service.run(
        "operations", "list", "--data-dir", str(reused_service.data_dir), "--json"
    )
    (failed,) = [
        one
        for one in json.loads(told.stdout)
        if (one["kind"], one["subject_id"]) == ("delete_database", broken.instance.id)
    ]
    assert failed["status"] == "failed"
    assert failed["reason"].startswith("two: ")
    assert "foreign key" in failed["reason"]
    assert failed["reason"] in (reused_service.home / "serve.log").read_text()


def count_waiting(service: Service) -> int:
    database = f"file:{service.data_dir}/state.sqlite?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True)) as state:
        query = "SELECT count(*) FROM operations WHERE status = 'deferred'"
        return int(state.execute(query).fetchone()[0])


def test_what_is_made_after_a_removal_stays(reused_service: Service, newest: str) -> None:
    """Removals that wait are made before anything that was asked for later."""
    broken = Broken(reused_service, newest)
    broken.break_down()
    for reserved in ("/databases/rdb", "/users/_rdb_superadmin"):
        assert reused_service.request("DELETE", broken.path + reserved).status_code == 400
    broken.must("DELETE", "/databases/one")
    broken.must("DELETE", "/users/bob")
    broken.mend()
    wait_until(lambda: "one" in broken.names("databases"), BACK)  # it was started, and is asked
    broken.must("POST", "/databases", {"name": "one"})
    broken.must("POST", "/users", {"name": "bob", "password": PASSWORD, "is_admin": False})
    broken.must("PUT", "/privileges", broken.level("bob", "all"))
    broken.must("POST", "/restart")
    ready(reused_service.sdk(), broken.instance.id)
    assert "one" in broken.names("databases")
    assert broken.levels()["bob"] == "all"


def test_settings_repair_it(reused_service: Service, newest: str) -> None:
    """As long as nothing starts it is `error` again; deleted, it answers 404 to the next GET."""
    broken = Broken(reused_service, newest)
    broken.break_down()
    wanted = {"settings": [{"name": "max_connections", "value": "66"}]}
    answer = reused_service.request("PUT", f"{broken.path}/settings", json=wanted)
    assert answer.status_code in (200, 400), answer.text  # the engine may read them, or not
    wait_until(lambda: broken.status() == "error", BACK)
    broken.mend()
    broken.must("PUT", "/settings", wanted)
    instance = ready(reused_service.sdk(), broken.instance.id)
    assert ("max_connections", "66") in {(one.name, one.value) for one in instance.settings}
    assert reused_service.login(instance).answers()
    broken.break_down()
    for below in ("/users/bob", "/users/eve", "/databases/one"):
        broken.must("DELETE", below)
    broken.must("DELETE", "")
    assert reused_service.request("GET", broken.path).status_code == 404


def test_ready_and_not_starting(reused_service: Service, newest: str) -> None:
    """Nobody asks again for ever, though no operation has failed."""
    broken = Broken(reused_service, newest)
    broken.kill()
    user = {"name": "new", "password": PASSWORD, "is_admin": False}

    def refused_for_good() -> bool:
        answer = reused_service.request("POST", f"{broken.path}/users", json=user)
        assert answer.status_code in (409, 412), answer.text
        return answer.status_code == 412

    wait_until(refused_for_good, BACK)
    assert broken.status() == "ready"
    broken.mend()
    wait_until(reused_service.login(broken.instance).answers, BACK)
    broken.must("POST", "/users", user)


def test_what_the_balancer_refuses_is_taken_back(reused_service: Service) -> None:
    """As what the engine refuses: the instance is `ready` with its old settings."""
    service = reused_service
    instance = service.create()
    path = f"/instances/{instance.id}"
    before = service.request("GET", path).json()["settings"]
    (configuration,) = (service.data_dir / "instances" / instance.id).glob("balancer/*/haproxy.cfg")
    line = next(one for one in configuration.read_text().splitlines() if "stats socket" in one)
    sockets = Path(line.split()[2]).parent
    sockets.chmod(0o500)
    wanted = {"settings": [{"name": "max_connections", "value": "66"}]}
    assert service.request("PUT", f"{path}/settings", json=wanted).status_code == 200
    log = service.home / "serve.log"
    wait_until(lambda: "settings taken back: the load balancer" in log.read_text(), BACK)
    sockets.chmod(0o700)
    again = ready(service.sdk(), instance.id)
    assert service.request("GET", path).json()["settings"] == before
    assert service.login(again).answers()
    status, error = last_error(service, "apply_settings")
    assert status == "failed"
    assert "load balancer does not start" in str(error)


def test_connections_that_no_balancer_of_the_host_can_serve(fresh_service: Service) -> None:
    service = fresh_service
    service.prefix = ["sh", "-c", 'ulimit -n 4096; "$@"; exit $?', "sh"]
    service.start()
    instance = service.create()
    path = f"/instances/{instance.id}"
    for value, status in (("10000", 400), ("1928", 200)):
        sent = {"settings": [{"name": "max_connections", "value": value}]}
        answer = service.request("PUT", f"{path}/settings", json=sent)
        assert answer.status_code == status, answer.text
        if status == 400:
            (detail,) = answer.json()["details"]
            assert detail["argument_name"] == "settings"
            assert "at most 1928" in detail["help_message"]
    again = ready(service.sdk(), instance.id)
    assert service.login(again).answers()
    service.sdk().delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(service.sdk(), instance.id))
