"""Clients of one endpoint that write without end, and what is lost of what was acknowledged."""

from __future__ import annotations

from functools import partial
from typing import Self

from tests.support.histories import Writer
from tests.support.service import wait_until
from tests.support.tenants import Login


class Writers(Writer):
    """Begins with a table of its own, and counts what was acknowledged."""

    def __init__(self, login: Login, threads: int = 4) -> None:
        super().__init__(partial(login.connect, connect_timeout=2), threads)
        self._login = login

    def __enter__(self) -> Self:
        with self._login.connect() as session:
            session.execute("DROP TABLE IF EXISTS written")
            session.execute(self.TABLE)
        return super().__enter__()

    def wait_for(self, more: int, timeout: float = 60.0) -> None:
        """Until so many more were acknowledged."""
        wanted = self.acknowledged + more
        wait_until(lambda: self.acknowledged >= wanted, timeout)

    def lost(self) -> list[int]:
        """What was acknowledged and is not there."""
        with self._login.connect() as session:
            return self.check(self.read(session)).missing
