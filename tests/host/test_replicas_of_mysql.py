"""Read replicas of a pair of MySQL that cannot follow with the data that they have."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pymysql
import pytest

from openrdb.engines.mysql.sql import rows, run
from openrdb.spec import NodeSpec
from tests.support.agent import Agent
from tests.support.pairs import PROTECTED, Pair, insert, stay_with
from tests.support.place import new_place
from tests.support.service import port_of_server, wait_until

pytestmark = [pytest.mark.slow]

FIRST_PORT = 60
LATER = 1000
SOON = 4.0
"""Seconds, before a standby is given up that a lock keeps from applying."""


@pytest.fixture(scope="module")
def pair(cache: Path, worker_id: str) -> Iterator[Pair]:
    place = new_place()
    place.mkdir(mode=0o755)
    with Agent(place, cache) as agent:
        ports = [port_of_server(worker_id, FIRST_PORT + n) for n in range(3)]
        made = Pair(agent, "MySQL-9", ports)
        with made.login.connect() as client:
            client.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
        yield made
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def replica(pair: Pair, worker_id: str) -> NodeSpec:
    return pair.replica(port_of_server(worker_id, FIRST_PORT + 3))


def numbers(pair: Pair, node_id: UUID) -> set[int]:
    """What a node shows; nothing where it does not answer."""
    try:
        with pair.mysql(node_id) as superuser:
            return {int(n) for (n,) in rows(superuser, "SELECT n FROM rdb.numbers")}
    except pymysql.MySQLError:
        return set()


@contextmanager
def copied_again(
    pair: Pair, replica: NodeSpec, is_wrong: Callable[[set[int]], bool]
) -> Iterator[None]:
    """A replica is made what it cannot go on from: then it is not taken for following with data that
    is wrong, and gets a new volume, in which nothing is."""
    volume = pair.volume(replica.node_id).stat().st_ino
    yield
    insert(pair.login, LATER)

    def is_shown_as_ready() -> bool:
        state = pair.state_of(replica.node_id)
        return state.running and not state.reason

    def is_whole() -> bool:
        told, has = is_shown_as_ready(), numbers(pair, replica.node_id)
        # It may have become so between both.
        assert not (told and has and is_wrong(has) and is_shown_as_ready()), has
        return told and LATER in has and not is_wrong(has)

    wait_until(is_whole, PROTECTED)
    assert pair.volume(replica.node_id).stat().st_ino != volume
    with pair.login.connect() as client:
        client.execute("DELETE FROM numbers")


def test_a_replica_ahead_of_the_next_primary_is_copied_again(pair: Pair, replica: NodeSpec) -> None:
    """It has what the primary wrote last, and nobody was told of: the standby never got that."""
    keeper = pair.agent.host._replicas[replica.node_id]
    pair.wait_protected()
    stay_with(keeper, pair.record.primary)
    before = pair.record
    with copied_again(pair, replica, lambda has: 1 in has):
        with pair.keeper.planned():  # the guard would give up a standby that receives nothing
            with pair.mysql(before.standby) as superuser:
                run(superuser, "STOP REPLICA IO_THREAD")
            writing = threading.Thread(target=insert, args=[pair.login, 1])
            writing.start()
            wait_until(lambda: 1 in numbers(pair, replica.node_id))
            pair.kill_primary(main_only=False)
        writing.join()
        pair.wait_epoch(before.epoch + 1)
        assert pair.record.primary == before.standby
        assert 1 not in numbers(pair, before.standby)
        wait_until(lambda: not keeper.follows)  # it is noticed


def test_a_replica_is_as_late_as_what_it_follows(pair: Pair, replica: NodeSpec) -> None:
    """It had all that its upstream had applied, and said that it was not late."""
    keeper = pair.agent.host._replicas[replica.node_id]
    pair.wait_protected()
    stay_with(keeper, pair.record.standby)
    with pair.mysql(pair.record.standby) as superuser:
        run(superuser, "LOCK TABLES rdb.numbers READ")
        insert(pair.login, 3)
        wait_until(lambda: pair.keeper.behind >= 2)
        assert numbers(pair, replica.node_id) == set()
        wait_until(lambda: (keeper.lag or 0.0) >= 2, SOON)
        run(superuser, "UNLOCK TABLES")
    wait_until(lambda: numbers(pair, replica.node_id) == {3} and keeper.lag == 0.0)


def forgets(pair: Pair, node_id: UUID) -> bool:
    """Let a server remove its history; it keeps files that somebody reads at the moment."""
    with pair.mysql(node_id) as superuser:
        run(superuser, "FLUSH BINARY LOGS")
        run(superuser, "PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY")
        return len(rows(superuser, "SHOW BINARY LOGS")) == 1


def test_a_replica_that_missed_too_much_is_copied_again(pair: Pair, replica: NodeSpec) -> None:
    """Nobody has any more what it would receive next."""
    host = pair.agent.host
    pair.wait_protected()
    wait_until(lambda: host._replicas[replica.node_id].follows)
    with copied_again(pair, replica, lambda has: 2 not in has):
        host._leave_replica(replica.node_id)
        host._healer.release(host._program_to_end(replica))
        insert(pair.login, 2)
        wait_until(lambda: 2 in numbers(pair, pair.record.standby))
        for node in pair.record.members:
            wait_until(lambda node=node: forgets(pair, node))
        host._keep_replica(replica.node_id)
