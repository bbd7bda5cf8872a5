"""Pairs without a control plane: what is killed, frozen or stale, and what is lost: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.pairs import Pair
from tests.support.service import port_of_server, wait_until
from tests.support.writers import Writers

pytestmark = [pytest.mark.slow]

ENGINES = ["PostgreSQL-18", "MySQL-9"]
PORTS = (60, 61, 62)


@pytest.fixture(scope="module")
def agent(short_tmp_module: Path, cache: Path) -> Iterator[Agent]:
    with Agent(short_tmp_module, cache) as opened:
        yield opened


@pytest.fixture(scope="module", params=ENGINES)
def pair(request: pytest.FixtureRequest, agent: Agent, worker_id: str) -> Pair:
    first = PORTS[0] + 5 * ENGINES.index(request.param)
    return Pair(agent, request.param, [port_of_server(worker_id, first + n) for n in range(3)])


def test_a_killed_primary_is_replaced(pair: Pair) -> None:
    with Writers(pair.login) as writers:
        writers.wait_for(50)
        epoch = pair.record.epoch
        killed = pair.kill_primary()
        wait_until(lambda: pair.record.epoch == epoch + 1)
        writers.wait_for(50)
        assert pair.record.primary != killed
        pair.wait_protected()
        writers.wait_for(50)
    assert not writers.lost()
