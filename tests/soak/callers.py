"""Clients that ask for anything at any moment; whatever they are refused, they go on."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import requests
from schemathesis import Case

from tests.faults.storm.model import Client, Journal, Outcome
from tests.soak import generated
from tests.soak.calls import CALLS, Nothing, Things
from tests.support.service import Service, creation
from tests.support.surface import sdk

_PAUSE = 0.5
_MOST = 2
"""Instances that one tenant has, but for those that it makes at the same moment."""
_GENERATED, _REMOVED, _RECOVERY = 0.1, 0.015, 0.03
"""The share of calls that hypothesis has made up, that replace the instance, or that turn recovery on
or off."""
_BLOCK = {"volume_type": "sbs_5k", "volume_size": 5 * 10**9}
"""What snapshots can be made of, and what grows without another node type."""
_WORKING = ("ready", "autohealing", "disk_full", "backuping", "snapshotting")


@dataclass
class Answers:
    """How often each operation was answered by what."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, method: str, path: str, status: int) -> None:
        whole = f"/rdb/v1/regions/fr-par{path}" if not path.startswith("//") else path[1:]
        operation = sdk.operation_of(method, whole.partition("?")[0])
        name = operation.name if operation else f"{method} {'/'.join(whole.split('/')[:3])}"
        self.count(name, status)

    def count(self, name: str, status: int) -> None:
        with self._lock:
            self.counts[name][f"{status // 100}xx" if status else "lost"] += 1

    def never_done(self) -> set[str]:
        """Return the operations of the API that never succeeded."""
        return {name for name in sdk.operations() if not self.counts[name]["2xx"]}

    def table(self) -> str:
        columns = ("2xx", "4xx", "5xx", "lost")
        rows = [
            f"{name:40}" + "".join(f"{counts[one]:8}" for one in columns)
            for name, counts in sorted(self.counts.items())
        ]
        return "\n".join([f"{'':40}" + "".join(f"{one:>8}" for one in columns), *rows])


class Counted(Client):
    """A client whose answers are counted."""

    def __init__(self, service: Service, journal: Journal, who: str, answers: Answers) -> None:
        super().__init__(service, journal, who)
        self.answers = answers

    def ask(self, method: str, path: str, sent: Any = None) -> Outcome:
        outcome = super().ask(method, path, sent)
        self.answers.note(method, path, self.status)
        return outcome

    def send(self, case: Case) -> None:
        """Send what hypothesis has made up."""
        request = f"{case.method} {case.formatted_path} {case.query} {str(case.body)[:300]!r}"
        self.status, said = 0, ""
        try:
            headers = {"X-Auth-Token": self._service.secret_key}
            answer = requests.request(
                **case.as_transport_kwargs(base_url=self._service.url, headers=headers), timeout=60
            )
            self.status, said = answer.status_code, answer.text[:200]
        except (requests.RequestException, OSError, ValueError):
            time.sleep(_PAUSE)
        self._journal.note(f"{self._who}: generated {request} -> {self.status} {said}")
        if self.status >= 500:
            self._journal.fault(f"generated {request}: {self.status} {said}")
        self.answers.count(f"generated {case.method}", self.status)


@dataclass
class Caller(threading.Thread):
    """One tenant, who has an instance at any time and now and then two, and replaces them."""

    service: Service
    journal: Journal
    answers: Answers
    made_up: list[Case]
    engine: str
    name_: str
    seed: int
    over: threading.Event

    def __post_init__(self) -> None:
        super().__init__(name=self.name_, daemon=True)

    def __hash__(self) -> int:
        return id(self)

    @cached_property
    def chance(self) -> random.Random:
        return random.Random(f"{self.seed} {self.name_}")  # noqa: S311

    @cached_property
    def client(self) -> Counted:
        return Counted(self.service, self.journal, self.name_, self.answers)

    @property
    def prefix(self) -> str:
        """What the names of all begin with that it has."""
        return f"{self.name_}."

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self._turn()
            except Exception as error:  # a fault of the caller's own must not pass for peace
                self.journal.fault(f"{self.name_}: {type(error).__name__}: {error}")
            self.over.wait(self.chance.uniform(0, 2 * _PAUSE))

    def _turn(self) -> None:
        if self.client.ask("GET", f"/instances?name={self.prefix}") != "done":
            return
        found = [one for one in self.client.body["instances"] if one["status"] != "deleting"]
        if not found:
            self._create()
            return
        instance = self.chance.choice(found)
        others = [one for one in found if one is not instance]
        things = Things(self.client, self.chance, self.prefix, instance, others)
        with suppress(Nothing):
            self._act(instance, others, things)

    def _act(self, instance: dict[str, Any], others: list[dict[str, Any]], things: Things) -> None:
        may_make = len(others) + 1 < _MOST
        if (
            instance["status"] == "error"
            or self.chance.random() < _REMOVED * (len(others) + 1) ** 3
        ):
            self._replace(instance, others)
        elif self.chance.random() < _GENERATED:
            self._send(things, may_make=may_make)
        elif self.chance.random() < _RECOVERY:
            self._recovery(things)
        else:
            calls = [one for one in CALLS if may_make or not one.makes]
            call = self.chance.choices(calls, [one.weight for one in calls])[0]
            path = things.fill(call.path)
            self.client.ask(call.method, path, things.fill(call.sent))

    def _send(self, things: Things, *, may_make: bool) -> None:
        case = self.chance.choice(self.made_up)
        if may_make or not generated.makes(case):
            self.client.send(generated.aimed(case, things))

    def _create(self) -> None:
        name = f"{self.prefix}{self.chance.randrange(10**6)}"
        changes: dict[str, Any] = {"name": name, "is_ha_cluster": self.chance.random() < 0.2}
        if self.chance.random() < 0.6:
            changes |= _BLOCK
        self.client.ask("POST", "/instances", creation(self.engine, **changes))

    def _replace(self, instance: dict[str, Any], others: list[dict[str, Any]]) -> None:
        """Delete an instance if another one is there that works; else make one."""
        if any(one["status"] in _WORKING for one in others):
            self.client.ask("DELETE", f"/instances/{instance['id']}")
        elif len(others) < _MOST:
            self._create()

    def _recovery(self, things: Things) -> None:
        how = self.chance.choices(("enable", "disable"), (4, 1))[0]
        arguments = ("recovery", how, things.id, "--data-dir", str(self.service.data_dir))
        done = self.service.run(*arguments)
        said = done.stderr.strip()[-200:]
        self.journal.note(f"{self.name_}: {' '.join(arguments[:3])} -> {done.returncode} {said}")
        self.answers.count(f"recovery {how}", 200 if done.returncode == 0 else 400)
