"""Healing: what should run, runs; noticed by the kernel's word, not by asking again and again.

Level-triggered: each round compares the programs that the state wants with the processes that hold
their locks, starts what is missing, and then sleeps until one of those processes ends (pidfd), until
somebody says that the wanted ones have changed, or, as a net, for some seconds.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from dataclasses import dataclass
from functools import partial
from select import POLLIN, poll
from socket import socket
from uuid import UUID

from sqlalchemy import Select, select

from openrdb.errors import HostError
from openrdb.host.agent import LocalHost
from openrdb.host.balancer import Target
from openrdb.host.processes import Program
from openrdb.operations.desired import balancer_targets, node_spec
from openrdb.state.database import Database
from openrdb.state.models import Instance, Node
from openrdb.state.secrets import Secrets
from openrdb.system import locks

log = logging.getLogger(__name__)

_NET = 10.0
"""Seconds after which a round is made though nothing was heard."""
_SOON = 0.2
"""The same after something was started, which is not known by its pid yet."""
_SETTLED = ("ready", "configuring", "error")
"""Statuses in which no operation stops processes."""


def settled() -> Select[Instance]:
    """Instances whose processes are to run, and that no operation is stopping."""
    running = select(Instance).join(Node).where(Node.desired == "running")
    return running.where(Instance.status.in_(_SETTLED))


@dataclass(frozen=True)
class _Wanted:
    programs: list[tuple[UUID, Program]]
    """Those that are to run, by their instances."""
    targets: list[Target]
    """The endpoints that are to be served."""


class Healer:
    def __init__(self, database: Database, host: LocalHost, secrets: Secrets) -> None:
        self._database = database
        self._host = host
        self._secrets = secrets
        self._stopping = threading.Event()
        self._wake_reading, self._wake_writing = os.pipe()
        self._alarm = host.balancer_alarm()
        self._watched: dict[int, int] = {}  # pid → pidfd
        self._supervisor_pid: int | None = None
        self._thread = threading.Thread(target=self._loop, name="healer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self.wake()
        self._thread.join()

    def wake(self) -> None:
        """Look again now."""
        os.write(self._wake_writing, b".")

    def heal(self) -> bool:
        """One round: have everything wanted run, and watch it; says whether all did already."""
        supervisor = self._host.supervisor
        supervisor.ensure_up()
        # A new supervisor knows no programs; told of them, it takes over those that still run.
        ignorant = supervisor.pid() != self._supervisor_pid
        self._supervisor_pid = supervisor.pid()
        wanted = self._wanted()
        self._heal_endpoints(wanted.targets)
        running = locks.holders(program.lock for _, program in wanted.programs)
        for instance_id, program in wanted.programs:
            if program.lock not in running:
                log.warning("%s is not running: starting it", program.name)
            if ignorant or program.lock not in running:
                still_wanted = partial(self._is_wanted, instance_id, program)
                self._host.ensure_running_if(instance_id, program, still_wanted)
        self._watch({*running.values(), *filter(None, [self._supervisor_pid])})
        return len(running) == len(wanted.programs)

    def _heal_endpoints(self, targets: list[Target]) -> None:
        try:
            self._host.ensure_balancers(targets, lambda: self._wanted().targets)
        except HostError as error:
            log.warning("endpoints are not served: %s", error)

    def _wanted(self, instance_id: UUID | None = None) -> _Wanted:
        """What all instances, or one, want."""
        wanted = _Wanted([], [])
        query = settled()
        if instance_id is not None:
            query = query.where(Instance.id == instance_id)
        with self._database.read() as session:
            for instance in session.scalars(query).unique():
                targets = balancer_targets(instance)
                programs = [
                    self._host.program(node_spec(instance, node, self._secrets))
                    for node in instance.nodes
                ]
                programs += self._host.balancer_programs(targets)
                wanted.programs.extend((instance.id, program) for program in programs)
                wanted.targets.extend(targets)
        return wanted

    def _is_wanted(self, instance_id: UUID, program: Program) -> bool:
        return any(program.name == other.name for _, other in self._wanted(instance_id).programs)

    def _watch(self, pids: set[int]) -> None:
        for pid in set(self._watched) - pids:
            os.close(self._watched.pop(pid))
        for pid in pids - set(self._watched):
            try:
                self._watched[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                self.wake()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            whole = False
            try:
                whole = self.heal()
            except Exception:
                log.exception("healing failed; it is tried again")
            self._sleep(_NET if whole else _SOON)
        for descriptor in self._watched.values():
            os.close(descriptor)
        if self._alarm is not None:
            self._alarm.close()

    def _sleep(self, longest: float) -> None:
        watching = poll()
        for descriptor in (self._wake_reading, *self._watched.values()):
            watching.register(descriptor, POLLIN)
        if self._alarm is not None:
            watching.register(self._alarm, POLLIN)
        for descriptor, _ in watching.poll(longest * 1000):
            if descriptor == self._wake_reading:
                os.read(self._wake_reading, 4096)
            elif self._alarm is not None and descriptor == self._alarm.fileno():
                _silence(self._alarm)


def _silence(alarm: socket) -> None:
    """Read what it says: only that it says something is of interest."""
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                alarm.recv(65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # it had more to say than it can keep
                    raise
