"""A highly available instance of a service, clients at work on it, and its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

import psutil
from pydantic import TypeAdapter

from openrdb.host.records import NodeRecord, PairRecord
from openrdb.spec import NodeSpec
from openrdb.system.layout import Layout
from tests.support.histories import FAILED, Appender, Writer
from tests.support.programs import held, holder
from tests.support.service import Service, wait_until
from tests.support.tenants import Login, Session, Tenant, tenant_of

BACK = 120.0
"""Seconds after which nobody believes in it any more."""
_PAUSE = 0.003
"""Seconds between what a client does: several instances are tried on two processors."""
_MORE = 20
"""Acknowledged writes that show that an instance works."""
_NODE = TypeAdapter(NodeRecord)
_PAIR = TypeAdapter(PairRecord)
_IMPATIENT = {
    "PostgreSQL": {"connect_timeout": 2},
    # MySQL's driver has no other bound for what a frozen server does not say.
    "MySQL": {"connect_timeout": 2, "read_timeout": 20},
}


@dataclass
class AtWork:
    """Clients of an instance, and what they were told."""

    writer: Writer
    appender: Appender

    def wait_for_more(self) -> None:
        """Return when more has been acknowledged to all of both kinds."""
        rows, lists = self.writer.acknowledged, self.appender.committed
        wait_until(
            lambda: (
                self.writer.acknowledged >= rows + _MORE
                and self.appender.committed >= lists + _MORE / 4
            ),
            BACK,
        )


class World:
    """The instance; which of its nodes is what is read from its host's record."""

    def __init__(self, service: Service, engine: str, **asked: object) -> None:
        self.service = service
        self.tenant: Tenant = tenant_of(engine)
        self.instance = service.create(engine, name=f"pair-{engine}", is_ha_cluster=True, **asked)
        self.id = self.instance.id
        self.login: Login = service.login(self.instance)

    @property
    def record(self) -> PairRecord:
        path = Layout(self.service.data_dir).pair(UUID(self.id))
        return _PAIR.validate_json(path.read_text())

    @property
    def _spec(self) -> NodeSpec:
        path = Layout(self.service.data_dir).node(UUID(self.id), self.record.primary).record
        return _NODE.validate_json(path.read_text()).spec

    # -- processes -------------------------------------------------------------------------------

    def pid(self, node: UUID) -> int | None:
        """Return a node's main process."""
        return holder(self.service, self.id, f"node-{node}")

    def main(self, node: UUID) -> psutil.Process:
        wait_until(lambda: self.pid(node) is not None, BACK)
        return psutil.Process(self.pid(node))

    def processes(self, node: UUID) -> list[psutil.Process]:
        """Return a node's main process and what it has started."""
        main = self.main(node)
        return [main, *main.children(recursive=True)]

    def sessions(self, node: UUID) -> list[psutil.Process]:
        """Return the processes that serve users' sessions, where each has its own."""
        return [one for one in self.processes(node) if self.login.user in _title(one)]

    def receiver(self, node: UUID) -> psutil.Process:
        """Return what receives for a follower: all of the server, where that is no process."""
        found = self.processes(node)
        return next((one for one in found if "walreceiver" in _title(one)), found[0])

    def child(self, node: UUID, title: str) -> psutil.Process:
        """Return the process of a server that does one thing, as its title says."""
        (found,) = (one for one in self.processes(node) if title in _title(one))
        return found

    def held(self, node: UUID) -> contextlib.AbstractContextManager[None]:
        """Let a node receive nothing within the context: what receives is frozen, and each server that
        is started in its place."""
        return held(self.service, self.id, f"node-{node}", self.receiver(node))

    # -- what is in files ------------------------------------------------------------------------

    def copies(self) -> int:
        """Return how often a standby was copied since the agent's log began."""
        log = (self.service.data_dir / "run" / "agent.log").read_text(errors="replace")
        return log.count(f"pair {self.id}: the standby's data is being copied")

    def secrets(self) -> dict[str, bytes]:
        """Return what nobody may find in any of its volumes."""
        spec = self._spec
        key = spec.certificate.key if spec.certificate is not None else ""
        assert key
        # One line of it says enough, as the others may be broken elsewhere.
        lines = {f"key, line {number}": line for number, line in enumerate(key.splitlines())}
        found = {"superuser": spec.secret, "replication": spec.replication_secret, **lines}
        return {
            name: secret.encode()
            for name, secret in found.items()
            if secret and not secret.startswith("-----")
        }

    # -- waiting ---------------------------------------------------------------------------------

    def wait_moved(self, epoch: int) -> None:
        """Return when another node has become the primary."""
        wait_until(lambda: self.record.epoch > epoch, BACK)

    def wait_replaced(self, node: UUID, pid: int) -> None:
        """Return when a node runs as another process."""
        wait_until(lambda: self.pid(node) not in (None, pid), BACK)

    def wait_protected(self) -> None:
        """Return when a loss of either node would lose nothing, and the API says so."""
        wait_until(lambda: self.record.is_armed, BACK)
        if self.service.process is not None:
            wait_until(self._is_ready, BACK)

    def _is_ready(self) -> bool:
        answer = self.service.request("GET", f"/instances/{self.id}")
        return bool(answer.json()["status"] == "ready") and self.record.is_armed

    # -- clients ---------------------------------------------------------------------------------

    def connect(self) -> Session:
        return self.login.connect(**self.impatient)

    @property
    def impatient(self) -> dict[str, int]:
        """What keeps clients from waiting for what is frozen."""
        return _IMPATIENT[self.tenant.name]

    def patiently(self) -> Session:
        """Connect as soon as somebody lets in."""
        deadline = time.monotonic() + BACK
        while True:
            try:
                return self.connect()
            except FAILED:
                assert time.monotonic() < deadline, "nobody lets in"
                time.sleep(0.1)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[AtWork]:
        """Let clients work; when they have ended all that they were told is true, or the test
        fails."""
        writer = Writer(self.connect, threads=2, pause=_PAUSE)
        appender = Appender(self.connect, self.instance.engine, threads=3, pause=_PAUSE)
        with self.patiently() as session:
            for table in ("written", "lists"):
                session.execute(f"DROP TABLE IF EXISTS {table}")
            session.execute(writer.TABLE)
            appender.prepare(session)
        with writer, appender:
            clients = AtWork(writer, appender)
            clients.wait_for_more()
            yield clients
        with self.patiently() as session:
            verdict, anomalies = writer.check(writer.read(session)), appender.read(session)
        assert verdict, f"{verdict}, of those with {dict(writer.errors)}"
        found = appender.check(anomalies)
        told = "\n".join(f"{one.name}: {one.why}" for one in found[:5])
        assert not found, f"{dict(appender.errors)}\n{told}"


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal processes, of which any may just be ending."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.kill(process.pid, number)


def is_same(process: psutil.Process) -> bool:
    """Return whether a process is there still, and not another one of its number."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
