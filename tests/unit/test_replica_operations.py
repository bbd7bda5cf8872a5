"""Operations on read replicas whose instance breaks, or changes, in the meantime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from openrdb.config import Settings
from openrdb.errors import HostError, TransientState
from openrdb.observe.changes import Changes
from openrdb.operations.instances.apply_logs_policy import ApplyLogsPolicy
from openrdb.operations.instances.restart import RestartInstance
from openrdb.operations.registry import Operation
from openrdb.operations.replicas.create import CreateReadReplica
from openrdb.operations.replicas.endpoints import CreateReplicaEndpoint
from openrdb.operations.replicas.following import (
    prune_logs_of_replicas,
    refresh_replicas,
    remake_replicas,
    resize_replicas,
)
from openrdb.operations.replicas.reset import ResetReadReplica
from openrdb.operations.run import Run, Services
from openrdb.spec import NodeSpec
from openrdb.state import models, read_replicas
from openrdb.state.database import Database
from openrdb.state.master_key import open_secrets
from openrdb.state.models import LOCAL_HOST, Instance, Node, ReadReplica, now
from openrdb.system.layout import Layout
from tests.support.state_database import first_key, row


class Host:
    """Notes the verbs that are asked of it, and of which nodes; replicas follow at the third call."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, UUID]] = []
        self.settings: list[dict[str, str]] = []
        """What nodes were to have, at each call."""
        self.then: Callable[[UUID], None] = lambda _: None
        """What happens while it does what it is asked, to the node with this id."""

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]

    def ensure_replica(self, spec: NodeSpec, _: float) -> bool:
        self._note("ensure_replica", spec)
        return self.verbs().count("ensure_replica") > 2

    def ensure_replica_reset(self, spec: NodeSpec, _: float) -> bool:
        self._note("ensure_replica_reset", spec)
        return True

    def __getattr__(self, verb: str) -> Callable[..., None]:
        return lambda spec, *_: self._note(verb, spec)

    def _note(self, verb: str, spec: NodeSpec) -> None:
        self.asked.append((verb, spec.node_id))
        self.settings.append(dict(spec.settings))
        self.then(spec.node_id)


class Stand:
    """An instance with a read replica that follows it, on a host that does nothing."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        self.database, self.host = database, Host()
        secrets = open_secrets(database, Layout(data_dir).master_key)
        instance = row(first_key(database))
        instance.nodes = [Node(address="127.0.0.1", port=20000, version="17.11")]
        with database.write() as session:
            session.add(instance)
            secrets.create(instance)
        self.instance_id = instance.id
        self.replica_id = self.add_replica(20001)
        hosts = cast(Any, {LOCAL_HOST: self.host})
        settings, unused = Settings(data_dir=data_dir), cast(Any, None)
        self.services = Services(settings, database, hosts, Changes(), secrets, unused, "")

    def add_replica(self, port: int) -> UUID:
        node = Node(id=uuid4(), address="127.0.0.1", port=port, version="17.11", role="replica")
        with self.database.write() as session:
            instance = session.get_one(Instance, self.instance_id)
            replica = read_replicas.new(instance, node, same_zone=True)
            replica.status, node.desired = "ready", "running"
        return replica.id

    def set_status(self, instance: str | None = None, replica: str | None = None) -> None:
        with self.database.write() as session:
            if instance is not None:
                session.get_one(Instance, self.instance_id).status = instance
            if replica is not None:
                session.get_one(ReadReplica, self.replica_id).status = replica

    def set_settings(self, status: str, **settings: str) -> None:
        with self.database.write() as session:
            instance = session.get_one(Instance, self.instance_id)
            instance.status, instance.settings = status, settings

    def status(self) -> str:
        with self.database.read() as session:
            return session.get_one(ReadReplica, self.replica_id).status

    def run(self, operation: Operation) -> Run:
        """Return an operation that has been recorded as running."""
        with self.database.write() as session:
            recorded = models.Operation(
                id=uuid4(),
                subject_type=operation.subject_type,
                subject_id=operation.subject_id,
                kind=operation.kind,
                parameters=operation.parameters(),
                status="running",
                created_at=now(),
                deadline_at=now(),
            )
            session.add(recorded)
        return Run(recorded.id, operation, self.services, lambda _, do: do(), is_checked=False)

    def perform(self, operation: Operation) -> str | None:
        """Perform an operation; return why it failed."""
        run = self.run(operation)
        try:
            operation.sequence(run)
        except Exception as error:
            run.fail(error)
        with self.database.read() as session:
            return session.scalars(
                select(models.Operation.error).where(models.Operation.id == run.operation_id)
            ).one()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    opened = Database(f"sqlite:///{tmp_path}/state.sqlite")
    opened.migrate()
    yield Stand(opened, tmp_path)
    opened.close()


def operation(kind: str, replica_id: UUID) -> Operation:
    if kind == "create":
        return CreateReadReplica(replica_id)
    if kind == "endpoint":
        return CreateReplicaEndpoint(replica_id)
    return ResetReadReplica(replica_id, was_ready=True)


@pytest.mark.parametrize(
    ("kind", "before"), [("create", "provisioning"), ("reset", "initializing")]
)
def test_replica_is_waited_for(stand: Stand, kind: str, before: str) -> None:
    stand.set_status(replica=before)
    assert stand.perform(operation(kind, stand.replica_id)) is None
    assert stand.status() == "ready"


@pytest.mark.parametrize(
    ("kind", "before"), [("create", "provisioning"), ("reset", "initializing")]
)
def test_wait_ends_with_an_instance_in_error(stand: Stand, kind: str, before: str) -> None:
    def break_down(_: UUID) -> None:
        assert stand.host.verbs().count("ensure_replica") < 3, "it is waited for without end"
        stand.set_status(instance="error")

    stand.host.then = break_down
    stand.set_status(replica=before)
    why = stand.perform(operation(kind, stand.replica_id))
    assert why is not None
    assert "the instance is in status error" in why
    assert stand.status() == "error"  # from which it is deleted, or reset later


@pytest.mark.parametrize("before", ["ready", "error"])
def test_reset_deletes_nothing_that_cannot_be_copied_again(stand: Stand, before: str) -> None:
    """The instance fell into `error` after the request was accepted."""
    stand.set_status(instance="error", replica="initializing")
    why = stand.perform(ResetReadReplica(stand.replica_id, was_ready=before == "ready"))
    assert why is not None
    assert "the instance is in status error" in why
    assert stand.host.asked == []
    assert stand.status() == before


@pytest.mark.parametrize("status", ["promoting", "deleting"])
@pytest.mark.parametrize(
    "reach", [refresh_replicas, resize_replicas, remake_replicas, prune_logs_of_replicas]
)
def test_replica_that_leaves_is_let_alone(
    stand: Stand, reach: Callable[[Run], None], status: str
) -> None:
    """Also one that began to leave while another one was brought up to date."""
    stand.add_replica(20002)

    def leave(reached: UUID) -> None:
        with stand.database.write() as session:
            for replica in session.get_one(Instance, stand.instance_id).read_replicas:
                if replica.node_id != reached:
                    replica.status = status

    stand.host.then = leave
    reach(stand.run(RestartInstance(stand.instance_id)))
    assert len({node_id for _, node_id in stand.host.asked}) == 1


def test_policy_of_logs_while_a_replica_is_made(stand: Stand) -> None:
    """Its host does not know it yet, which is no failure of its instance's."""
    with stand.database.read() as session:
        unknown = session.get_one(ReadReplica, stand.replica_id).node_id

    def refuse(node_id: UUID) -> None:
        if node_id == unknown:
            raise HostError(f"there is no read replica {node_id} here")

    stand.host.then = refuse
    stand.set_status(instance="configuring", replica="provisioning")
    assert stand.perform(ApplyLogsPolicy(stand.instance_id)) is None
    assert unknown in {node_id for _, node_id in stand.host.asked}


@pytest.mark.parametrize(
    ("kind", "before"),
    [("create", "provisioning"), ("reset", "initializing"), ("endpoint", "initializing")],
)
def test_settings_reach_a_replica_once_its_instance_has_accepted_them(
    stand: Stand, kind: str, before: str
) -> None:
    stand.set_status(replica=before)
    stand.set_settings("configuring", shared_buffers="too much")
    with ThreadPoolExecutor() as pool:
        performed = pool.submit(stand.perform, operation(kind, stand.replica_id))
        with pytest.raises(TimeoutError):
            performed.result(0.5)
        assert stand.host.asked == []
        stand.set_settings("ready", shared_buffers="enough")
        assert performed.result(10) is None
    assert stand.host.settings
    assert all(one == {"shared_buffers": "enough"} for one in stand.host.settings)
    assert stand.status() == "ready"


def test_wait_for_settings_ends_with_the_service(stand: Stand) -> None:
    stand.set_status(replica="initializing")
    stand.set_settings("configuring")
    stand.services.stopping.set()
    with pytest.raises(TransientState):
        CreateReplicaEndpoint(stand.replica_id).sequence(
            stand.run(CreateReplicaEndpoint(stand.replica_id))
        )
    assert stand.host.asked == []
