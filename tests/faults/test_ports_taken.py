"""A stranger has the port of an engine or an endpoint: said once, tried less and less often."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import time

import pytest

from tests.support.programs import holder
from tests.support.service import Service, wait_until

BACK = 60.0
_TRIED = 12.0
"""Seconds in which it would have been said each second."""


@pytest.mark.parametrize("program", ["node", "balancer"])
def test_it_comes_back_when_the_port_is_free(
    fresh_service: Service, program: str, newest: str
) -> None:
    service = fresh_service
    service.start()
    instance = service.create(newest)
    login = service.login(instance)
    with occupied(service, instance.id, program):
        before = warnings(service)
        time.sleep(_TRIED)
        assert warnings(service) == before, "it was said again"
        said = [line for line in before if f"{program}-" in line and "does not run" in line]
        assert len([line for line in said if "in use" in line]) == 1, said
    wait_until(login.answers, BACK)
    service.request("DELETE", f"/instances/{instance.id}")
    wait_until(lambda: not service.processes(instance.id), BACK)
    assert warnings(service) == before, "a deletion is no reason to warn"


@contextlib.contextmanager
def occupied(service: Service, instance_id: str, program: str):
    """Take a program's port from it, by killing it until the stranger is the first."""
    table = "nodes" if program == "node" else "endpoints"
    with contextlib.closing(
        sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True)
    ) as state:
        (port,) = state.execute(f"SELECT port FROM {table}").fetchone()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = time.monotonic() + BACK
        while True:
            with contextlib.suppress(OSError):
                stranger.bind(("127.0.0.1", port))
                stranger.listen()
                break
            assert time.monotonic() < deadline
            pid = holder(service, instance_id, program)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        wait_until(lambda: any("in use" in line for line in warnings(service)), BACK)
        yield


def warnings(service: Service) -> list[str]:
    log = service.data_dir / "run" / "agent.log"
    return [line for line in log.read_text().splitlines() if "WARNING" in line]
