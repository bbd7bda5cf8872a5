"""Instances whose servers are killed, frozen and restarted while a client writes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import psutil
from scaleway.rdb.v1 import Instance
from tests.support.programs import agent, holder, kill_and_wait
from tests.support.service import Service, wait_until
from tests.support.writers import Writers

from bench.served import Client
from openrdb.system.layout import Layout

_WRITES = 50
"""Acknowledged before a failure, and after it."""
_WELL = 180.0
_STEADY = 11.0
"""Seconds that a server has run when it fails: one that ends within ten seconds of its start is taken
for one that cannot be started."""


@dataclass(frozen=True)
class Waited:
    """Seconds that a failure cost."""

    writes: float
    """The longest time in which nothing was acknowledged."""
    until_well: float
    """From the failure until the instance was what it had been: a pair is protected again."""


class Victim:
    """An instance of one node, or a highly available one."""

    def __init__(self, service: Service, instance: Instance) -> None:
        self._service = service
        self._instance = instance
        self._last = time.monotonic()
        # Of a pair's servers, each fails every second time.
        self._steady = _STEADY / 2 + 1 if instance.is_ha_cluster else _STEADY

    def suffer(self, failure: Callable[[Victim], None]) -> Waited:
        """Let one client write, and something happen meanwhile; nothing acknowledged is lost."""
        time.sleep(max(0.0, self._last + self._steady - time.monotonic()))
        with Writers(self._service.login(self._instance), threads=1) as writers:
            writers.wait_for(_WRITES)
            self._wait_protected()
            self._last = time.monotonic()
            failure(self)
            until_well = time.monotonic() - self._last
            writers.wait_for(_WRITES)
        assert not writers.lost()
        return Waited(writers.largest_gap(), until_well)

    # -- failures, which return when the instance is well again --------------------------------

    def kill(self) -> None:
        before = self._primary
        os.kill(self._main().pid, signal.SIGKILL)
        self._wait_well(before)

    def freeze(self) -> None:
        before = self._primary
        _suspend(self._main())
        self._wait_well(before)

    def kill_standby(self) -> None:
        self._lose(f"node-{self._standby}")

    def freeze_standby(self) -> None:
        program = f"node-{self._standby}"
        main = self._main(program)
        _suspend(main)
        find = partial(holder, self._service, self._instance.id, program)
        wait_until(lambda: find() not in (None, main.pid), _WELL)
        self._wait_protected()

    def kill_agent(self) -> None:
        before = agent(self._service)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: agent(self._service) not in (None, before), _WELL)
        self._wait_protected()

    def kill_balancer(self) -> None:
        self._lose("balancer-")

    def restart(self) -> None:
        with closing(Client(self._service)) as client:
            client.at(self._instance.id, "POST", "restart", {})
            wait_until(self._is_ready(client), _WELL)

    # -- what is known of it -------------------------------------------------------------------

    def _is_ready(self, client: Client) -> Callable[[], bool]:
        return lambda: client.instance(self._instance.id).json()["status"] == "ready"

    def _wait_well(self, before: str) -> None:
        """Until a pair is protected by another primary; a single node serves when it can be written
        to, which the client waits for."""
        if self._instance.is_ha_cluster:
            wait_until(lambda: self._protected not in (None, before), _WELL)

    def _lose(self, program: str) -> None:
        """Kill a program, until it runs as another process and a pair is protected."""
        kill_and_wait(self._service, self._instance.id, program)
        self._wait_protected()

    def _wait_protected(self) -> None:
        if self._instance.is_ha_cluster:
            wait_until(lambda: self._protected, _WELL)

    def _main(self, program: str | None = None) -> psutil.Process:
        """Return a program's main process, the primary's if none is named."""
        pid = holder(self._service, self._instance.id, program or f"node-{self._primary}")
        assert pid is not None
        return psutil.Process(pid)

    @property
    def _primary(self) -> str:
        """The node that takes writes; of a single node what its name begins with."""
        if not self._instance.is_ha_cluster:
            return ""
        return str(pair_record(self._service, self._instance)["primary"])

    @property
    def _standby(self) -> str:
        pair = pair_record(self._service, self._instance)
        (standby,) = set(pair["members"]) - {pair["primary"]}
        return str(standby)

    @property
    def _protected(self) -> str | None:
        """A pair's primary while it is protected."""
        pair = pair_record(self._service, self._instance)
        return str(pair["primary"]) if pair["is_armed"] else None


def _suspend(main: psutil.Process) -> None:
    """Freeze a server with all that it has started."""
    for process in (main, *main.children(recursive=True)):
        process.suspend()


def pair_record(service: Service, instance: Instance) -> dict[str, Any]:
    """Return what the agent has written down of a highly available instance."""
    path = Layout(service.data_dir).pair(UUID(instance.id))
    found: dict[str, Any] = json.loads(path.read_text())
    return found
