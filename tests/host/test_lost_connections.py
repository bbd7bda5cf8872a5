"""Servers that end while they are asked something: whoever asked hears of it as of a fault of the host
that passes, and never as an unexpected one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from openrdb.engines import server_of_node
from openrdb.engines.base import EngineNode, Server
from openrdb.engines.mysql import session as mysql_session
from openrdb.engines.postgresql import session as postgresql_session
from openrdb.errors import OpenRDBError
from openrdb.spec import Administrator
from tests.support.agent import Agent, Node
from tests.support.service import kill, port_of_server

pytestmark = [pytest.mark.slow]

SECRET = "a-secret-of-the-nodes"
POSITION = json.dumps({"redo": "0/0", "query": "SELECT 1", "catalogues": {}})
ADMIN = Administrator("admin", "a-verifier")


@pytest.fixture
def node(agent: Agent, worker_id: str, newest: str) -> Iterator[Node]:
    made = agent.node(newest, port_of_server(worker_id, 92), 5 * 10**9)
    yield made
    agent.host.ensure_stopped(made.spec)
    agent.host.ensure_removed(made.spec.instance_id, [made.spec.node_id], keep=False)


def calls(server: Server, source: EngineNode) -> dict[str, Callable[[], object]]:
    """Return what a host asks of a server, by names."""
    recovery = server.recovery()
    assert recovery is not None
    of_recovery = {
        f"recovery: {name}": getattr(recovery, name)
        for name in ("identity", "begin_stream", "end_stream", "leave_stream")
    }
    return of_recovery | {
        "bootstrap": lambda: server.bootstrap(SECRET, SECRET, ADMIN),
        "take_over": lambda: server.take_over(SECRET),
        "complete_upgrade": server.complete_upgrade,
        "analyze": server.analyze,
        "end_writers": server.end_writers,
        "obstacle_to_following": lambda: server.obstacle_to_following("PostgreSQL-18"),
        "begin_followed": server.begin_followed,
        "end_followed": server.end_followed,
        "catch_up": lambda: server.catch_up(source, POSITION, lambda: None),
        "settle": lambda: server.settle(source),
        "ensure_replication_ready": lambda: server.ensure_replication_ready(SECRET),
        "reload": server.reload,
        "release_space": server.release_space,
        "enforce_writes": lambda: server.enforce_writes(changed=True),
        "reopen_logs": server.reopen_logs,
        "activity": lambda: server.activity(5.0),
        "settle_slots": server.settle_slots,
        "users": lambda: server.administration().users(),
        "obstacle_to_copying": server.obstacle_to_copying,
        "checkpoint": server.checkpoint,
        "renew_databases": server.renew_databases,
        "followed_settings": server.followed_settings,
        "data_versions": server.data_versions,
        "recovery: stream_state": lambda: recovery.stream_state(Path("/nowhere")),
        "recovery: receiver": lambda: recovery.receiver(Path("/nowhere")),
        "recovery: mark": lambda: recovery.mark(None),
        "recovery: base": lambda: recovery.base(Path("/nowhere")),
    }


def unexpected(server: Server, source: EngineNode) -> dict[str, BaseException]:
    """Return which calls fail with something that is none of our errors."""
    found: dict[str, BaseException] = {}
    for name, do in calls(server, source).items():
        try:
            with contextlib.suppress(OpenRDBError):
                do()
        except Exception as error:
            found[name] = error
    return found


def test_a_dead_server(node: Node) -> None:
    host = node.agent.host
    engine_node = host._engine_node(host._record(node.spec.node_id))
    host.ensure_stopped(node.spec)
    assert unexpected(server_of_node(engine_node), engine_node) == {}


@pytest.mark.parametrize("name", ["bootstrap", "take_over", "ensure_replication_ready", "reload"])
def test_a_server_that_is_killed_in_a_session(
    node: Node, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is made, and breaks with the first statement."""
    host = node.agent.host
    engine_node = host._engine_node(host._record(node.spec.node_id))
    server = server_of_node(engine_node)
    killed = []
    with monkeypatch.context() as patched:
        for module in (postgresql_session, mysql_session):
            patched.setattr(module, "connect", killing(module.connect, node, killed))
        with pytest.raises(OpenRDBError):
            calls(server, engine_node)[name]()
    assert killed


def killing(connect: Callable[..., Any], node: Node, killed: list[int]) -> Callable[..., Any]:
    """Return a way to connect to a server after which that is killed, once."""

    def connected(*values: Any, **named: Any) -> Any:
        session = connect(*values, **named)
        pid = node.pid
        if not killed and pid is not None:
            main = psutil.Process(pid)
            processes = [*main.children(recursive=True), main]
            kill(processes)
            psutil.wait_procs(processes, timeout=30)
            killed.append(pid)
        return session

    return connected
