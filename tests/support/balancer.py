"""A world for the balancers: real processes and sockets; as root in a network of the tests' own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from openrdb.host.balancer import Balancer, Target
from openrdb.host.balancer.base import Place
from openrdb.host.balancer.haproxy import HAProxy
from openrdb.host.balancer.nftables import Nftables, why_unusable
from openrdb.host.bundles.cache import Bundles
from openrdb.host.healing import Healer
from openrdb.system.layout import Layout
from tests.support.network import nft, own_network
from tests.support.service import ports_of_worker

PATIENCE = 20.0
"""Seconds after which a test gives up; nothing is expected to take that long."""


class Node:
    """A server that says its name, then what it hears, and "end" to who has no more to say."""

    def __init__(self, name: str, address: str, port: int) -> None:
        self.name, self.place = name, (address, port)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server(self.place, family=family, backlog=128)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(ConnectionError):
            client.sendall(self.name.encode())
            while heard := client.recv(100):
                client.sendall(heard)
            client.sendall(b"end")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)


class Session:
    def __init__(self, connection: socket.socket, node: str) -> None:
        self._connection = connection
        self.node = node

    def echoes(self) -> bool:
        self._connection.sendall(b"still there?")
        return self._connection.recv(100) == b"still there?"

    def last_word(self) -> str:
        """The answer to the end of what we have to say."""
        self._connection.shutdown(socket.SHUT_WR)
        return self._connection.recv(100).decode()

    def has_ended(self) -> bool:
        """Without a word of ours: an idle client learns of it too."""
        try:
            return self._connection.recv(100) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self._connection.close()


def connect(listen: Place, source: str | None = None) -> Session | None:
    """A client's session; None where it is refused."""
    try:
        connection = socket.create_connection(listen, PATIENCE, (source, 0) if source else None)
        name = connection.recv(100).decode()
    except ConnectionError:
        return None
    if not name:
        connection.close()
        return None
    return Session(connection, name)


def leader(listen: Place) -> str | None:
    """The name of the node that a new client gets to; None where it is refused."""
    session = connect(listen)
    if session is None:
        return None
    session.close()
    return session.node


def led(target: Target, node: Node | None) -> Target:
    """The endpoint, led to another node from the next term on."""
    return replace(target, leads=node and node.place, term=target.term + 1)


@dataclass
class World:
    """A balancer, what it needs, and the sessions that come through it."""

    balancer: Balancer
    healer: Healer
    layout: Layout
    ports: Iterator[int]
    ending: contextlib.ExitStack
    targets: list[Target] = field(default_factory=list)

    def node(self, name: str, address: str = "127.0.0.1") -> Node:
        node = Node(name, address, next(self.ports))
        self.ending.callback(node.close)
        return node

    def target(
        self, node: Node, *allowed: str, address: str = "127.0.0.1", private: bool = False
    ) -> Target:
        """An endpoint of a node, not made yet."""
        listen = (address, next(self.ports))
        networks = None if private else allowed
        target = Target(uuid4(), uuid4(), listen, (node.place,), node.place, 100, None, networks)
        self.ending.callback(self.balancer.remove, target)
        self.targets.append(target)
        return target

    def endpoint(self, node: Node, *allowed: str, address: str = "127.0.0.1") -> Target:
        target = self.target(node, *allowed, address=address)
        self.balancer.ensure(target)
        return target

    def pair(self, *nodes: Node, leads: Node | None) -> Target:
        """An endpoint that may lead to several nodes."""
        target = led(self.target(nodes[0], private=True), leads)
        target = replace(target, nodes=tuple(node.place for node in nodes))
        self.balancer.ensure(target)
        return target

    def session(self, target: Target, source: str | None = None) -> Session | None:
        """A client's session; None where it is refused."""
        session = connect(target.listen, source)
        if session is not None:
            self.ending.callback(session.close)
        return session

    def opened(self, listen: Place) -> Session:
        session = connect(listen)
        assert session
        self.ending.callback(session.close)
        return session

    def lets_in(self, target: Target, source: str) -> bool:
        session = self.session(target, source)
        if session is not None:
            session.close()
        return session is not None

    def lose_everything(self) -> None:
        """What a reboot, or a careless hand, takes away."""
        if isinstance(self.balancer, Nftables):
            nft("flush", "ruleset")
        else:
            for target in self.targets:
                self.healer.release(self.balancer.program(target))
            shutil.rmtree(self.layout.root / "instances")

    def heal(self, *targets: Target) -> int:
        """What a round of healing does; how many endpoints something was missing of."""
        missing = self.balancer.missing(targets)
        self.balancer.ensure_all(list(missing))
        for program in filter(None, map(self.balancer.program, targets)):
            self.healer.keep(program)
        return len(missing)


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    if os.geteuid() == 0:
        with own_network():
            yield
    else:
        yield  # HAProxy alone, on ports that no other test uses


@pytest.fixture(scope="module")
def layout(network: None) -> Iterator[Layout]:
    layout = Layout(Path(tempfile.mkdtemp(prefix="ordb-", dir="/tmp")))
    layout.run.mkdir()
    yield layout
    shutil.rmtree(layout.root)


@pytest.fixture(scope="module")
def healer(layout: Layout) -> Iterator[Healer]:
    healer = Healer()
    healer.start()
    yield healer
    healer.close()


@pytest.fixture(scope="module")
def ports(worker_id: str) -> Iterator[int]:
    first, last, *_ = ports_of_worker(worker_id, 1)
    return iter(range(first, last))


@pytest.fixture(params=["haproxy", "nftables"], scope="module")
def balancer(
    request: pytest.FixtureRequest, layout: Layout, healer: Healer, cache: Path
) -> Balancer:
    if request.param == "haproxy":
        return HAProxy(layout, Bundles(cache).haproxy(), healer, None)
    if why := why_unusable("127.0.0.1"):
        pytest.skip(why)
    return Nftables(layout)


@pytest.fixture
def world(
    balancer: Balancer, layout: Layout, healer: Healer, ports: Iterator[int]
) -> Iterator[World]:
    with contextlib.ExitStack() as ending:
        yield World(balancer, healer, layout, ports, ending)
