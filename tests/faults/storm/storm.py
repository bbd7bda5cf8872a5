"""Instances at random work while SIGKILL hits whatever runs."""

from __future__ import annotations

import random
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from scaleway.rdb.v1 import Instance

from tests.faults.storm.actors import (
    SQL_ERRORS,
    USERS,
    Actor,
    DatabaseActor,
    InstanceActor,
    UserActor,
    Writer,
)
from tests.faults.storm.copies import Copier, Ephemeral
from tests.faults.storm.model import Journal
from tests.support.leftovers import leftovers
from tests.support.programs import agent, keeper, runs
from tests.support.service import PASSWORD, Service, wait_until
from tests.support.tenants import Login

VICTIMS = (
    *("control plane", "agent", "keeper", "engine", "backend", "balancer", "job", "client"),
    *("several", "everything", "asked to end"),
)
_CLIENTS = ("pg_dump", "pg_restore", "psql", "mysqldump", "mysql", "initdb")
_TURN = 240.0
"""Seconds for what a client has begun."""


@dataclass
class Storm:
    service: Service
    engines: tuple[str, ...]
    seed: int
    journal: Journal = field(default_factory=Journal)
    passwords: list[str] = field(default_factory=lambda: [PASSWORD])
    given_at: dict[tuple[str, str], float] = field(default_factory=dict)
    """When a user of an instance, by name, may last have been given something by another one."""
    held: list[Any] = field(default_factory=list)
    """Users' sessions with open transactions."""
    over: threading.Event = field(default_factory=threading.Event)
    instances: list[Instance] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    _certificates: dict[str, Path] = field(default_factory=dict)

    def trust(self, instance: Instance) -> None:
        """Trust what the instance's certificate is now."""
        self._certificates[instance.id] = self.service.certificate(instance)

    def login(self, instance: Instance, user: str, password: str, database: str = "rdb") -> Login:
        endpoint, trusted = instance.endpoints[0], self._certificates[instance.id]
        place = str(endpoint.ip), int(endpoint.port)
        return Login(instance.engine, *place, user, password, trusted, database)

    def prepare(self) -> None:
        for engine in self.engines:
            instance = self.service.create(engine, name=engine, volume_type="sbs_5k")
            self.instances.append(instance)
            self.trust(instance)
            with self.service.connection(instance) as session:
                session.execute("CREATE TABLE journal(n int primary key)")
            self.actors += [UserActor(self, instance, f"u{number}") for number in range(USERS)]
            self.actors += [DatabaseActor(self, instance, f"d{number}") for number in range(2)]
            self.actors += [
                one(self, instance) for one in (Writer, InstanceActor, Copier, Ephemeral)
            ]

    def rage(self, seconds: float) -> None:
        chance = random.Random(f"{self.seed} killer")  # noqa: S311
        until = time.monotonic() + seconds
        for actor in self.actors:
            actor.start()
        while time.monotonic() < until:
            time.sleep(chance.uniform(0.1, 2.5))
            self.strike(chance.choice(VICTIMS), chance)
            self._release(most=3)
        self.over.set()
        self._release(most=0)
        for actor in self.actors:
            actor.join(_TURN)
            if actor.is_alive():
                self.journal.fault(f"{actor.who} does not end")
        self._release(most=0)

    def _release(self, most: int) -> None:
        """End users' oldest sessions: a lock that is never left keeps backups from being made."""
        while len(self.held) > most:
            with suppress(*SQL_ERRORS):
                self.held.pop(0).close()

    def settle(self) -> None:
        """Wait until nothing is under way, and nothing left over."""
        with suppress(AssertionError):
            wait_until(lambda: not leftovers(self.service), 120)
        for one in leftovers(self.service):
            self.journal.fault(f"left: {one}")

    def strike(self, victim: str, chance: random.Random) -> None:
        self.journal.note(f"KILL {victim}")
        self.journal.count(f"killed: {victim}")
        if victim in ("control plane", "asked to end"):
            self.service.kill(signal.SIGKILL if victim == "control plane" else signal.SIGTERM)
            time.sleep(chance.choice((0.0, 0.0, 1.0)))
            self.service.start()
        elif victim == "everything":
            self.service.kill_everything()
            self.service.start()
        elif victim == "several":
            for one in chance.sample(VICTIMS[:6], 3):
                self.strike(one, chance)
        else:
            with suppress(psutil.NoSuchProcess):
                if found := self._found(victim):
                    chance.choice(found).kill()

    def _found(self, victim: str) -> list[psutil.Process]:
        service = self.service
        if victim in ("agent", "keeper"):
            pid = agent(service) if victim == "agent" else keeper(service)
            return [psutil.Process(pid)] if pid else []
        if victim == "balancer":
            return service.processes("haproxy.cfg")
        if victim == "job":
            return [*service.processes("job_wrapper"), *service.processes("transfer_job")]
        if victim == "client":
            return _named(service, *_CLIENTS)
        engines = _named(service, "postgres", "mysqld")
        main = [one for one in engines if one.ppid() not in {other.pid for other in engines}]
        return main if victim == "engine" else [one for one in engines if one not in main]


def _named(service: Service, *names: str) -> list[psutil.Process]:
    return [one for one in service.processes() if runs(one, *names)]
