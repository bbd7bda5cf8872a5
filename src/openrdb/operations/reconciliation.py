"""The state and its hosts after an older state was restored: what differs, and what is done about it.

In a deployment that was never restored nothing differs: the state is written before hosts are told.

- An instance that was **changed** since: its generation is raised beyond its host's, which refuses
  older ones, and the host is brought to what the state says.
- One that is **missing** on its host, as it was deleted since, ends in `error`; so does a read replica.
- One that has become a **pair** since is one here as well: its newest data may be on the other node.
- A **stranger**, an instance or a node that was made since, is told of and runs on: nothing here can
  say whose it is.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.host.base import Host
from openrdb.operations.begin import record_for_operator
from openrdb.operations.ending import end_failed
from openrdb.operations.instances.apply_acl import ApplyAcl
from openrdb.operations.instances.restart import RestartInstance
from openrdb.operations.registry import Operation, load
from openrdb.operations.replicas.reset import ResetReadReplica
from openrdb.spec import KnownInstance
from openrdb.state import events, instances, operations
from openrdb.state.database import Database
from openrdb.state.models import Event, Instance, Node
from openrdb.state.statuses.instance import WORKING
from openrdb.state.statuses.read_replica import ReadReplicaStatus

log = logging.getLogger(__name__)

STRANGER = "unknown_on_host"
"""Of the events that tell that a host has something which the state does not know."""
_MISSING = (
    "its host has nothing of it: it was deleted after the state was saved, or its files are lost"
)
_TAKEN = "it has become a pair since the state was saved, with a node whose port is another's here"
_INTERRUPTED = "the state was restored while it was under way, and nobody knows how far it came"


def end_unfinished(session: Session) -> int:
    """End what was under way when a state was backed up, and return how many operations that were.

    To begin them again would do something of long ago to what users have made since.
    """
    found = operations.unfinished(session) + operations.deferred(session)
    for row in found:
        end_failed(session, row.id, load(row), _INTERRUPTED, "interrupted")
    return len(found)


def reconcile(database: Database, host: Host) -> None:
    """Compare the state with its host, before anything else is asked of that; record what follows."""
    known = {one.instance_id: one for one in host.known_instances()}
    with database.read() as session:
        differing = list(_differing(session, known))
    for instance_id in differing:
        with database.write() as session:
            _settle(session, session.get_one(Instance, instance_id), known.get(instance_id))
    with database.read() as session:
        unknown = strangers(session, known.values())
    for one in unknown:
        log.warning("%s", told(one))
        with database.write() as session:
            _tell(session, one)


def strangers(session: Session, known: Iterable[KnownInstance]) -> list[KnownInstance]:
    """Return what a host has and the state does not know: instances, or nodes of those it knows."""
    ours: dict[UUID, set[UUID]] = {one: set() for one in session.scalars(select(Instance.id))}
    for instance_id, node_id in session.execute(select(Node.instance_id, Node.id)):
        ours[instance_id].add(node_id)
    found = []
    for one in known:
        nodes = tuple(sorted(set(one.nodes) - ours.get(one.instance_id, set())))
        if nodes:
            found.append(replace(one, nodes=nodes))
    return found


def told(stranger: KnownInstance) -> str:
    """Return what an operator is told of what the state does not know."""
    nodes = ", ".join(map(str, stranger.nodes))
    what = f"{stranger.engine or 'instance'} {stranger.instance_id} (nodes {nodes})"
    return f"{what} is on this host and not in the state: made after that was saved"


def _differing(session: Session, known: Mapping[UUID, KnownInstance]) -> Iterator[UUID]:
    """Yield the instances of which their host knows a newer generation or another node of a pair, or
    lacks nodes."""
    ours: dict[UUID, set[UUID]] = {}
    wanted: dict[UUID, set[UUID]] = {}
    nodes = select(Node.instance_id, Node.id, Node.desired)
    for instance_id, node_id, desired in session.execute(nodes):
        ours.setdefault(instance_id, set()).add(node_id)
        if desired == "running":
            wanted.setdefault(instance_id, set()).add(node_id)
    for row in session.execute(select(Instance.id, Instance.generation)):
        one = known.get(row.id)
        there = set(one.nodes) if one is not None else set()
        is_older = one is not None and one.generation > row.generation
        paired = {node.node_id for node in one.pair} if one is not None else set()
        if is_older or wanted.get(row.id, set()) - there or paired - ours.get(row.id, set()):
            yield row.id


def _settle(session: Session, instance: Instance, known: KnownInstance | None) -> None:
    """Bring an instance's row to what its host can take, and record what is to be done."""
    there = set(known.nodes) if known is not None else set()
    is_changed = known is not None and known.generation > instance.generation
    if known is not None and is_changed:
        instance.generation = known.generation + 1
    is_whole = known is None or _take_up_pair(session, instance, known)
    if instance.status not in WORKING:
        return  # an operation is under way, or what brings it back asks for all of it
    if not is_whole:
        _fail(session, RestartInstance(instance.id), _TAKEN)
        return
    for replica in instance.read_replicas:
        if replica.status == ReadReplicaStatus.READY and _is_missing(replica.node, there):
            log.error("read replica %s: %s", replica.id, _MISSING)
            replica.node.desired = "stopped"
            _fail(session, ResetReadReplica(replica.id), _MISSING)
    kept = [node for node in instance.nodes if node.desired == "running"]
    # A pair of which one node is there gets the other one again.
    if kept and all(_is_missing(node, there) for node in kept):
        log.error("instance %s (%r): %s", instance.id, instance.name, _MISSING)
        for node in instance.nodes:
            node.desired = "stopped"
        # As the failure of what brings it back where that is possible: out of the trash, too.
        _fail(session, RestartInstance(instance.id), _MISSING)
        return
    if is_changed:
        log.warning("instance %s (%r) is brought to the restored state", instance.id, instance.name)
        record_for_operator(session, ApplyAcl(instance.id, repairs=True), "scheduled")


def _take_up_pair(session: Session, instance: Instance, known: KnownInstance) -> bool:
    """Let an instance have both nodes of its host's pair; return False if that cannot be."""
    ours = {node.id: node for node in instance.nodes}
    for one in known.pair:
        if one.node_id not in ours:
            same = select(Node.id).where(Node.address == one.address, Node.port == one.port)
            if session.scalar(same) is not None:
                log.error("instance %s (%r): %s", instance.id, instance.name, _TAKEN)
                return False
            log.warning("instance %s (%r) is a pair by now", instance.id, instance.name)
            instance.is_ha_cluster = True
            mode = instances.mode_of_pair(instance.high_availability_mode)
            instance.high_availability_mode = mode
            ours[one.node_id] = instances.add_known_standby(instance, one)
        node = ours[one.node_id]
        node.observed_role, node.observed_epoch = one.role, one.epoch
    return True


def _is_missing(node: Node, there: Collection[UUID]) -> bool:
    return node.desired == "running" and node.id not in there


def _fail(session: Session, operation: Operation, why: str) -> None:
    """Record an operation that cannot be done, so that its subject is in `error` for that reason."""
    row = record_for_operator(session, operation, "scheduled")
    session.flush()
    end_failed(session, row.id, operation, why, "interrupted")


def _tell(session: Session, stranger: KnownInstance) -> None:
    """Add an event of a stranger, once."""
    reason = told(stranger)
    history = events.of_subject(session, stranger.instance_id)
    if any((one.action, one.reason) == (STRANGER, reason) for one in history):
        return
    session.add(
        Event(
            action=STRANGER,
            outcome="found",
            subject_type="instance",
            subject_id=str(stranger.instance_id),
            reason=reason,
        )
    )
