"""Read replicas that are promoted, reset and removed, by several callers and agents that end."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from openrdb.engines.postgresql import session
from openrdb.engines.postgresql.template import PostgreSQLTemplates
from openrdb.errors import DiskFull, HostError
from openrdb.host.local import LocalHost
from openrdb.host.local_pairs import LocalGround
from openrdb.spec import NodeSpec
from tests.support.agent import Agent, Node
from tests.support.place import new_place
from tests.support.service import port_of_server, wait_until

pytestmark = [pytest.mark.slow]

FIRST_PORT = 70
FOLLOWING = 120.0
OTHER = "other"
"""A pool, such as one that is encrypted."""


@dataclass
class Scene:
    """An instance of one node, and its replica."""

    agent: Agent
    node: Node
    replica: NodeSpec
    promoted: NodeSpec
    """What the replica may become."""

    @property
    def host(self) -> LocalHost:
        return self.agent.host

    def wait_following(self) -> None:
        wait_until(lambda: self.host.ensure_replica(self.replica, 5.0), FOLLOWING)

    def volume(self, spec: NodeSpec) -> Path:
        return self.host._paths(self.host._record(spec.node_id)).data

    def pid(self, spec: NodeSpec) -> int | None:
        return self.host._healer.pid(f"node-{spec.node_id}")

    def promote(self) -> None:
        self.host.ensure_configuration(self.promoted)
        wait_until(lambda: self.host.ensure_volume_of_replica(self.promoted, self.replica, 5.0))

    def has_content(self, spec: NodeSpec) -> bool:
        node = self.host._engine_node(self.host._record(spec.node_id))
        try:
            with session.connect(node, "rdb") as superuser:
                return superuser.execute("SELECT n FROM public.numbers").fetchall() == [(1,)]
        except psycopg.Error:
            return False


@pytest.fixture
def scene(cache: Path, worker_id: str) -> Iterator[Scene]:
    place, other = new_place(), new_place()
    for directory in (place, other):
        directory.mkdir(mode=0o755)
    ports = [port_of_server(worker_id, FIRST_PORT + number) for number in range(3)]
    with Agent(place, cache, pools={OTHER: other}) as agent:
        node = agent.node("PostgreSQL-18", ports[0], 5 * 10**9)
        with node.session() as tenant:
            tenant.execute("CREATE TABLE numbers (n int)")
            tenant.execute("INSERT INTO numbers VALUES (1)")
        replica = replace(node.spec, node_id=uuid4(), port=ports[1], role="replica")
        ids = {"instance_id": uuid4(), "node_id": uuid4(), "uid": agent.account()}
        promoted = replace(node.spec, port=ports[2], **ids)
        scene = Scene(agent, node, replica, promoted)
        scene.wait_following()
        wait_until(lambda: scene.has_content(replica))
        yield scene
    for directory in (place, other):
        shutil.rmtree(directory, ignore_errors=True)


def test_a_promotion_that_fails_loses_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its instance may not work any more: then the replica has all that there is."""
    scene.host.ensure_stopped(scene.node.spec)

    def fail(self: PostgreSQLTemplates, data: Path) -> None:
        raise HostError("no identity")

    with monkeypatch.context() as patched, pytest.raises(HostError, match="no identity"):
        patched.setattr(PostgreSQLTemplates, "renew_identity", fail)
        scene.promote()
    assert scene.volume(scene.replica).exists()
    scene.agent.restart()
    assert scene.pid(scene.replica) is None, "its volume may be another account's by now"
    scene.promote()
    scene.promote()  # as after an agent that was killed before it could answer
    scene.host.ensure_accepting(scene.promoted)
    assert scene.has_content(scene.promoted)


def test_a_promotion_without_data_says_so(scene: Scene) -> None:
    scene.host.ensure_stopped(scene.replica)
    shutil.rmtree(scene.volume(scene.replica))
    with pytest.raises(HostError, match="is gone"):
        scene.promote()


def test_nobody_undoes_a_promotion(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of its instance may ask for it at any moment, and may have looked before it began."""
    waiting, go = threading.Event(), threading.Event()

    def wait_lowered(*_: object) -> None:
        waiting.set()
        assert go.wait(FOLLOWING)

    monkeypatch.setattr(scene.host, "_wait_lowered", wait_lowered)
    with ThreadPoolExecutor() as threads:
        restart = threads.submit(scene.host.ensure_restarted, scene.replica)
        assert waiting.wait(FOLLOWING)
        scene.promote()
        go.set()
        with pytest.raises(HostError, match="is being promoted"):
            restart.result()
    host, replica = scene.host, scene.replica
    for verb in (
        partial(host.ensure_replica, replica, 5.0),
        partial(host.ensure_reloaded, replica),
        partial(host.ensure_restarted, replica),
        partial(host.ensure_running, replica),
        partial(host.ensure_stopped, replica),
        partial(host.ensure_configuration, replace(replica, generation=replica.generation + 1)),
    ):
        with pytest.raises(HostError, match="is being promoted"):
            verb()
    assert host._record(replica.node_id).desired == "stopped"
    assert replica.node_id not in host._replicas
    host.ensure_accepting(scene.promoted)
    assert scene.has_content(scene.promoted)
    assert host.ensure_no_replica(replica, FOLLOWING)
    assert replica.node_id not in host._records.nodes


def test_a_start_that_comes_late_is_refused(scene: Scene) -> None:
    """Between the look at a replica and its start it may be stopped, or be copied again."""
    program = scene.host._program(scene.replica)
    scene.host.ensure_stopped(scene.replica)
    with pytest.raises(HostError, match="is to be stopped"):
        scene.host._healer.keep(program)
    assert scene.pid(scene.replica) is None


def test_a_removed_replica_does_not_come_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told to all replicas of an instance may come to one that is gone."""
    host, replica = scene.host, scene.replica
    waiting, go = threading.Event(), threading.Event()

    def wait_lowered(*_: object) -> None:
        waiting.set()
        assert go.wait(FOLLOWING)

    monkeypatch.setattr(host, "_wait_lowered", wait_lowered)
    with ThreadPoolExecutor() as threads:
        restart = threads.submit(host.ensure_restarted, replica)
        assert waiting.wait(FOLLOWING)
        assert host.ensure_no_replica(replica, FOLLOWING)
        go.set()
        with pytest.raises(HostError, match="there is no read replica"):
            restart.result()
    later = replace(replica, generation=replica.generation + 1)
    for verb in (
        partial(host.ensure_configuration, later),
        partial(host.ensure_bundle, later, None),
        partial(host.ensure_reloaded, later),
        partial(host.ensure_restarted, later),
        partial(host.ensure_volume_size, later),
        partial(host.ensure_stopped, later),
    ):
        with pytest.raises(HostError, match="there is no read replica"):
            verb()
    assert host.ensure_replica_reset(later, FOLLOWING)
    assert replica.node_id not in host._records.nodes
    assert not host._layout.node(replica.instance_id, replica.node_id).root.exists()


def test_nobody_is_kept_waiting_for_a_copy(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large volume takes longer than a call of the control plane may."""
    host, replica = scene.host, scene.replica
    copying, go = threading.Event(), threading.Event()
    copy = LocalGround.copy

    def copy_slowly(self: LocalGround, source: UUID, target: UUID) -> None:
        copying.set()
        assert go.wait(FOLLOWING)
        copy(self, source, target)

    monkeypatch.setattr(LocalGround, "copy", copy_slowly)
    assert host.ensure_replica_reset(replica, FOLLOWING)
    assert not host.ensure_replica(replica, 0.0)
    assert copying.wait(FOLLOWING)
    began = time.monotonic()
    assert not host.ensure_replica_reset(replica, 0.1)
    assert not host.ensure_no_replica(replica, 0.1)
    assert not host.ensure_replica(replica, 0.1)
    assert time.monotonic() - began < 2
    go.set()
    assert host.ensure_no_replica(replica, FOLLOWING)
    assert replica.node_id not in host._records.nodes


def test_a_replica_moves_though_it_fails_at_first(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was left where it was, unencrypted, while its instance was said to be encrypted."""
    host, former = scene.host, scene.volume(scene.replica)
    tried = threading.Event()

    def refuse(*_: object) -> None:
        tried.set()
        raise DiskFull("no space is left")

    moved = replace(scene.replica, pool=OTHER, generation=scene.replica.generation + 1)
    with monkeypatch.context() as patched:
        patched.setattr(host._pools, "require_free", refuse)
        assert not host.ensure_moved(moved, 0.0)
        assert tried.wait(FOLLOWING)
    assert scene.has_content(scene.replica), "it works on until it can be made there"
    scene.agent.restart()
    scene.replica = moved
    wait_until(lambda: scene.host.ensure_moved(moved, 0.0), FOLLOWING)
    scene.wait_following()
    assert scene.volume(moved) != former
    assert not former.exists()
    wait_until(lambda: scene.has_content(moved))
