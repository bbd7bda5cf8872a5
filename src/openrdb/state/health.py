"""The statuses of an instance that works, by what its hosts said last of its nodes.

It is `disk_full` as long as users of a node may not write, else `autohealing` as long as a pair is not
protected, else `ready`.

Whatever makes an instance `ready` cannot forget it: each flush of a session looks at what it is about
to write. What changes in between ends in the right one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeGuard

from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from openrdb.state import events
from openrdb.state.models import Instance, Node
from openrdb.state.models.instances import precedence
from openrdb.state.statuses.instance import WORKING, InstanceStatus

FULLNESS: Final = "disk_full"
"""Of the events that tell of full volumes: `began` and `ended`."""
PROTECTION: Final = "protection"
"""Of the events that tell whether commits are on both nodes of a pair: `began` and `ended`."""
PRIMARY: Final = "primary_changed"
"""Of the events that tell which node of a pair takes writes from now on."""
OPEN: Final = "open"

_WATCHED = ("observed_writes", "observed_unprotected", "observed_role", "observed_epoch")


def settle(session: Session, *_: object) -> None:
    """Give instances that work the status that their nodes ask for, and tell of changes."""
    with session.no_autoflush:
        for instance, nodes in _concerned(session):
            if instance.status in WORKING:
                status = _status(instance)
                if instance.status != status:
                    instance.status = str(status)
            for node in nodes:
                _tell_of_fullness(session, node)
                _tell_of_primary(session, node)
            _tell_of_protection(session, instance)


def _status(instance: Instance) -> InstanceStatus:
    if any(node.observed_writes not in (OPEN, None) for node in instance.nodes):
        return InstanceStatus.DISK_FULL
    if instance.is_ha_cluster and instance.primary.observed_unprotected is not None:
        return InstanceStatus.AUTOHEALING
    return InstanceStatus.READY


def _concerned(session: Session) -> Iterator[tuple[Instance, list[Node]]]:
    """Yield the instances that are about to be written, and those of nodes of which something else was
    observed, with these nodes."""
    changed: dict[Instance, list[Node]] = {}
    for row in list(session.dirty):
        if isinstance(row, Instance) and inspect(row).attrs.status.history.has_changes():
            changed.setdefault(row, [])
        elif _is_watched(row) and any(_has_changed(row, name) for name in _WATCHED):
            instance = session.get(Instance, row.instance_id)
            if instance is not None:
                changed.setdefault(instance, []).append(row)
    yield from changed.items()


def _is_watched(row: object) -> TypeGuard[Node]:
    """Return whether a row is a node whose users write: what read replicas are is their own status."""
    return isinstance(row, Node) and row.role != "replica"


def _history(node: Node, name: str) -> Any:  # noqa: ANN401
    return inspect(node).attrs[name].history


def _has_changed(node: Node, name: str) -> bool:
    return bool(_history(node, name).has_changes())


def _before(node: Node, name: str, default: Any = None) -> Any:  # noqa: ANN401
    """Return the value of an attribute before its change, if any; it was not set: `default`."""
    history = _history(node, name)
    if not history.has_changes():
        return getattr(node, name)
    return history.deleted[0] if history.deleted else default


def _tell_of_fullness(session: Session, node: Node) -> None:
    """Add an event if a node has become full, or is no more."""
    if not _has_changed(node, "observed_writes"):
        return
    is_open = node.observed_writes == OPEN
    if (_before(node, "observed_writes", OPEN) == OPEN) != is_open:
        reason = None if is_open else node.observed_reason
        events.observed(
            session, node.instance_id, FULLNESS, "ended" if is_open else "began", reason
        )


def _tell_of_primary(session: Session, node: Node) -> None:
    """Add an event if a node has become the primary of a pair; not while the pair is being made."""
    epoch = node.observed_epoch
    known = _before(node, "observed_epoch", 0)
    if node.observed_role == "primary" and epoch > max(known, 1):
        text = f"node {node.id} takes writes from now on (epoch {epoch})"
        events.observed(session, node.instance_id, PRIMARY, "done", text)


def _tell_of_protection(session: Session, instance: Instance) -> None:
    """Add an event if a pair is protected since now, or is not any more; not while it is being made.

    It is the primary that tells, the one of before and the one of now: what changes of one row may
    only be that the other node is the primary.
    """
    if not instance.is_pair_made:
        return
    was_made = all(_before(node, "desired") == "running" for node in instance.nodes)
    before = _unprotected(instance, _before) if was_made else None
    reason = _unprotected(instance, getattr)
    if (before is None) != (reason is None):
        outcome = "began" if reason is None else "ended"
        events.observed(session, instance.id, PROTECTION, outcome, reason)


def _unprotected(instance: Instance, read: Callable[[Node, str], Any]) -> str | None:
    """Return why a pair is not protected, by what `read` returns of its nodes' attributes."""
    names = ("observed_role", "observed_epoch", "role")
    primary = max(
        instance.nodes, key=lambda node: precedence(*(read(node, name) for name in names))
    )
    reason: str | None = read(primary, "observed_unprotected")
    return reason


def watch(sessions: type[Session]) -> None:
    """Settle the statuses in all sessions of a class."""
    sqlalchemy_event.listen(sessions, "before_flush", settle)
