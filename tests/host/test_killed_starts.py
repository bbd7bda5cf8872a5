"""Servers that are killed again and again before they serve: they can start, and are waited for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from uuid import UUID

import pytest

from openrdb.errors import HostError, PreconditionFailed, TransientState
from tests.support.agent import Agent
from tests.support.pairs import Pair
from tests.support.service import port_of_server, wait_until
from tests.support.writers import Writers

pytestmark = [pytest.mark.slow]

KILLS = 6
"""More than the failed starts after which a server is taken for one that does not start."""


@contextmanager
def taken_for_failing(agent: Agent) -> Iterator[set[str]]:
    """Yield the programs that were said not to start, at any moment within the context."""
    healer, found = agent.host._healer, set[str]()
    tell = healer._on_change

    def listen(name: str) -> None:
        if healer.is_failing(name):
            found.add(name)
        tell(name)

    healer.on_change(listen)
    try:
        yield found
    finally:
        healer.on_change(tell)


def kill_each_start(pid: Callable[[], int | None], number: signal.Signals) -> None:
    """Kill a server several times, as soon as it runs."""
    last = None
    for _ in range(KILLS):
        deadline = time.monotonic() + 60
        while (now := pid()) in (None, last):
            assert time.monotonic() < deadline
            time.sleep(0.0005)  # its start takes longer
        last = now
        with suppress(ProcessLookupError):
            os.kill(last or 0, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server(agent: Agent, worker_id: str, newest: str, number: signal.Signals) -> None:
    host = agent.host
    node = agent.node(newest, port_of_server(worker_id, 90), 5 * 10**9)
    try:
        with taken_for_failing(agent) as failing:
            kill_each_start(lambda: node.pid, number)
            host.ensure_accepting(node.spec)
        assert failing == set()
    finally:
        host.ensure_stopped(node.spec)
        host.ensure_removed(node.spec.instance_id, [node.spec.node_id], keep=False)


def test_a_pair(pair: Pair, writers: Writers) -> None:
    with taken_for_failing(pair.agent) as failing:
        kill_each_start(lambda: pair.pid(pair.record.primary), signal.SIGKILL)
        pair.agent.host.ensure_accepting(pair.specs[0])
    assert failing == set()
    writers.wait_for(20)
    pair.wait_protected()


def test_a_primary_whose_place_is_about_to_be_taken(pair: Pair, writers: Writers) -> None:
    """It does not start, and the standby has everything: who asks is to come again, and not refused."""
    ground, epoch = pair.keeper.ground, pair.record.epoch
    primary = pair.record.primary
    with pair.without_volume(primary):
        with pair.keeper.planned():
            pair.kill_primary(main_only=False)
            pair.keeper.set_open(is_open=False)
            wait_until(partial(fails_to_start, pair, primary))
            assert ground.failure(pair.record.standby) is None
            with pytest.raises(TransientState):
                pair.agent.host.administer(pair.specs[0], "users", {})
        pair.wait_epoch(epoch + 1)
        writers.wait_for(20)
    pair.wait_protected()


def test_a_pair_of_which_neither_starts(pair: Pair, writers: Writers) -> None:
    primary, standby = pair.record.primary, pair.record.standby
    with pair.without_volume(standby), pair.without_volume(primary), pair.keeper.planned():
        for node in (primary, standby):
            pair.signal(node, signal.SIGKILL)
        pair.keeper.set_open(is_open=False)
        for node in (primary, standby):
            wait_until(partial(fails_to_start, pair, node))
        with pytest.raises(PreconditionFailed):
            pair.agent.host.administer(pair.specs[0], "users", {})
    writers.wait_for(20)
    pair.wait_protected()


def fails_to_start(pair: Pair, node: UUID) -> bool:
    """Try to start a node; return whether it is taken for one that does not start."""
    with suppress(HostError):
        pair.keeper.ground.start(node)
    return pair.keeper.ground.failure(node) is not None
