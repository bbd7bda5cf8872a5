"""What servers say of their users' sessions and transactions, in which ours do not count."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from openrdb.engines.base import Server as EngineServer
from openrdb.errors import HostError
from tests.support import mysql_server
from tests.support.postgresql_server import Server
from tests.support.service import wait_until

PATIENCE = 10.0
pytestmark = pytest.mark.timeout(120)


def connections(engine: EngineServer) -> int:
    return engine.activity(PATIENCE).connections


def transactions(engine: EngineServer) -> int:
    return engine.activity(PATIENCE).transactions


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def refused_in_time(engine: EngineServer) -> None:
    began = time.monotonic()
    with pytest.raises(HostError, match="does not say"):
        engine.activity(1.0)
    assert time.monotonic() - began < 10


def test_postgresql(server: Server) -> None:
    engine = server.engine
    wait_until(lambda: connections(engine) == 0)
    with server.superuser(), server.session() as first, server.session() as second:
        assert connections(engine) == 2
        before = transactions(engine)
        for _ in range(50):
            first.execute("SELECT 1")
        with second.transaction(force_rollback=True):
            second.execute("CREATE TABLE never (n int)")
            second.execute("SELECT 1")
    # What a session has done is told at its end at the latest.
    wait_until(lambda: transactions(engine) >= before + 51)
    assert transactions(engine) < before + 70
    with frozen(int((server.paths.data / "postmaster.pid").read_text().split()[0])):
        refused_in_time(engine)


def test_mysql(mysql: mysql_server.Server, office: str) -> None:
    engine = mysql.engine
    transactions(engine)  # InnoDB counts from the first time on
    wait_until(lambda: connections(engine) == 0)
    with mysql.superuser(), mysql.session(database=office) as first:
        with mysql.session(database=office):
            assert connections(engine) == 2
        first("CREATE TABLE numbers (n int)")
        before = transactions(engine)
        for number in range(25):
            first("INSERT INTO numbers VALUES (%s)", number)
            first("SELECT * FROM numbers")
        first("BEGIN")
        for number in range(25):
            first("INSERT INTO numbers VALUES (%s)", number)
        first("ROLLBACK")
        assert before + 51 <= transactions(engine) < before + 70
    with frozen(mysql.process.pid):
        refused_in_time(engine)
