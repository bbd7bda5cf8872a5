"""Agents that are killed at each step of a failover, a switchover, or the return of a standby.

A run that is not told `--all-faults` tries a few of the moments, chosen by FAULTS_SEED.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from uuid import UUID

import pytest

from openrdb.engines import replication_of
from openrdb.errors import HostError
from tests.faults.matrix.faults import seed
from tests.support.killed_agent import HAPPENINGS, killed_at
from tests.support.pairs import Pair
from tests.support.service import wait_until
from tests.support.writers import Writers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

_BOUND = 60.0
"""Seconds in which the next agent has a pair protected again."""
_MOST = 200
"""More moments than any of these has."""


class Sentry:
    """Looks all the time whether both servers take writes."""

    def __init__(self, pair: Pair) -> None:
        host = pair.agent.host
        self._servers = [host._server(host._record(one)) for one in pair.record.members]
        self._thread = threading.Thread(target=self._look)
        self._ending = threading.Event()
        self.looks = 0
        self.both: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _is_open(self, number: int) -> bool:
        try:
            return replication_of(self._servers[number]).is_open()
        except HostError:
            return False

    def _look(self) -> None:
        in_a_row = 0
        while not self._ending.wait(0.01):
            # They are asked in turns: the second of three was open while the other one was.
            in_a_row = in_a_row + 1 if self._is_open(self.looks % 2) else 0
            self.looks += 1
            if in_a_row >= 3:
                self.both.append(self.looks)


@contextmanager
def observed(pair: Pair) -> Iterator[Writers]:
    """Let clients write; afterwards nothing is lost, and there never were two primaries."""
    with Sentry(pair) as sentry, Writers(pair.login, threads=2) as writers:
        writers.wait_for(20)
        yield writers
        writers.wait_for(20)
    assert not sentry.both
    assert sentry.looks > 10
    assert not writers.lost()


def is_open(pair: Pair, node: UUID) -> bool | None:
    """Whether a node takes writes; None: it does not say."""
    try:
        return pair.keeper.replication(node).is_open()
    except HostError:
        return None


def kill_at(pair: Pair, happening: str, number: int, cache: Path) -> str | None:
    """Let an agent be killed at a moment, and another one come; return the moment, None if there is
    none of that number."""
    instance, root = pair.specs[0].instance_id, pair.agent.root
    pair.wait_protected()
    with observed(pair):
        with pair.agent.away():
            moment = killed_at(root, cache, instance, happening, number)
        pair.wait_protected(_BOUND)
        record = pair.record
        for node in record.members:
            # One that was just started says nothing for some moments.
            wait_until(lambda node=node: is_open(pair, node) is not None)
            assert is_open(pair, node) == (node == record.primary)
    return moment


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_whatever_an_agent_was_about_to_do(
    pair: Pair, happening: str, cache: Path, request: pytest.FixtureRequest
) -> None:
    """Nothing is lost, and the next one brings the pair to be protected again."""
    _, least = HAPPENINGS[happening]
    moments: list[str] = []
    if request.config.getoption("--all-faults"):
        for number in range(_MOST):
            if (moment := kill_at(pair, happening, number, cache)) is None:
                break
            moments.append(moment)
        assert least <= len(moments) < _MOST
    else:
        chance = random.Random(f"{seed()} {pair.specs[0].engine} {happening}")  # noqa: S311
        moment = kill_at(pair, happening, chance.randrange(least), cache)
        assert moment is not None
