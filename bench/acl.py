"""ACL rules: from the request until a change is in force, by both load balancers.

A client at 127.0.0.1 is shut out and let in again by PUT /acls, in turn. "Let in" ends when an attempt
of it reaches the engine, "cut" when its open, idle session has been reset; both begin with the request.
With one other rule, and with 499. nftables only as root, in a network of its own.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from tests.support.network import own_network

from bench.report import Figure, Goal
from bench.served import Client, Created, served, wait_quiet
from bench.setup import Setup
from openrdb.host.balancer.nftables import why_unusable

_GOAL = Goal(200)
_ASKS_FOR_TLS = struct.pack("!II", 8, 80877103)
_OURS = "127.0.0.1/32"
_OTHERS = [f"10.{number // 250}.{number % 250}.0/24" for number in range(499)]


def run(setup: Setup) -> Iterator[Figure]:
    yield from _by("HAProxy", setup, as_root=False)
    if why := why_unusable("127.0.0.1"):
        print(f"   nftables is not measured: {why}")
        return
    with own_network():
        yield from _by("nftables", setup, as_root=True, OPENRDB_BALANCER="nftables")


def _by(driver: str, setup: Setup, *, as_root: bool, **environment: str) -> Iterator[Figure]:
    with (
        served(setup, as_root=as_root, **environment) as service,
        closing(Client(service)) as client,
    ):
        created = client.create()
        wait_quiet(service)
        for others in (_OTHERS[:1], _OTHERS):
            let_in, cut = [], []
            for _ in range(setup.times(20, 5)):
                with _session(created.address) as session:
                    cut.append(_change(client, created, others, partial(_wait_ended, session)))
                wait = partial(_wait_let_in, created.address)
                let_in.append(_change(client, created, [*others, _OURS], wait))
            rules = f"{len(others):,} rule{'s' if len(others) > 1 else ''}"
            yield Figure(f"{driver}, {rules}: let in", let_in, goal=_GOAL)
            yield Figure(f"{driver}, {rules}: cut", cut, goal=_GOAL)


def _change(
    client: Client, created: Created, networks: list[str], wait: Callable[[], None]
) -> float:
    """Milliseconds from the request to what is waited for."""
    seen: list[float] = []

    def look() -> None:
        wait()
        seen.append(time.perf_counter())

    waiting = threading.Thread(target=look)
    waiting.start()
    started = time.perf_counter()
    rules = [{"ip": network, "description": ""} for network in networks]
    client.change(created.instance["id"], "PUT", "acls", {"rules": rules})
    waiting.join(60)
    return (seen[0] - started) * 1e3


def _wait_ended(session: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        session.recv(1)


def _wait_let_in(address: tuple[str, int]) -> None:
    while True:
        with contextlib.suppress(ConnectionError), _session(address):
            return
        time.sleep(0.002)


@contextlib.contextmanager
def _session(address: tuple[str, int]) -> Iterator[socket.socket]:
    """A session that has reached the engine: it says that it speaks TLS."""
    with socket.create_connection(address, 60) as session:
        session.sendall(_ASKS_FOR_TLS)
        if session.recv(1) != b"S":
            raise ConnectionRefusedError
        yield session
