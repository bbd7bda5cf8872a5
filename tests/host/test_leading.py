"""Endpoints with several nodes: which one leads is changed at once, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from openrdb.host.balancer import Target
from openrdb.host.balancer.base import Place
from openrdb.host.balancer.haproxy import HAProxy
from openrdb.host.healing import Healer
from tests.support.balancer import PATIENCE, Node, Session, World, leader, led
from tests.support.service import wait_until

pytest_plugins = ["tests.support.balancer"]


def test_leads_elsewhere(world: World) -> None:
    one, other = world.node("one"), world.node("other")
    target = world.pair(one, other, leads=one)
    before = world.opened(target.listen)
    assert before.node == "one"
    world.balancer.lead(target := led(target, None))
    assert before.has_ended()
    assert leader(target.listen) is None, "refused, though both nodes run"
    world.balancer.ensure(target)
    assert leader(target.listen) is None
    world.balancer.lead(target := led(target, other))
    after = world.opened(target.listen)
    assert after.node == "other"
    for repeat in (world.balancer.lead, world.balancer.ensure):
        repeat(target)
        assert after.echoes()
    world.balancer.lead(led(target, one))
    assert after.has_ended()
    assert leader(target.listen) == "one"


def test_an_older_word_leads_nobody_back(world: World) -> None:
    """As of a request that began before a failover and goes on after it."""
    one, other = world.node("one"), world.node("other")
    before = world.pair(one, other, leads=one)
    world.balancer.lead(now := led(before, other))
    session = world.opened(now.listen)
    world.balancer.ensure(before)
    world.balancer.ensure_all([before])
    world.balancer.lead(before)
    assert session.echoes()
    assert leader(now.listen) == "other"


def test_sessions_outlive_the_coming_and_going_of_a_standby(world: World) -> None:
    one, other = world.node("one"), world.node("other")
    alone = world.target(one, private=True)
    world.balancer.ensure(alone)
    first = world.opened(alone.listen)
    pair = replace(alone, nodes=(one.place, other.place))
    world.balancer.ensure(pair)
    second = world.opened(pair.listen)
    assert second.node == "one"
    assert first.echoes()
    world.balancer.ensure(alone)
    assert first.echoes()
    assert second.echoes()
    world.balancer.ensure(pair)
    world.balancer.lead(pair := led(pair, other))
    assert first.has_ended()
    assert second.has_ended()
    third = world.opened(pair.listen)
    world.balancer.ensure(replace(pair, nodes=(other.place,)))
    assert third.node == "other"
    assert third.echoes()


def test_ipv6(world: World) -> None:
    one, other = world.node("one", "::1"), world.node("other", "::1")
    alone = world.target(one, address="::1", private=True)
    world.balancer.ensure(alone)
    pair = replace(alone, nodes=(one.place, other.place))
    world.balancer.ensure(pair)
    assert leader(pair.listen) == "one"
    world.balancer.lead(led(pair, other))
    assert leader(pair.listen) == "other"


def test_what_is_lost_is_put_back_as_it_was_led(world: World) -> None:
    one, other = world.node("one"), world.node("other")
    target = world.pair(one, other, leads=one)
    world.balancer.lead(now := led(target, other))
    world.lose_everything()
    world.heal(target)
    world.balancer.ensure(target)
    assert leader(now.listen) == "other"


@dataclass
class Stay:
    """What a client found, or who led: between which times."""

    node: str | None
    begun: float
    ended: float = math.inf


class Crowd:
    """Clients that connect again and again, each for a moment."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]
        self.found: list[Stay] = []

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            stay = Stay(None, time.monotonic())
            with (
                contextlib.suppress(ConnectionError),
                socket.create_connection(self._target.listen, PATIENCE) as connection,
            ):
                stay.node = connection.recv(100).decode() or None
                stay.ended = time.monotonic()
                connection.settimeout(random.uniform(0.001, 0.02))  # noqa: S311
                with contextlib.suppress(TimeoutError):
                    connection.recv(100)
            stay.ended = min(stay.ended, time.monotonic())
            self.found.append(stay)
            self._ending.wait(
                0.003
            )  # else ports are used again while the kernel cuts their sessions

    def see_more(self) -> None:
        seen = len(self.found)
        wait_until(lambda: len(self.found) > seen + 8)


class Reigns:
    """Changes who leads, and knows who may have led when."""

    def __init__(self, world: World, target: Target, first: Node) -> None:
        self._world, self.target = world, target
        self.all = [Stay(first.name, 0)]

    def lead(self, node: Node | None) -> None:
        self.target = led(self.target, node)
        reign = Stay(node and node.name, time.monotonic())
        self._world.balancer.lead(self.target)
        self.all[-1].ended = time.monotonic()
        self.all.append(reign)

    def names(self, stay: Stay) -> set[str | None]:
        return {r.node for r in self.all if r.begun <= stay.ended and stay.begun <= r.ended}


def test_nobody_gets_to_who_does_not_lead(world: World) -> None:
    """Whoever comes after a change gets to the node that leads, and nobody who came before stays."""
    nodes = [world.node("one"), world.node("other")]
    target = world.pair(*nodes, leads=nodes[0])
    reigns = Reigns(world, target, nodes[0])
    with Crowd(target) as crowd:
        for turn in range(20):
            held = [world.opened(target.listen) for _ in range(3)]
            reigns.lead(None)
            assert all(session.has_ended() for session in held)
            if turn % 2:
                crowd.see_more()
            reigns.lead(nodes[(turn + 1) % 2])
            crowd.see_more()
    for stay in crowd.found:
        assert stay.node in reigns.names(stay)
    assert {stay.node for stay in crowd.found} == {"one", "other", None}


# -- HAProxy alone --------------------------------------------------------------------------------


@pytest.fixture
def haproxy(world: World) -> World:
    if not isinstance(world.balancer, HAProxy):
        pytest.skip("nftables has no process")
    return world


def pid_of(world: World, target: Target) -> int | None:
    program = world.balancer.program(target)
    assert program
    return world.healer.pid(program.name)


def test_clients_of_a_single_node_wait_for_it_those_of_a_pair_do_not(haproxy: World) -> None:
    one, other = haproxy.node("one"), haproxy.node("other")
    alone, pair = haproxy.endpoint(one, "127.0.0.0/8"), haproxy.pair(one, other, leads=one)
    one.close()
    assert leader(pair.listen) is None
    with socket.create_connection(alone.listen, PATIENCE) as waiting:
        again = Node("one", *one.place)
        haproxy.ending.callback(again.close)
        assert waiting.recv(100) == b"one"
    assert leader(pair.listen) == "one"


@contextlib.contextmanager
def taking_nobody(place: Place) -> Iterator[None]:
    """A server whose queue is full: connecting to it takes long."""
    with contextlib.ExitStack() as ending:
        listener = ending.enter_context(socket.create_server(place, backlog=0))
        for _ in range(4):
            waiting = ending.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield


def test_clients_that_are_being_connected_are_not_forgotten(haproxy: World) -> None:
    one, other = haproxy.node("one"), haproxy.node("other")
    pair = haproxy.pair(one, other, leads=one)
    one.close()
    with taking_nobody(one.place), socket.create_connection(pair.listen, PATIENCE) as client:
        client.sendall(b"before it is connected")
        haproxy.balancer.lead(led(pair, None))
        assert Session(client, "").has_ended()


@pytest.mark.parametrize("what", ["killed", "frozen", "without its socket"])
def test_a_process_that_does_not_obey_is_replaced(haproxy: World, what: str) -> None:
    one, other = haproxy.node("one"), haproxy.node("other")
    target = haproxy.pair(one, other, leads=one)
    before, pid = haproxy.opened(target.listen), pid_of(haproxy, target)
    assert pid
    if what == "without its socket":
        (haproxy.layout.sockets(target.endpoint_id) / "balancer.sock").unlink()
    else:
        os.kill(pid, signal.SIGKILL if what == "killed" else signal.SIGSTOP)
    haproxy.balancer.lead(led(target, None))
    assert before.has_ended()
    haproxy.balancer.lead(now := led(led(target, None), other))
    wait_until(lambda: leader(now.listen) == "other", PATIENCE)
    assert pid_of(haproxy, target) not in (pid, None)


def test_kills_amid_changes(haproxy: World) -> None:
    nodes = [haproxy.node("one"), haproxy.node("other")]
    target = haproxy.pair(*nodes, leads=nodes[0])
    source = random.Random(7)  # noqa: S311
    for turn in range(12):
        node = nodes[(turn + 1) % 2]

        def kill_soon() -> None:
            time.sleep(source.uniform(0, 0.02))
            if pid := pid_of(haproxy, target):
                os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_soon)
        killer.start()
        haproxy.balancer.lead(target := led(target, None))
        haproxy.balancer.lead(target := led(target, node))
        killer.join()
        # What was just started may have read its files before, and is told right after.
        wait_until(lambda to=node.name: leader(target.listen) == to, PATIENCE)


def test_a_new_agent_leads_what_it_has_not_adopted_yet(haproxy: World) -> None:
    one, other = haproxy.node("one"), haproxy.node("other")
    target = haproxy.pair(one, other, leads=one)
    before, pid = haproxy.opened(target.listen), pid_of(haproxy, target)
    with contextlib.closing(Healer()) as healer:
        mine = haproxy.balancer
        assert isinstance(mine, HAProxy)
        anew = HAProxy(haproxy.layout, mine._bundle, healer, None)
        anew.lead(now := led(target, other))
    assert before.has_ended()
    assert leader(now.listen) == "other"
    assert pid_of(haproxy, target) == pid
