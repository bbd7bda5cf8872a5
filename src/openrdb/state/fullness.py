"""The status `disk_full`: an instance that works is in it as long as a node's users may not write.

Whatever makes an instance `ready` cannot forget it: each flush of a session looks at what it is about
to write. What changes in between ends in either status, by what the hosts said last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from openrdb.state.models import Event, Instance, Node
from openrdb.state.statuses.instance import WORKING, InstanceStatus

ACTION = "disk_full"
"""Of the events that tell of it: `began` and `ended`."""
OPEN = "open"


def settle(session: Session, *_: object) -> None:
    """Give instances that work the status that their nodes' volumes ask for, and tell of changes."""
    with session.no_autoflush:
        for instance, nodes in _concerned(session):
            if instance.status in WORKING:
                full = any(node.observed_writes not in (OPEN, None) for node in instance.nodes)
                status = InstanceStatus.DISK_FULL if full else InstanceStatus.READY
                if instance.status != status:
                    instance.status = str(status)
            for node in nodes:
                _tell(session, node)


def _concerned(session: Session) -> Iterator[tuple[Instance, list[Node]]]:
    """Yield the instances that are about to be written, and those of nodes whose users' rights to
    write have changed, with these nodes."""
    changed: dict[Instance, list[Node]] = {}
    for row in list(session.dirty):
        if isinstance(row, Instance) and inspect(row).attrs.status.history.has_changes():
            changed.setdefault(row, [])
        elif _is_told_of(row) and inspect(row).attrs.observed_writes.history.has_changes():
            instance = session.get(Instance, row.instance_id)
            if instance is not None:
                changed.setdefault(instance, []).append(row)
    yield from changed.items()


def _is_told_of(row: object) -> bool:
    """Return whether an instance's users may write less where this row says so."""
    return isinstance(row, Node) and row.role != "replica"


def _tell(session: Session, node: Node) -> None:
    """Add an event if a node has become full, or is no more."""
    history: Any = inspect(node).attrs.observed_writes.history
    before = history.deleted[0] if history.deleted else OPEN
    if (before == OPEN) != (node.observed_writes == OPEN):
        is_open = node.observed_writes == OPEN
        session.add(
            Event(
                action=ACTION,
                outcome="ended" if is_open else "began",
                subject_type="instance",
                subject_id=str(node.instance_id),
                reason=None if is_open else node.observed_reason,
            )
        )


def watch(sessions: type[Session]) -> None:
    """Settle the statuses in all sessions of a class."""
    sqlalchemy_event.listen(sessions, "before_flush", settle)
