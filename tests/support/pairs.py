"""Pairs and replicas of an agent without a control plane, and what is killed of them."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import psutil

from openrdb.engines import server_of_node
from openrdb.engines.mysql import session as mysql_session
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import run
from openrdb.engines.postgresql import session as postgresql_session
from openrdb.host.pairs import PairKeeper
from openrdb.host.records import PairRecord
from openrdb.host.replicas import ReplicaKeeper
from openrdb.spec import Backend, NodeSpec, NodeState, Route
from tests.support.agent import Agent, Node
from tests.support.service import PASSWORD, wait_until
from tests.support.tenants import Login

PROTECTED = 120.0


class Pair:
    """An instance of two nodes with an endpoint, protected from the beginning."""

    def __init__(self, agent: Agent, engine: str, ports: Sequence[int]) -> None:
        """`ports`: of both nodes and of the endpoint; another one is 100 below the first."""
        self.agent = agent
        first = agent.node(engine, ports[0], 5 * 10**9)
        paired = replace(first.spec, is_paired=True)
        self.specs = [paired, replace(paired, node_id=uuid4(), port=ports[1])]
        self.endpoint = ports[2]
        self.route = self._route(self.specs)
        agent.host.ensure_configuration(self.specs[0])
        agent.host.ensure_route(self.route)
        self.wait_protected()

    def _route(self, specs: Sequence[NodeSpec]) -> Route:
        instance = specs[0].instance_id
        backends = tuple(Backend(one.node_id, one.address, one.port) for one in specs)
        return Route(
            *(uuid4(), instance, "127.0.0.1", self.endpoint, backends),
            connections=50,
            uid=specs[0].uid,
        )

    def replica(self, port: int) -> NodeSpec:
        """A new read replica, which follows."""
        spec = replace(self.specs[0], node_id=uuid4(), port=port, role="replica")
        wait_until(lambda: self.agent.host.ensure_replica(spec, 5.0), PROTECTED)
        return spec

    def wait_protected(self, timeout: float = PROTECTED) -> None:
        host = self.agent.host
        wait_until(lambda: host.ensure_pair(*self.specs, 5.0), timeout)

    @property
    def record(self) -> PairRecord:
        return self.agent.host._records.pairs[self.specs[0].instance_id]

    @property
    def keeper(self) -> PairKeeper:
        return self.agent.host._keepers[self.specs[0].instance_id]

    @property
    def login(self) -> Login:
        node = Node(self.agent, self.specs[0])
        spec = self.specs[0]
        where = (spec.engine, spec.address, self.endpoint, "admin", PASSWORD, node.paths.authority)
        return Login(*where)

    def spec_of(self, node_id: UUID) -> NodeSpec:
        return next(one for one in self.specs if one.node_id == node_id)

    def state_of(self, node_id: UUID) -> NodeState:
        return next(one for one in self.agent.host.nodes() if one.node_id == node_id)

    def pid(self, node_id: UUID) -> int | None:
        return self.agent.host._healer.pid(f"node-{node_id}")

    def volume(self, node_id: UUID) -> Path:
        return self.agent.host._paths(self.agent.host._record(node_id)).data

    def program_record(self, node_id: UUID) -> Path:
        """The file that says which process a node's server is, and of which boot."""
        host = self.agent.host
        return host._program_to_end(host._record(node_id).spec).record

    # -- what is done to it ----------------------------------------------------------------------

    def processes(self, node_id: UUID) -> list[psutil.Process]:
        """The server's main process and its children."""
        identity = self.keeper.ground.adopt(node_id)
        if identity is None:
            return []
        try:
            main = psutil.Process(identity.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal(self, node_id: UUID, number: signal.Signals, *, main_only: bool = False) -> None:
        found = self.processes(node_id)
        for process in found[:1] if main_only else found:
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue

    def kill_primary(self, *, main_only: bool = True) -> UUID:
        """Kill the primary, and return which node it was."""
        primary = self.record.primary
        self.signal(primary, signal.SIGKILL, main_only=main_only)
        return primary

    def wait_open(self, timeout: float = PROTECTED) -> UUID:
        return self.keeper.wait_open(timeout)

    def wait_epoch(self, epoch: int) -> None:
        """Wait until as many primaries have followed each other, and the last one is open."""
        wait_until(lambda: self.record.epoch >= epoch and self.keeper.is_open, PROTECTED)

    @contextmanager
    def left_alone(self, node_id: UUID) -> Iterator[None]:
        """Nobody starts a node, or makes its volume anew, within the context."""
        host = self.agent.host
        host._accept(self.spec_of(node_id), "stopped")
        yield
        host._accept(self.spec_of(node_id), "running")
        self.keeper.wake()

    def resize(self, node_id: UUID, size: int) -> str:
        """Let a node's volume be of another size than the other one's; return what may be written."""
        old = self.spec_of(node_id)
        new = replace(old, volume_size=size, generation=old.generation + 1)
        self.specs[self.specs.index(old)] = new
        return self.agent.host.ensure_volume_size(new)

    def fill(self, node_id: UUID) -> None:
        """Let a node's volume be smaller than what is in it."""
        host, used = self.agent.host, None
        record = host._record(node_id)
        while used is None or self.resize(node_id, int(used * 0.9)) == "open":
            used = host._space.used(record)  # it may have released something

    def damage(self, node_id: UUID) -> None:
        """Remove what a node's server does not start without."""
        is_mysql = self.specs[0].engine.startswith("MySQL")
        (self.volume(node_id) / ("mysql.ibd" if is_mysql else "global/pg_control")).unlink()

    @contextmanager
    def without_volume(self, node_id: UUID) -> Iterator[None]:
        """A node's volume is away within the context: its server cannot be started."""
        place = self.volume(node_id)
        away = place.with_name("away")
        place.rename(away)
        yield
        if place.exists():
            shutil.rmtree(place)
        away.rename(place)

    @contextmanager
    def mysql(self, node_id: UUID) -> Iterator[Session]:
        """A session of the superuser's on a server of MySQL, of which nothing is replicated."""
        host = self.agent.host
        node = host._engine_node(host._record(node_id))
        with mysql_session.connect(node) as connection:
            run(connection, "SET SESSION sql_log_bin = 0")
            yield connection

    def replication_password(self, secret: str) -> None:
        """Let the primary know another one than its followers, which lose their connections."""
        host, pair = self.agent.host, self.record
        server = host._server(host._record(pair.primary))
        server.ensure_replication_ready(secret)
        replication = server.replication()
        assert replication is not None
        replication.dismiss(pair.standby)

    def remove_history(self) -> None:
        """Let the primary forget all that its followers have not received."""
        host, pair = self.agent.host, self.record
        node = host._engine_node(host._record(pair.primary))
        replication = server_of_node(node).replication()
        assert replication is not None
        replication.dismiss(pair.standby)
        if node.spec.engine.startswith("MySQL"):
            with mysql_session.connect(node) as connection, connection.cursor() as cursor:
                cursor.execute("FLUSH BINARY LOGS")
                cursor.execute("PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY")
            return
        with postgresql_session.connect(node, "postgres") as superuser:
            superuser.autocommit = True
            for _ in range(3):
                superuser.execute("SELECT pg_logical_emit_message(true, 'tests', '')")
                superuser.execute("SELECT pg_switch_wal()")
                superuser.execute("CHECKPOINT")


def stay_with(keeper: ReplicaKeeper, upstream: UUID) -> None:
    """Let it follow a node for as long as that is a part of the pair."""
    with keeper.changed:
        keeper._back_at = math.inf
        keeper._turn_to(upstream)
    keeper.wake()
    wait_until(lambda: keeper._is_told and keeper.follows)
    # It is still what it was with its last upstream until it is looked at again.
    own = keeper._replication(keeper.node_id)
    wait_until(lambda: own.following().streams and keeper.follows)


def insert(login: Login, number: int) -> None:
    with suppress(login.tenant.failed), login.connect() as client:
        client.execute("INSERT INTO numbers VALUES (%s)", [number])
