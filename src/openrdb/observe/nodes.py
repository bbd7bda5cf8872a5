"""What the hosts say of their nodes, written into the state as soon as it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from openrdb.engines.versions import TIME_ZONES
from openrdb.errors import HostError, HostUnavailable
from openrdb.host.base import Host
from openrdb.observe.changes import Changes
from openrdb.spec import HostState, NodeState
from openrdb.state import models
from openrdb.state.database import Database
from openrdb.state.models import now
from openrdb.state.models.hosts import LOCAL_HOST

log = logging.getLogger(__name__)

SLOT = "logical_slot"
"""Of the events that tell of a user's slot that is lost."""
RECOVERY = "recovery_window"
"""Of the events that tell that it ended by force."""
_LONGEST_WAIT = 30.0
_SILENT = 60.0
"""Seconds without an answer of a host after which nothing good is told of its pairs and replicas."""
_BATCH = 500
_PAUSE = 1.0
"""Seconds after a failure: a host that is away comes back by itself."""


class NodeObserver:
    """Follows one host."""

    def __init__(self, database: Database, host: Host, changes: Changes) -> None:
        self._database = database
        self._changes = changes
        self._host = host
        self._told: set[UUID] = set()
        """The ids of notices for which events were added already."""
        self._heard_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="observer", daemon=True)

    def start(self, state: HostState) -> None:
        with self._database.write(durable=False) as session:
            host = session.get_one(models.Host, LOCAL_HOST)
            host.protocol, host.boot_id, host.last_seen_at = state.protocol, state.boot, now()
        self._thread.start()

    def close(self) -> None:
        """Stop; a call under way is not waited for."""
        self._stopping.set()

    def _follow(self) -> None:
        seen = -1
        while not self._stopping.is_set():
            try:
                seen, nodes = self._host.changed_nodes(seen, _LONGEST_WAIT)
                self._heard_at = time.monotonic()
                if not self._stopping.is_set():
                    self._note(nodes)
            except HostError as error:
                log.debug("the host's nodes are not known: %s", error)
                seen = -1
                if isinstance(error, HostUnavailable):
                    self._note_silence(error)
                self._stopping.wait(_PAUSE)
            except Exception:
                log.exception("observing nodes failed; it is tried again")
                self._stopping.wait(_PAUSE)

    def _note(self, nodes: list[NodeState]) -> None:
        for first in range(0, len(nodes), _BATCH):
            batch = {node.node_id: node for node in nodes[first : first + _BATCH]}
            query = select(models.Node).where(models.Node.id.in_(batch))
            with self._database.read() as session:
                rows = session.scalars(query).unique().all()
            self._tell_of_slots([(row.instance_id, batch[row.id]) for row in rows])
            changed = [row for row in rows if _differs(row, batch[row.id])]
            if changed:
                with self._database.write(durable=False) as session:
                    for row in session.scalars(query).unique():
                        _tell_of_recovery(session, row, batch[row.id])
                        _write(row, batch[row.id])
                for row in rows:
                    if _concerns_status(row, batch[row.id]):
                        self._changes.announce(row.instance_id)
                self._announce_replicas(changed)

    def _note_silence(self, error: HostUnavailable) -> None:
        """Write down of pairs and replicas that nobody looks after them, once a host has said nothing
        for long. What is true is written again as soon as it answers."""
        if time.monotonic() - self._heard_at < _SILENT:
            return
        node = models.Node
        is_protected = and_(node.observed_epoch > 0, node.observed_unprotected.is_(None))
        query = select(node).where(or_(node.observed_follows.is_(True), is_protected))
        with self._database.read() as session:
            told = session.scalars(query).unique().all()
        if not told:
            return
        log.warning("the host has said nothing for %.0f s: %s", _SILENT, error.explanation)
        with self._database.write(durable=False) as session:
            for row in session.scalars(query).unique():
                if row.role == "replica":
                    row.observed_follows, row.observed_reason = False, error.explanation
                else:
                    row.observed_unprotected = error.explanation
        for instance_id in {row.instance_id for row in told}:
            self._changes.announce(instance_id)
        self._announce_replicas(told)

    def _tell_of_slots(self, nodes: list[tuple[UUID, NodeState]]) -> None:
        """Add the events of users' slots that were lost, each once."""
        for instance_id, node in nodes:
            new = [one for one in node.slots_lost if one.id not in self._told]
            if not new:
                continue
            with self._database.write() as session:
                for notice in new:
                    if session.get(models.Event, notice.id) is None:
                        session.add(_event(SLOT, "lost", instance_id, notice.text, notice.id))
            self._told.update(notice.id for notice in new)

    def _announce_replicas(self, changed: Sequence[models.Node]) -> None:
        """Wake up those who wait for read replicas, whose status shows whether their nodes follow."""
        nodes = [row.id for row in changed if row.role == "replica"]
        if not nodes:
            return
        query = select(models.ReadReplica.id).where(models.ReadReplica.node_id.in_(nodes))
        with self._database.read() as session:
            for replica_id in session.scalars(query):
                self._changes.announce(replica_id)


def _state(node: NodeState) -> str:
    if node.running:
        return "running"
    return "failed" if node.desired == "running" else "stopped"


def _concerns_status(row: models.Node, node: NodeState) -> bool:
    """Return whether the instance may get another status by what its host says (`state.health`)."""
    known = (row.observed_writes, row.observed_role, row.observed_unprotected)
    return known != (node.writes, node.role or row.observed_role, node.unprotected)


def _differs(row: models.Node, node: NodeState) -> bool:
    known = {name: getattr(row, name) for name in _observed(node)}
    is_recorded = row.volume is None or row.volume.collations is not None
    runs = (row.bundle, row.version) == (node.bundle, node.version)
    is_told = node.recovery_lost_at in (None, row.recovery_lost_at)
    is_recorded = is_recorded or node.data_versions is None
    return not (runs and is_told and is_recorded) or known != _observed(node)


def _observed(node: NodeState) -> dict[str, Any]:
    """Return what is written down of a node's state, by the names of the columns; its role stays what
    it was last where its host does not know it."""
    observed = {
        "observed_state": _state(node),
        "observed_reason": node.reason or node.writes_reason or node.warning or None,
        "observed_writes": node.writes,
        "observed_unprotected": node.unprotected,
        "observed_follows": node.running and not node.reason if node.role == "replica" else None,
        # Whole seconds: else each report would be another one, and the state written for it.
        "observed_lag": None if node.lag is None else round(node.lag),
    }
    if node.role is not None:
        observed |= {"observed_role": node.role, "observed_epoch": node.epoch}
    return observed


def _tell_of_recovery(session: Session, row: models.Node, node: NodeState) -> None:
    """Add an event if a node's window for recovery to a point in time was ended by force."""
    if node.recovery_lost_at is None or node.recovery_lost_at == row.recovery_lost_at:
        return
    row.recovery_lost_at = node.recovery_lost_at
    session.add(_event(RECOVERY, "ended", row.instance_id, node.recovery_lost_reason, uuid4()))


def _event(action: str, outcome: str, instance_id: UUID, reason: str, id_: UUID) -> models.Event:
    return models.Event(
        id=id_,
        action=action,
        outcome=outcome,
        subject_type="instance",
        subject_id=str(instance_id),
        reason=reason,
    )


def _write(row: models.Node, node: NodeState) -> None:
    for name, value in _observed(node).items():
        setattr(row, name, value)
    row.bundle, row.version = node.bundle, node.version
    row.observed_at = now()
    if row.volume is not None and node.data_versions is not None:
        versions = dict(node.data_versions)
        row.volume.time_zones = versions.pop(TIME_ZONES, None)
        row.volume.collations = versions
