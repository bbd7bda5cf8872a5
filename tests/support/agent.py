"""An agent's host within the tests' own process, and nodes of its: there is no control plane."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import psutil

from openrdb import certificates
from openrdb.engines import rules_of
from openrdb.host.balancer import choose
from openrdb.host.local import LocalHost
from openrdb.spec import Administrator, Backend, Certificate, NodeSpec, NodeState, Route
from openrdb.system import accounts
from openrdb.system.layout import Layout, NodePaths
from tests.support.service import PASSWORD, kill, wait_until
from tests.support.tenants import Login, Session

RESERVE = 256 * 2**20


class Agent:
    """Its nodes end with the context."""

    def __init__(self, root: Path, cache: Path, **options: Any) -> None:
        root.chmod(0o755)
        self.root, self._cache, self._options = root, cache, {"volume_reserve": RESERVE} | options
        self._accounts = 0
        self.host = self._opened()

    def _opened(self) -> LocalHost:
        return LocalHost(
            self.root,
            self._cache,
            build="tests",
            spares=0,
            aliases={},
            choice=choose("haproxy", "127.0.0.1"),
            **self._options,
        )

    def __enter__(self) -> Self:
        self.host.start([])
        return self

    def __exit__(self, *_: object) -> None:
        self.host.stop_everything()
        self.host.close()

    def restart(self) -> None:
        """Replace it, while the nodes run on, as after its death."""
        with self.away():
            pass

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let another process be the agent within the context."""
        self.host.close()
        yield
        self.host = self._opened()
        self.host.start([])

    def account(self) -> int | None:
        """Another one for each instance, as hosts demand; None where all have the agent's own."""
        first = accounts.template_account()
        self._accounts += 1
        return None if first is None else first - self._accounts

    def node(self, engine: str, port: int, volume_size: int) -> Node:
        """A running one with the user `admin`."""
        instance = uuid4()
        of_instance = (instance, "fr-par", ["127.0.0.1"])
        made = certificates.issue(certificates.make_authority(*of_instance), *of_instance)
        spec = NodeSpec(
            *(instance, uuid4(), engine, "127.0.0.1", port, self.account(), 2**30),
            generation=1,
            secret="a-secret-of-the-tests",
            replication_secret="a-secret-of-the-nodes",
            certificate=Certificate(made.key, made.presented, made.authority),
            volume_size=volume_size,
        )
        self.host.ensure_volume(spec)
        self.host.ensure_configuration(spec)
        self.host.ensure_accepting(spec)
        verifier = rules_of(engine).verifier(PASSWORD)
        self.host.ensure_bootstrapped(spec, Administrator("admin", verifier))
        self.route(spec)
        return Node(self, spec)

    def route(self, spec: NodeSpec) -> None:
        """Let clients come to a node: as root nobody but the load balancer gets to its own port."""
        instance, port = spec.instance_id, spec.port
        route = Route(
            *(
                uuid4(),
                instance,
                "127.0.0.1",
                port - 100,
                (Backend(spec.node_id, "127.0.0.1", port),),
            ),
            connections=50,
            uid=spec.uid,
            rule=spec.node_id,
        )
        self.host.ensure_route(route)


class Node:
    def __init__(self, agent: Agent, spec: NodeSpec) -> None:
        self.agent, self.spec = agent, spec

    @property
    def paths(self) -> NodePaths:
        return Layout(self.agent.root).node(self.spec.instance_id, self.spec.node_id)

    @property
    def state(self) -> NodeState:
        (found,) = [one for one in self.agent.host.nodes() if one.node_id == self.spec.node_id]
        return found

    @property
    def pid(self) -> int | None:
        return self.agent.host._healer.pid(f"node-{self.spec.node_id}")

    def wait_for(self, writes: str, timeout: float = 60) -> None:
        """Until its users may write so, and the running server says the same."""
        records = self.agent.host._records.nodes

        def is_so() -> bool:
            record = records[self.spec.node_id]
            return record.writes == writes and record.are_writes_in_force

        wait_until(is_so, timeout)

    def grow(self, size: int) -> str:
        """Enlarge its volume."""
        self.spec = replace(self.spec, volume_size=size, generation=self.spec.generation + 1)
        return self.agent.host.ensure_volume_size(self.spec)

    def kill(self) -> None:
        """End its server as a crash would."""
        if (pid := self.pid) is not None:
            server = psutil.Process(pid)
            kill([*server.children(), server])
        wait_until(lambda: self.pid not in (None, pid))
        self.agent.host.ensure_accepting(self.spec)

    def connect(self, **options: Any) -> Session:
        spec = self.spec
        where = (
            spec.engine,
            spec.address,
            spec.port - 100,
            "admin",
            PASSWORD,
            self.paths.authority,
        )
        return Login(*where).connect(**options)

    @contextmanager
    def session(self, **options: Any) -> Iterator[Session]:
        with self.connect(**options) as session:
            yield session
