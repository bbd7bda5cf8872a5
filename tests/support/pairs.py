"""Pairs and replicas of an agent without a control plane, and what is killed of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import psutil

from openrdb.host.pairs import PairKeeper
from openrdb.host.records import PairRecord
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
        self.specs = [first.spec, replace(first.spec, node_id=uuid4(), port=ports[1])]
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
