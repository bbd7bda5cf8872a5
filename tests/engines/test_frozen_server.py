"""A server that stops to answer is given up."""

from __future__ import annotations

import os
import signal
import time

import psycopg
import pytest

from openrdb.engines.postgresql import session
from tests.support.postgresql_server import Server

pytestmark = pytest.mark.timeout(60)


def test_a_session_of_a_frozen_backend(server: Server) -> None:
    connection = session.connect(server.node, "postgres")
    connection.patience = 1.0
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        with pytest.raises(psycopg.OperationalError, match="does not answer"), connection:
            connection.execute("SELECT 1")
        assert connection.closed
    finally:
        os.kill(backend, signal.SIGCONT)


def test_a_slow_answer_is_waited_for(server: Server) -> None:
    before = time.monotonic()
    with session.connect(server.node, "postgres") as connection:
        connection.patience = 5.0
        row = connection.execute("SELECT 7 FROM pg_sleep(1)").fetchone()
    assert row == (7,)
    assert time.monotonic() - before >= 1
