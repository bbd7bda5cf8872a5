"""Clients that work an instance at random, each with things of its own."""

from __future__ import annotations

import random
import re
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
from scaleway.rdb.v1 import Instance

from tests.faults.storm.model import Client, Outcome, Truth
from tests.faults.storm.statements import IMPATIENT, statements
from tests.support.service import PASSWORD
from tests.support.tenants import tenant_of

if TYPE_CHECKING:
    from tests.faults.storm.storm import Storm

SQL_ERRORS = (psycopg.Error, pymysql.MySQLError, OSError)
LEVELS = ("readonly", "readwrite", "all", "none")
USERS = 4
_GIVEN = re.compile(r"\bGRANT .* TO (u\d)\b")
"""Who is given something by a user's statement."""
_NOT_NOW = (409, 412)
"""Refusals of what is right at another time."""


class Actor(threading.Thread):
    """Acts until the storm is over; what it was told stays for the checks."""

    def __init__(self, storm: Storm, instance: Instance, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.storm, self.instance = storm, instance
        self.who = f"{instance.engine} {name}"
        self.chance = random.Random(f"{storm.seed} {self.who}")  # noqa: S311
        self.client = Client(storm.service, storm.journal, self.who)
        self.path = f"/instances/{instance.id}"

    def run(self) -> None:
        while not self.storm.over.is_set():
            try:
                self.act()
            except Exception as error:
                self.storm.journal.fault(f"{self.who}: {type(error).__name__}: {error}")
            time.sleep(self.chance.uniform(0, 0.2))

    def act(self) -> None:
        raise NotImplementedError

    def expect(self, outcome: Outcome, *, is_certain: bool = True) -> Outcome:
        """Pass on how a request ended that nothing but a status may refuse."""
        if outcome == "refused" and is_certain and self.client.status not in _NOT_NOW:
            self.storm.journal.fault(f"{self.who} is refused: {self.client.text[:300]}")
        return outcome

    def sql(self, user: str, password: str, *todo: str, database: str = "rdb") -> None:
        said = "done"
        try:
            login = self.storm.login(self.instance, user, password, database)
            with login.connect() as session:
                session.execute(IMPATIENT[self.instance.engine.partition("-")[0]])
                for one in todo:
                    session.execute(one)
        except SQL_ERRORS as error:
            said = f"{type(error).__name__} {' '.join(str(error).split())[:150]}"
        for given in _GIVEN.findall("\n".join(todo)):  # it may be done whatever was said
            self.storm.given_at[self.instance.id, given] = time.monotonic()
        self.storm.journal.note(f"{self.who} SQL {user}: {'; '.join(todo)} -> {said}")
        self.storm.journal.count(f"sessions {'done' if said == 'done' else 'failed'}")


class Writer(Actor):
    """Inserts numbers as administrator: those that were committed must be there."""

    def __init__(self, storm: Storm, instance: Instance) -> None:
        super().__init__(storm, instance, "writer")
        self.written: set[int] = set()
        self.tried = 0

    def act(self) -> None:
        with (
            suppress(*SQL_ERRORS),
            self.storm.login(self.instance, "admin", PASSWORD).connect() as session,
        ):
            for _ in range(20):
                self.tried += 1
                session.execute(f"INSERT INTO journal VALUES ({self.tried})")
                self.written.add(self.tried)
                time.sleep(0.01)


Account = tuple[str, bool, str]
"""A user's password, whether they are an administrator, and their level in `rdb`."""


class UserActor(Actor):
    """One user's life; None: there is no such user."""

    def __init__(self, storm: Storm, instance: Instance, name: str) -> None:
        super().__init__(storm, instance, name)
        self.truth: Truth[Account | None] = Truth([None])
        self.levelled_at = 0.0
        """When the last request began that certainly made them, or gave them a level."""
        self.number = 0

    @property
    def may_be_custom(self) -> bool:
        """Whether others may have given them something besides their level since they got it."""
        return self.levelled_at <= self.storm.given_at.get((self.instance.id, self.name), -1.0)

    def act(self) -> None:
        known = [one for one in self.truth.may_be if one is not None]
        if not known or (None in self.truth.may_be and self.chance.random() < 0.5):
            self.create()
            return
        todo = (self.delete, self.rekey, self.promote, self.level, self.work, self.hold)
        self.chance.choices(todo, (1, 1, 1.5, 4, 5, 1))[0](known)

    def password(self) -> str:
        self.number += 1
        self.storm.passwords.append(f"Secr3t-{self.name}-{self.number}-{self.storm.seed}!x")
        return self.storm.passwords[-1]

    def create(self) -> None:
        password, admin = self.password(), self.chance.random() < 0.25
        user = {"name": self.name, "password": password, "is_admin": admin}
        began = time.monotonic()
        outcome = self.client.ask("POST", f"{self.path}/users", user)
        self.note_level(outcome, began)
        self.expect(outcome, is_certain=self.truth.may_be == [None])
        self.truth.note(outcome, (password, admin, "all" if admin else "none"))

    def delete(self, _: list[Account]) -> None:
        outcome = self.client.ask("DELETE", f"{self.path}/users/{self.name}")
        if self.client.status == 404 and None in self.truth.may_be:
            outcome = "done"
        self.truth.note(self.expect(outcome), None)

    def rekey(self, known: list[Account]) -> None:
        password = self.password()
        outcome = self.patch({"password": password})
        self.truth.note(outcome, *((password, *one[1:]) for one in known))

    def promote(self, known: list[Account]) -> None:
        admin = self.chance.random() < 0.4
        outcome = self.patch({"is_admin": admin})
        self.truth.note(outcome, *((one[0], admin, one[2]) for one in known))

    def patch(self, sent: dict[str, Any]) -> Outcome:
        outcome = self.client.ask("PATCH", f"{self.path}/users/{self.name}", sent)
        return self.expect(outcome, is_certain=None not in self.truth.may_be)

    def note_level(self, outcome: Outcome, began: float) -> None:
        if outcome == "done":
            self.levelled_at = began

    def level(self, known: list[Account]) -> None:
        level = self.chance.choice(LEVELS)
        sent = {"database_name": "rdb", "user_name": self.name, "permission": level}
        began = time.monotonic()
        outcome = self.client.ask("PUT", f"{self.path}/privileges", sent)
        self.note_level(outcome, began)
        self.expect(outcome, is_certain=None not in self.truth.may_be)
        self.truth.note(outcome, *((one[0], one[1], level) for one in known))

    def work(self, known: list[Account]) -> None:
        self.number += 1
        todo = statements(self.instance.engine, self.name, self.number, self.chance)
        self.sql(self.name, self.chance.choice(known)[0], *todo)

    def hold(self, known: list[Account]) -> None:
        """Hold a lock in a session that stays open for a while."""
        locked = f"locked_{self.name}"
        lock = "LOCK TABLE {}" if self.instance.engine.startswith("P") else "LOCK TABLES {} WRITE"
        with suppress(*SQL_ERRORS):
            password = self.chance.choice(known)[0]
            session = self.storm.login(self.instance, self.name, password).connect(autocommit=False)
            self.storm.held.append(session)
            session.execute(IMPATIENT[self.instance.engine.partition("-")[0]])
            session.execute(f"CREATE TABLE IF NOT EXISTS {locked}(x int)")
            session.execute(lock.format(locked))


class DatabaseActor(Actor):
    """A database that comes and goes, with users' levels and an administrator's tables."""

    def __init__(self, storm: Storm, instance: Instance, name: str) -> None:
        super().__init__(storm, instance, name)
        self.truth = Truth([False])
        self.number = 0

    def act(self) -> None:
        if True not in self.truth.may_be:
            outcome = self.client.ask("POST", f"{self.path}/databases", {"name": self.name})
            self.truth.note(self.expect(outcome), True)
        elif self.chance.random() < 0.3:
            outcome = self.client.ask("DELETE", f"{self.path}/databases/{self.name}")
            if self.client.status == 404 and False in self.truth.may_be:
                outcome = "done"
            self.truth.note(self.expect(outcome), False)
        else:
            level = {
                "database_name": self.name,
                "user_name": f"u{self.chance.randrange(USERS)}",
                "permission": self.chance.choice(LEVELS),
            }
            self.client.ask("PUT", f"{self.path}/privileges", level)
            self.number += 1
            self.sql("admin", PASSWORD, f"CREATE TABLE t{self.number}(x int)", database=self.name)


class InstanceActor(Actor):
    """Settings, rules, restarts, names, certificates."""

    def __init__(self, storm: Storm, instance: Instance) -> None:
        super().__init__(storm, instance, "instance")
        self.setting = tenant_of(instance.engine).hot[0]
        born = {one.name: one.value for one in instance.settings}
        self.value: Truth[str | None] = Truth([born.get(self.setting)])
        self.named = Truth([instance.name])
        self.rules = Truth([1])

    def act(self) -> None:
        time.sleep(self.chance.uniform(0, 1.5))
        todo = (self.set, self.set_cold, self.restart, self.rename, self.renew, self.let_in)
        self.chance.choices(todo, (2, 1, 1, 1, 1, 1))[0]()

    def set(self) -> None:
        value = str(self.chance.randrange(5, 9))
        sent = {"settings": [{"name": self.setting, "value": value}]}
        outcome = self.client.ask("PUT", f"{self.path}/settings", sent)
        self.value.note(self.expect(outcome), value)

    def set_cold(self) -> None:
        name, value = tenant_of(self.instance.engine).cold
        sent = {"settings": [{"name": name, "value": value}]}
        self.expect(self.client.ask("POST", f"{self.path}/settings", sent))

    def restart(self) -> None:
        self.expect(self.client.ask("POST", f"{self.path}/restart"))

    def rename(self) -> None:
        name = f"n{self.chance.randrange(10**6)}"
        outcome = self.client.ask("PATCH", self.path, {"name": name})
        self.named.note(self.expect(outcome), name)

    def renew(self) -> None:
        self.expect(self.client.ask("POST", f"{self.path}/renew-certificate"))
        with suppress(Exception):
            self.storm.trust(self.instance)

    def let_in(self) -> None:
        nets = [f"10.{number}.0.0/16" for number in range(self.chance.randrange(1, 5))]
        rules = [{"ip": net, "description": "x"} for net in [*nets, "0.0.0.0/0"]]
        outcome = self.client.ask("PUT", f"{self.path}/acls", {"rules": rules})
        self.rules.note(self.expect(outcome), len(rules))
