"""Clients that write without end, come again at once, and remember what was acknowledged."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import count, pairwise

from tests.support.tenants import Login, Session

TABLE = "acknowledged"


@dataclass
class Writers:
    """Clients of one endpoint, each of which inserts keys of its own, one a transaction."""

    login: Login
    clients: int = 4
    acknowledged: set[int] = field(default_factory=set)
    moments: list[float] = field(default_factory=list)
    """When something was acknowledged (`time.monotonic`)."""
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._write) for _ in range(self.clients)]

    def __enter__(self) -> Writers:
        with self.login.connect() as session:
            session.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (id bigint PRIMARY KEY)")
            session.execute(f"DELETE FROM {TABLE}")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        session: Session | None = None
        while not self._stopping.is_set():
            try:
                if session is None:
                    session = self.login.connect(connect_timeout=2)
                with self._lock:
                    number = next(self._numbers)
                session.execute(f"INSERT INTO {TABLE} VALUES ({number})")
                with self._lock:
                    self.acknowledged.add(number)
                    self.moments.append(time.monotonic())
            except self.login.tenant.failed as error:
                self.complaints.append(str(error))
                if session is not None:
                    session.close()
                session = None
                self._stopping.wait(0.002)  # as an application does that counts to its next attempt
        if session is not None:
            session.close()

    def wait_for(self, more: int, timeout: float = 60.0) -> None:
        """Until so many more were acknowledged."""
        wanted, deadline = len(self.moments) + more, time.monotonic() + timeout
        while len(self.moments) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing is acknowledged: {self.complaints[-3:]}")
            time.sleep(0.01)

    def gap(self) -> float:
        """The largest time in which nothing was acknowledged."""
        moments = sorted(self.moments)
        return max((b - a for a, b in pairwise(moments)), default=0.0)

    def lost(self) -> set[int]:
        """What was acknowledged and is not there."""
        with self.login.connect() as session:
            there = {row[0] for row in session.execute(f"SELECT id FROM {TABLE}").fetchall()}
        return self.acknowledged - there
