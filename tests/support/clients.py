"""Clients of an instance of PostgreSQL that go on whatever happens to it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import psycopg
from scaleway.rdb.v1 import Instance

from tests.support.service import PASSWORD, Service, wait_until

TABLE = "CREATE TABLE written (n bigint)"


class Client:
    """Does something by an instance's endpoint again and again, in a session that is opened again
    whenever it ends; counts how often it was done.

    Args:
        begins: what each session begins with.
    """

    def __init__(self, service: Service, instance: Instance, begins: str = "") -> None:
        # What takes an instance's place has an authority of its own: any certificate is taken.
        login = replace(service.login(instance), certificate=None)
        self._line = {"host": login.host, "port": login.port, "dbname": "rdb"}
        self._line |= {"user": "admin", "password": PASSWORD, "sslmode": "require"}
        self._begins = begins
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.done = 0
        self.refusals = Counter[str]()
        """The names of the errors that ended sessions."""
        self.longest = 0.0
        """The most seconds between two times that it was done."""

    def __enter__(self) -> Any:
        self._thread.start()
        wait_until(lambda: self.done > 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def do(self, session: psycopg.Connection[Any]) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        last = None
        while not self._ending.is_set():
            try:
                with psycopg.connect(**self._line, autocommit=True, connect_timeout=5) as session:  # type: ignore[arg-type]
                    if self._begins:
                        session.execute(self._begins.encode())
                    while not self._ending.is_set():
                        self.do(session)
                        self.done += 1
                        now = time.monotonic()
                        self.longest = max(self.longest, now - (last or now))
                        last = now
            except psycopg.Error as error:
                self.refusals[type(error).__name__] += 1
                self._ending.wait(0.01)


class Writer(Client):
    """Writes numbers into the table; those up to `done` were acknowledged."""

    def do(self, session: psycopg.Connection[Any]) -> None:
        # It may be there, if a server was killed before it could acknowledge it.
        insert = "INSERT INTO written VALUES (%s) ON CONFLICT DO NOTHING"
        session.execute(insert, [self.done + 1])

    def found(self, session: psycopg.Connection[Any]) -> int:
        """Return how many of the acknowledged numbers are in the table."""
        query = "SELECT count(DISTINCT n) FROM written WHERE n <= %s"
        row = session.execute(query, [self.done]).fetchone()
        assert row is not None
        return int(row[0])


class Maker(Client):
    """Makes tables; those up to the number `done` were acknowledged."""

    def do(self, session: psycopg.Connection[Any]) -> None:
        session.execute(f"CREATE TABLE made_{self.done + 1} (a int PRIMARY KEY)".encode())
        self._ending.wait(0.02)


class Reader(Client):
    """Reads by an endpoint; counts by the major versions that answered."""

    def __init__(self, service: Service, instance: Instance) -> None:
        super().__init__(service, instance)
        self.answered = Counter[int]()

    def do(self, session: psycopg.Connection[Any]) -> None:
        row = session.execute("SELECT current_setting('server_version_num')::int").fetchone()
        assert row is not None
        self.answered[row[0] // 10000] += 1
