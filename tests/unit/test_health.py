"""An instance that works is `ready`, `autohealing` or `disk_full`, whoever writes the row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import cast
from uuid import UUID

import pytest

from openrdb.errors import HostUnavailable
from openrdb.host.base import Host
from openrdb.observe import nodes as observed_nodes
from openrdb.observe.changes import Changes
from openrdb.spec import HostState, NodeState
from openrdb.state import events
from openrdb.state.database import Database
from openrdb.state.models import Instance, Node
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceStatus
from tests.support.service import wait_until
from tests.support.state_database import first_key, row


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/state.sqlite")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def instance_id(database: Database) -> UUID:
    made = row(first_key(database))
    made.nodes = [Node(address="127.0.0.1", port=20000, version="17.11")]
    with database.write() as session:
        session.add(made)
    return made.id


def observe(database: Database, instance_id: UUID, writes: str, reason: str | None = None) -> str:
    """Write down what the host says of the node; return the instance's status then."""
    with database.write() as session:
        node = session.get_one(Instance, instance_id).nodes[0]
        node.observed_writes, node.observed_reason = writes, reason
    return status(database, instance_id)


def move(database: Database, instance_id: UUID, to: InstanceStatus) -> str:
    with database.write() as session:
        statuses.move(session.get_one(Instance, instance_id), to)
    return status(database, instance_id)


def status(database: Database, instance_id: UUID) -> str:
    with database.read() as session:
        return session.get_one(Instance, instance_id).status


def test_it_follows_the_host(database: Database, instance_id: UUID) -> None:
    assert observe(database, instance_id, "read_only", "nearly full") == "disk_full"
    assert observe(database, instance_id, "closed", "full") == "disk_full"
    assert observe(database, instance_id, "open") == "ready"
    with database.read() as session:
        told = [(one.outcome, one.reason) for one in events.of_subject(session, instance_id)]
    assert told == [("began", "nearly full"), ("ended", None)]


@pytest.mark.parametrize("end", [InstanceStatus.READY, InstanceStatus.DISK_FULL])
def test_what_ends_meanwhile_ends_in_the_right_one(
    database: Database, instance_id: UUID, end: InstanceStatus
) -> None:
    """Also where it is put back to what it was before."""
    meanwhile = InstanceStatus.CONFIGURING
    move(database, instance_id, meanwhile)
    assert observe(database, instance_id, "read_only") == meanwhile
    assert move(database, instance_id, end) == "disk_full"
    move(database, instance_id, meanwhile)
    assert observe(database, instance_id, "open") == meanwhile
    assert move(database, instance_id, end) == "ready"


def test_nothing_good_is_told_of_a_silent_host(
    database: Database, instance_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pairs may have lost a node, and its replicas may follow nobody."""
    with database.write() as session:
        made = session.get_one(Instance, instance_id)
        made.is_ha_cluster = True
        node = made.nodes[0]
        follower = Node(instance_id=made.id, address="127.0.0.1", port=20001, version="17.11")
        follower.role = "replica"
        session.add(follower)
        session.flush()
        runs = ("running", True, "postgresql-17.11", "17.11")
        protected = NodeState(node.id, "primary", *runs, epoch=1)
        following = NodeState(follower.id, "replica", *runs)
    host = SilentAtLast([protected, following])
    monkeypatch.setattr(observed_nodes, "_SILENT", 0.2)
    monkeypatch.setattr(observed_nodes, "_PAUSE", 0.05)
    observer = observed_nodes.NodeObserver(database, cast(Host, host), Changes())
    observer.start(HostState(1, "", "boot", {}, 0))

    def seen() -> tuple[str, bool | None]:
        with database.read() as session:
            follower = session.get_one(Node, following.node_id)
            return session.get_one(Instance, instance_id).status, follower.observed_follows

    try:
        wait_until(lambda: seen() == ("ready", True))
        host.is_silent.set()
        wait_until(lambda: seen() == ("autohealing", False))
        host.is_silent.clear()
        wait_until(lambda: seen() == ("ready", True))
    finally:
        observer.close()


class SilentAtLast:
    """A host that answers until it is silent."""

    def __init__(self, nodes: list[NodeState]) -> None:
        self._nodes = nodes
        self.is_silent = Event()

    def changed_nodes(self, seen: int, timeout: float) -> tuple[int, list[NodeState]]:
        if self.is_silent.wait(0 if seen < 0 else timeout):
            raise HostUnavailable("the agent does not answer: it is frozen")
        return 1, self._nodes


def test_an_error_stays_one(database: Database, instance_id: UUID) -> None:
    move(database, instance_id, InstanceStatus.CONFIGURING)
    move(database, instance_id, InstanceStatus.ERROR)
    assert observe(database, instance_id, "read_only") == "error"


# -- pairs ------------------------------------------------------------------------------------------


@pytest.fixture
def pair(database: Database) -> UUID:
    """An instance whose two nodes have been protected."""
    made = row(first_key(database), is_ha_cluster=True)
    of = {"address": "127.0.0.1", "version": "17.11", "desired": "running"}
    seen = {"observed_epoch": 1, "observed_writes": "open"}
    made.nodes = [
        Node(port=20000, role="primary", observed_role="primary", **of, **seen),
        Node(port=20001, role="standby", observed_role="standby", **of, **seen),
    ]
    with database.write() as session:
        session.add(made)
    return made.id


def note(database: Database, instance_id: UUID, made_as: str, **seen: object) -> str:
    """Write down what the host says of the node that was made in a role; return the status then."""
    with database.write() as session:
        nodes = session.get_one(Instance, instance_id).nodes
        (node,) = (one for one in nodes if one.role == made_as)
        for name, value in seen.items():
            setattr(node, f"observed_{name}", value)
    return status(database, instance_id)


def told(database: Database, instance_id: UUID) -> list[tuple[str, str, str | None]]:
    with database.read() as session:
        found = events.of_subject(session, instance_id)
        return [(one.action, one.outcome, one.reason) for one in found]


def test_an_unprotected_pair_heals(database: Database, pair: UUID) -> None:
    assert note(database, pair, "primary", unprotected="the standby ended") == "autohealing"
    assert note(database, pair, "primary", unprotected="it is copied") == "autohealing"
    assert note(database, pair, "primary", unprotected=None) == "ready"
    assert told(database, pair) == [
        ("protection", "ended", "the standby ended"),
        ("protection", "began", None),
    ]


def test_a_failover_is_told_once(database: Database, pair: UUID) -> None:
    note(database, pair, "primary", role="standby", epoch=2)
    why = "the standby follows"
    assert note(database, pair, "standby", role="primary", epoch=2, unprotected=why)
    assert status(database, pair) == "autohealing"
    with database.read() as session:
        primary = session.get_one(Instance, pair).primary
    assert primary.role == "standby"
    changed, ended = told(database, pair)
    assert changed[:2] == ("primary_changed", "done")
    assert str(primary.id) in str(changed[2])
    assert ended == ("protection", "ended", why)
    note(database, pair, "standby", epoch=4)  # and back, before anybody looked
    assert told(database, pair)[-1][:2] == ("primary_changed", "done")


def seen_at_once(database: Database, instance_id: UUID, epoch: int, **seen: object) -> None:
    """Write down what the host says of both nodes after the other one was made the primary."""
    with database.write() as session:
        for node in session.get_one(Instance, instance_id).nodes:
            is_primary = node.observed_role == "primary"
            node.observed_role, node.observed_epoch = "standby" if is_primary else "primary", epoch
            for name, value in seen.items():
                setattr(node, f"observed_{name}", value)


def protections(database: Database, instance_id: UUID) -> list[str]:
    return [one[1] for one in told(database, instance_id) if one[0] == "protection"]


def test_a_failover_of_an_unprotected_pair_does_not_tell_that_it_is_protected(
    database: Database, pair: UUID
) -> None:
    """The former primary has nothing to say any more, which was taken for good news."""
    for made_as in ("primary", "standby"):
        note(database, pair, made_as, unprotected="the standby ended")
    seen_at_once(database, pair, 2, unprotected="the primary ended")
    assert protections(database, pair) == ["ended"]
    seen_at_once(database, pair, 3, unprotected=None)
    assert protections(database, pair) == ["ended", "began"]
    seen_at_once(database, pair, 4, unprotected=None)  # a planned change, before anybody looked
    seen_at_once(database, pair, 5, unprotected="a planned change")
    assert protections(database, pair) == ["ended", "began", "ended"]


def test_an_earlier_host_tells_of_the_primary_only(database: Database, pair: UUID) -> None:
    note(database, pair, "primary", unprotected="the standby ended")
    with database.write() as session:
        for node in session.get_one(Instance, pair).nodes:
            is_new = node.role == "standby"
            node.observed_role, node.observed_epoch = "primary" if is_new else "standby", 2
            node.observed_unprotected = "the primary ended" if is_new else None
    assert protections(database, pair) == ["ended"]


@pytest.mark.parametrize("first", ["primary", "standby"])
@pytest.mark.parametrize("is_protected", [True, False])
def test_a_failover_may_be_heard_of_one_node_after_the_other(
    database: Database, pair: UUID, first: str, *, is_protected: bool
) -> None:
    if not is_protected:
        for made_as in ("primary", "standby"):
            note(database, pair, made_as, unprotected="the standby ended")
    roles = {"primary": "standby", "standby": "primary"}  # what they are from now on
    for made_as in sorted(roles, reverse=first == "standby"):
        note(database, pair, made_as, role=roles[made_as], epoch=2, unprotected="the primary ended")
    assert protections(database, pair) == ["ended"]
    for made_as in roles:
        note(database, pair, made_as, unprotected=None)
    assert protections(database, pair) == ["ended", "began"]


def test_a_pair_that_loses_its_standby_as_it_is_made_is_told_of(
    database: Database, pair: UUID
) -> None:
    """Else the first word of it were that it is protected again."""
    with database.write() as session:
        instance = session.get_one(Instance, pair)
        statuses.move(instance, InstanceStatus.INITIALIZING)
        instance.nodes[1].desired = "stopped"
    note(database, pair, "primary", unprotected="the standby ended")
    with database.write() as session:
        instance = session.get_one(Instance, pair)
        instance.nodes[1].desired = "running"
        statuses.move(instance, InstanceStatus.READY)
    assert told(database, pair) == [("protection", "ended", "the standby ended")]


def test_a_full_disk_comes_first(database: Database, pair: UUID) -> None:
    assert note(database, pair, "primary", unprotected="no room", writes="read_only") == "disk_full"
    assert note(database, pair, "primary", writes="open") == "autohealing"


def test_a_pair_that_is_being_made_is_not_told_of(database: Database, pair: UUID) -> None:
    with database.write() as session:
        instance = session.get_one(Instance, pair)
        statuses.move(instance, InstanceStatus.INITIALIZING)
        instance.nodes[1].desired = "stopped"
    assert note(database, pair, "primary", unprotected="it is copied") == "initializing"
    assert told(database, pair) == []


def test_a_standalone_instance_is_never_autohealing(database: Database, instance_id: UUID) -> None:
    with database.write() as session:
        session.get_one(Instance, instance_id).nodes[0].observed_unprotected = "a pair is undone"
    assert status(database, instance_id) == "ready"
