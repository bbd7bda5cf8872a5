"""Clients that make and remove whole instances, backups and snapshots."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scaleway.rdb.v1 import Instance

from tests.faults.storm.actors import Actor
from tests.support.service import creation

if TYPE_CHECKING:
    from tests.faults.storm.storm import Storm

_PATIENCE = 90.0
_PAUSE = 0.3


class _Waiting(Actor):
    def settled(self, path: str) -> str:
        """Return the status in which something settles; `gone` if it is not there any more."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if self.client.ask("GET", path) == "done":
                if self.client.body["status"] in ("ready", "error"):
                    return str(self.client.body["status"])
            elif self.client.status == 404:
                return "gone"
            time.sleep(_PAUSE)
        self.storm.journal.fault(f"{self.who}: {path} does not settle: {self.client.body}")
        return "never"

    def remove(self, path: str) -> None:
        """Delete something, as soon as its status allows it."""
        until = time.monotonic() + _PATIENCE
        while self.client.ask("DELETE", path) != "done" and self.client.status != 404:
            if time.monotonic() > until:
                self.storm.journal.fault(f"{self.who}: {path} cannot be deleted")
                return
            time.sleep(_PAUSE)


class Copier(_Waiting):
    """Backups and snapshots of an instance, and what is made of them."""

    def __init__(self, storm: Storm, instance: Instance) -> None:
        super().__init__(storm, instance, "copier")
        self.number = 0

    def act(self) -> None:
        self.number += 1
        (self.back_up if self.chance.random() < 0.6 else self.copy)()

    def back_up(self) -> None:
        sent = {"instance_id": self.instance.id, "database_name": "rdb", "name": f"b{self.number}"}
        if self.client.ask("POST", "/backups", sent) != "done":
            return
        path = f"/backups/{self.client.body['id']}"
        self.settled(path)  # `error` where its program was killed
        database = f"r{self.number}"
        restore = {"instance_id": self.instance.id, "database_name": database}
        if self.client.ask("POST", f"{path}/restore", restore) == "done":
            self.settled(path)
            self.remove(f"{self.path}/databases/{database}")
        self.remove(path)

    def copy(self) -> None:
        if self.client.ask("POST", f"{self.path}/snapshots", {"name": f"s{self.number}"}) != "done":
            return
        path = f"/snapshots/{self.client.body['id']}"
        if self.settled(path) == "ready":
            sent = {"instance_name": f"copy{self.number}"}
            if self.client.ask("POST", f"{path}/create-instance", sent) == "done":
                made = f"/instances/{self.client.body['id']}"
                if (status := self.settled(made)) != "ready":
                    self.storm.journal.fault(f"{self.who}: {sent} ended {status}")
                self.remove(made)
        self.remove(path)


class Ephemeral(_Waiting):
    """Instances that are created, deleted and brought back."""

    def __init__(self, storm: Storm, instance: Instance) -> None:
        super().__init__(storm, instance, "ephemeral")
        self.number = 0

    def act(self) -> None:
        self.number += 1
        sent = creation(self.instance.engine, name=f"e{self.number}")
        if self.client.ask("POST", "/instances", sent) != "done":
            return
        instance_id = self.client.body["id"]
        path = f"/instances/{instance_id}"
        if self.chance.random() < 0.5 and (status := self.settled(path)) != "ready":
            self.storm.journal.fault(f"{self.who}: {path} ended {status}")
        self.remove(path)
        if self.settled(path) == "gone" and self.chance.random() < 0.5:
            self.bring_back(instance_id)

    def bring_back(self, instance_id: str) -> None:
        service = self.storm.service
        ran = service.run("undelete", instance_id, "--data-dir", str(service.data_dir))
        said = ran.stdout + ran.stderr
        self.storm.journal.note(f"{self.who}: undelete {instance_id}: {ran.returncode} {said}")
        if "Traceback" in ran.stderr:
            self.storm.journal.fault(f"{self.who}: undelete: {ran.stderr[-600:]}")
        self.remove(f"/instances/{instance_id}")
