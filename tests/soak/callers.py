"""Clients that ask for anything at any moment; whatever they are refused, they go on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.storm.model import Client, Journal
from tests.support.service import Service, creation
from tests.support.tenants import tenant_of

SETTLED = ("ready", "error", "disk_full", "locked")
"""Statuses that last; `autohealing` ends by itself."""
_PAUSE = 0.5


@dataclass
class Caller(threading.Thread):
    """One tenant with one instance, which it replaces now and then."""

    service: Service
    journal: Journal
    engine: str
    name_: str
    seed: int
    over: threading.Event
    instance_id: str = ""
    number: int = 0
    chance: random.Random = field(init=False)
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        super().__init__(name=self.name_, daemon=True)
        self.chance = random.Random(f"{self.seed} {self.name_}")  # noqa: S311
        self.client = Client(self.service, self.journal, self.name_)

    def __hash__(self) -> int:
        return id(self)

    @property
    def path(self) -> str:
        return f"/instances/{self.instance_id}"

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self._call()
            except Exception as error:  # a fault of the caller's own must not pass for peace
                self.journal.fault(f"{self.name_}: {type(error).__name__}: {error}")
            self.over.wait(self.chance.uniform(0, 2 * _PAUSE))

    def create(self) -> None:
        self.number += 1
        paired = self.chance.random() < 0.2
        sent = creation(self.engine, name=f"{self.name_}-{self.number}", is_ha_cluster=paired)
        if self.client.ask("POST", "/instances", sent) == "done":
            self.instance_id = str(self.client.body["id"])

    def _call(self) -> None:
        if not self.instance_id or self.client.ask("GET", self.path) == "refused":
            self.create()
            return
        calls: list[tuple[float, Callable[[], None]]] = [
            (5, self._content),
            (3, self._settings),
            (3, self._network),
            (2, self._restart),
            (2, self._backups),
            (2, self._snapshots),
            (2, self._replicas),
            (1, self._upgrade),
            (1, self._logs),
            (0.3, self._remove),
        ]
        self.chance.choices([call for _, call in calls], [weight for weight, _ in calls])[0]()

    def _any(self, *asked: tuple[str, str, Any]) -> None:
        self.client.ask(*self.chance.choice(asked))

    def _of(self, path: str, within: str) -> str:
        """The id of any of those that a list has; one that there is not if it has none."""
        listed = self.client.ask("GET", path)
        found = self.client.body[within] if listed == "done" else []
        return str(self.chance.choice(found)["id"]) if found else self.instance_id

    def _content(self) -> None:
        user, database = f"u{self.chance.randrange(3)}", f"d{self.chance.randrange(3)}"
        level = self.chance.choice(("readonly", "readwrite", "all", "none"))
        granted = {"database_name": database, "user_name": user, "permission": level}
        account = {"name": user, "password": f"Secr3t-{self.number}-of!{user}x", "is_admin": False}
        self._any(
            ("POST", f"{self.path}/users", account),
            ("PATCH", f"{self.path}/users/{user}", {"is_admin": self.chance.random() < 0.5}),
            ("DELETE", f"{self.path}/users/{user}", None),
            ("POST", f"{self.path}/databases", {"name": database}),
            ("DELETE", f"{self.path}/databases/{database}", None),
            ("PUT", f"{self.path}/privileges", granted),
            ("GET", f"{self.path}/privileges", None),
        )

    def _settings(self) -> None:
        tenant = tenant_of(self.engine)
        name, value = self.chance.choice(((tenant.hot[0], "6"), tenant.cold))
        sent = {"settings": [{"name": name, "value": value}]}
        self.client.ask(self.chance.choice(("PUT", "POST")), f"{self.path}/settings", sent)

    def _network(self) -> None:
        rules = {"rules": [{"ip": "0.0.0.0/0"}, {"ip": f"10.{self.chance.randrange(99)}.0.0/16"}]}
        self._any(
            ("PUT", f"{self.path}/acls", rules),
            ("POST", f"{self.path}/endpoints", {"endpoint_spec": {"load_balancer": {}}}),
            ("DELETE", f"/endpoints/{self._endpoint()}", None),
            ("POST", f"{self.path}/renew-certificate", None),
            ("PATCH", self.path, {"tags": [str(self.number)]}),
        )

    def _endpoint(self) -> str:
        found = self.client.body if self.client.ask("GET", self.path) == "done" else {}
        endpoints = found.get("endpoints") or [{"id": self.instance_id}]
        return str(self.chance.choice(endpoints)["id"])

    def _restart(self) -> None:
        self.client.ask("POST", f"{self.path}/restart")

    def _backups(self) -> None:
        made = {"instance_id": self.instance_id, "database_name": "rdb", "name": "soaked"}
        backup = self._of(f"/backups?instance_id={self.instance_id}", "database_backups")
        self._any(
            ("POST", "/backups", made),
            ("POST", f"/backups/{backup}/export", None),
            ("POST", f"/backups/{backup}/restore", {"instance_id": self.instance_id}),
            ("DELETE", f"/backups/{backup}", None),
        )

    def _snapshots(self) -> None:
        snapshot = self._of(f"/snapshots?instance_id={self.instance_id}", "snapshots")
        self._any(
            ("POST", f"{self.path}/snapshots", {"name": "soaked"}),
            ("DELETE", f"/snapshots/{snapshot}", None),
            ("DELETE", f"/snapshots/{snapshot}", None),
        )

    def _replicas(self) -> None:
        found = self.client.body if self.client.ask("GET", self.path) == "done" else {}
        there = found.get("read_replicas") or [{"id": self.instance_id}]
        replica = str(self.chance.choice(there)["id"])
        spec = {"instance_id": self.instance_id, "endpoint_spec": [{"direct_access": {}}]}
        self._any(
            ("POST", "/read-replicas", spec),
            ("POST", f"/read-replicas/{replica}/reset", None),
            ("DELETE", f"/read-replicas/{replica}", None),
            ("DELETE", f"/read-replicas/{replica}", None),
        )

    def _upgrade(self) -> None:
        self._any(
            ("POST", f"{self.path}/upgrade", {"enable_ha": True}),
            ("POST", f"{self.path}/upgrade", {"node_type": "DB-DEV-M"}),
            ("POST", f"{self.path}/upgrade", {"volume_size": 10**10}),
        )

    def _logs(self) -> None:
        self._any(
            ("POST", f"{self.path}/prepare-logs", {}),
            ("GET", f"{self.path}/logs-details", None),
            ("GET", f"{self.path}/logs", None),
        )

    def _remove(self) -> None:
        """Delete the instance, which it may be refused; another one is made when it has gone."""
        self.client.ask("DELETE", self.path)

    def settle(self, patience: float) -> None:
        """Wait until nothing of the instance is under way; what it then is must be well."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            asked = self.client.ask("GET", self.path)
            if asked == "refused" or (asked == "done" and self._is_well(self.client.body)):
                return
            time.sleep(_PAUSE)
        self.journal.fault(f"{self.name_} does not settle: {self.client.text[:600]}")

    def _is_well(self, instance: dict[str, Any]) -> bool:
        there = [instance, *instance["read_replicas"], *instance["endpoints"]]
        return all(one.get("status", "ready") == "ready" for one in there)
