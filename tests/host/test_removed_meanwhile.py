"""Nodes that are removed while something looks at them: that is expected, and no fault to tell of."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from uuid import UUID, uuid4

import pytest

from openrdb.errors import NodeRemoved
from openrdb.host.healing import Healer
from openrdb.host.records import NodeRecord
from openrdb.host.space_watch import SpaceWatch, _Watched
from tests.support.agent import Agent
from tests.support.service import in_background, port_of_server


def removed(*_: object) -> None:
    raise NodeRemoved("the node has been removed")


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_by_the_watch_of_space(caplog: pytest.LogCaptureFixture) -> None:
    watch, one = SpaceWatch([], dict, removed, lambda *_: False, lambda _: None), _Watched()
    watch._look_once(uuid4(), one)
    watch.close()
    assert (faults(caplog), one.look, one.is_busy) == ([], None, False)


def test_in_the_background(caplog: pytest.LogCaptureFixture) -> None:
    healer, is_over = Healer(), Event()
    healer._workers = ThreadPoolExecutor(1)  # so that the second comes after the first
    healer.in_background(removed)
    healer.in_background(is_over.set)
    assert is_over.wait(30)
    healer.close()
    assert faults(caplog) == []


@pytest.mark.slow
def test_by_a_look_at_its_volume(
    agent: Agent,
    worker_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The look is over before anything of the node is removed, else it wrote its files again."""
    host, removals = agent.host, list[Thread]()
    node = agent.node("PostgreSQL-18", port_of_server(worker_id, 91), 5 * 10**9)
    node_id, judge = node.spec.node_id, host._judged

    def judged(judged_id: UUID, found: NodeRecord) -> NodeRecord:
        if judged_id == node_id and not removals:
            removals.append(in_background(lambda: host._remove_node(node_id)))
            removals[0].join(2.0)  # it waits for us, or has done its worst by now
        return judge(judged_id, found)

    server = host._server(host._record(node_id))
    caplog.clear()
    with monkeypatch.context() as patched:
        patched.setattr(host, "_judged", judged)
        host._look(node_id)
    removals[0].join()
    assert not host._layout.node(node.spec.instance_id, node_id).root.exists()
    assert host._look(node_id) is None
    host._data_versions.renew(node_id, server)  # as a server's start may ask for late
    host.ensure_removed(node.spec.instance_id, [node_id], keep=False)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []
