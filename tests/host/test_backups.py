"""Dumps and restores by the agent's verbs: they outlive it, and leave nothing when they are killed."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pymysql
import pytest

from openrdb.agent import settings
from openrdb.agent.client import AgentConnection, remote_host
from openrdb.engines import rules_of
from openrdb.errors import HostError
from openrdb.host.base import Host
from openrdb.host.records import Records
from openrdb.spec import (
    DumpSpec,
    LogsSpec,
    NodeSpec,
    ObjectRef,
    RestoreSpec,
    StoreSpec,
    TransferState,
)
from openrdb.system.layout import Layout
from tests.support.programs import agent
from tests.support.service import Service, wait_until
from tests.support.tenants import Login

DEADLINE = 120.0


@dataclasses.dataclass
class Node:
    """A node of an instance, whose database `rdb` has a row."""

    service: Service
    host: Host
    spec: NodeSpec
    login: Login

    def object(self, name: str) -> ObjectRef:
        place = self.service.home / f"store-{self.spec.node_id}"
        store = StoreSpec("directory", str(place))
        return ObjectRef(store, name + rules_of(self.spec.engine).dump_suffix)

    def start_dump(self, name: str) -> UUID:
        spec = DumpSpec(uuid4(), "rdb", self.object(name), DEADLINE)
        self.host.start_dump(self.spec, spec)
        self.host.start_dump(self.spec, spec)  # which starts nothing
        return spec.job_id

    def start_restore(self, name: str, dumped: TransferState) -> UUID:
        made = self.spec.engine
        spec = RestoreSpec(
            uuid4(), "rdb", self.object(name), dumped.size, dumped.checksum, made, DEADLINE
        )
        self.host.start_restore(self.spec, spec)
        self.host.start_restore(self.spec, spec)
        return spec.job_id

    def end(self, job_id: UUID) -> TransferState:
        while (state := self.host.wait_for_transfer(job_id, 30)).status == "running":
            pass
        return state

    def kill_agent(self) -> None:
        """Kill the agent; its keeper starts another one."""
        pid = agent(self.service)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def rows(self) -> list[int]:
        with self.login.connect() as session:
            return [row[0] for row in session.execute("SELECT n FROM kept ORDER BY n").fetchall()]

    def insert(self, number: int) -> None:
        with self.login.connect() as session:
            session.execute(f"INSERT INTO kept VALUES ({number})")

    def left(self) -> list[Path]:
        """What there is of jobs."""
        places = ("jobs", "transfers")
        found = [path for name in places for path in (self.service.data_dir / name).iterdir()]
        return [path for path in found if path.name != "lock"]


@pytest.fixture
def node(reused_service: Service, newest: str) -> Iterator[Node]:
    with serving(reused_service, newest) as node:
        yield node
        for job in node.host.jobs():
            node.host.forget_job(job.id)


@pytest.fixture
def node_of_root(root_service: Service, newest: str) -> Iterator[Node]:
    root_service.start()
    with serving(root_service, newest) as node:
        yield node


@contextmanager
def serving(service: Service, engine: str) -> Iterator[Node]:
    instance = service.create(engine)
    login = service.login(instance)
    with login.connect() as session:
        session.execute("CREATE TABLE kept (n INT PRIMARY KEY)")
    layout = Layout(service.data_dir)
    (record,) = Records(layout).nodes.values()
    connection = AgentConnection(layout.agent_socket, settings.token(layout))
    node = Node(service, remote_host(connection), record.spec, login)
    node.insert(1)
    yield node
    connection.close()


def test_a_dump_comes_back_also_while_the_agent_is_replaced(node: Node) -> None:
    job_id = node.start_dump("first")
    node.kill_agent()
    dumped = node.end(job_id)
    assert dumped.status == "done", dumped
    assert len(dumped.checksum) == 64
    node.insert(2)
    job_id = node.start_restore("first", dumped)
    node.kill_agent()
    restored = node.end(job_id)
    assert restored.status == "done", restored
    assert (restored.size, restored.checksum) == (dumped.size, dumped.checksum)
    assert node.rows() == [1]
    for state in node.host.jobs():
        node.host.forget_job(state.id)
    assert node.host.wait_for_transfer(job_id, 0).status == "unknown"
    assert not node.left()


@pytest.mark.root
def test_an_instance_with_an_account_of_its_own(node_of_root: Node) -> None:
    node = node_of_root
    assert node.spec.uid is not None
    job_id = node.start_dump("first")
    order = node.service.data_dir / "transfers" / str(job_id) / "order.json"
    assert (order.stat().st_mode & 0o777, order.stat().st_uid) == (0o600, 0)
    dumped = node.end(job_id)
    node.insert(2)
    restored = node.end(node.start_restore("first", dumped))
    assert restored.status == "done", restored
    assert node.rows() == [1]


def test_what_a_job_needs_is_secret_and_on_no_disk(node: Node) -> None:
    secret = "a-secret-of-the-store-itself"
    target = node.object("first")
    store = dataclasses.replace(target.store, environment={"AWS_SECRET_ACCESS_KEY": secret})
    spec = DumpSpec(uuid4(), "rdb", dataclasses.replace(target, store=store), DEADLINE)
    node.host.start_dump(node.spec, spec)
    places = [node.service.data_dir / name for name in ("jobs", "transfers")]
    written = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "order.json" for path in written)
    kept = b"".join(path.read_bytes() for path in written)
    for one in (secret, node.spec.secret, node.spec.replication_secret):
        assert one
        assert one.encode() not in kept
    assert node.end(spec.job_id).status == "done"


def test_what_cannot_be_restored_says_why(node: Node) -> None:
    dumped = node.end(node.start_dump("first"))
    wrong = dataclasses.replace(dumped, checksum="0" * 64)
    state = node.end(node.start_restore("first", wrong))
    assert (state.status, state.kind) == ("failed", "corrupt")
    assert node.rows() == [1]


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_one_that_is_ended_changes_nothing(node: Node, how: str) -> None:
    dumped = node.end(node.start_dump("first"))
    node.insert(2)
    job_id = node.start_restore("first", dumped)
    if how == "stopped":
        node.host.stop_job(job_id)
    else:
        for wrapper in node.service.processes(str(job_id)):
            wrapper.kill()
    state = node.end(job_id)
    if state.status == "failed":
        assert state.reason
    assert node.rows() == ([1] if state.status == "done" else [1, 2])
    again = node.end(node.start_restore("first", dumped))
    assert again.status == "done", again
    assert node.rows() == [1]


def test_logs_of_a_node_that_was_removed(node: Node) -> None:
    """A read replica may be deleted while its logs are about to be copied."""
    gone = dataclasses.replace(node.spec, node_id=uuid4())
    copied = LogsSpec(uuid4(), node.object("log"), None, None, DEADLINE)
    with pytest.raises(HostError, match=r"^the node has been removed$"):
        node.host.start_logs(gone, copied)


def test_a_server_that_is_away_is_not_ready(node: Node) -> None:
    job_id = node.start_dump("first")
    node.end(job_id)
    node.host.ensure_stopped(node.spec)
    assert node.end(job_id).status == "done", "what is known stays"
    wait_until(lambda: not node.host.nodes()[0].running)
    with pytest.raises(Exception, match=r"transient state|precondition failed"):
        node.start_dump("second")


def test_one_whose_server_is_killed_changes_nothing(node: Node) -> None:
    dumped = node.end(node.start_dump("first"))
    node.insert(2)
    job_id = node.start_restore("first", dumped)
    for process in node.service.processes("postgres", "-D") or node.service.processes("mysqld"):
        process.kill()
    state = node.end(job_id)
    wait_until(lambda: answers(node))
    assert node.rows() == ([1] if state.status == "done" else [1, 2]), state
    assert node.end(node.start_restore("first", dumped)).status == "done"


def test_after_a_power_cut_the_server_is_as_before_or_restored(node: Node) -> None:
    dumped = node.end(node.start_dump("first"))
    node.insert(2)
    job_id = node.start_restore("first", dumped)
    node.service.kill_everything()
    node.service.start()
    wait_until(lambda: answers(node))
    state = node.end(job_id)
    assert node.rows() == ([1] if state.status == "done" else [1, 2]), state


def answers(node: Node) -> bool:
    try:
        return bool(node.rows())
    except (psycopg.Error, pymysql.MySQLError):
        return False
