"""The generation of an instance: raised with each change of what its nodes should be.

Whatever changes such a row cannot forget it: each flush of a session looks at what it is about to
write. Updates that bypass the session's objects are not seen, so nothing changes these rows that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from openrdb.state.models import (
    AclRule,
    Endpoint,
    Instance,
    InstanceSecrets,
    Node,
    ReadReplica,
)

_SPECIFYING: Final[dict[type[Any], tuple[str, ...]]] = {
    Instance: (
        *(
            "node_type",
            "volume_size",
            "volume_type",
            "encryption",
            "settings",
            "init_settings",
            "certificate",
            "uid",
            "recovery",
        ),
        *("nodes", "endpoints", "acl_rules", "read_replicas"),
    ),
    ReadReplica: ("endpoints",),
    Node: ("host_id", "address", "port", "role", "desired"),
    Endpoint: ("ip", "port", "leaving", "rule", "node_id"),
    AclRule: ("ip",),
    InstanceSecrets: ("server_certificate",),
}
"""The attributes that a node's specification, or an instance's routes, are made from."""


def raise_generations(session: Session, *_: object) -> None:
    """Raise the generation of each instance whose specification is about to change."""
    for instance in set(_respecified(session)):
        if instance not in session.new and instance not in session.deleted:
            instance.generation += 1


def _respecified(session: Session) -> Iterator[Instance]:
    for row in session.dirty:
        attributes = inspect(row).attrs
        names = _SPECIFYING.get(type(row), ())
        if any(attributes[name].history.has_changes() for name in names):
            owner = row if isinstance(row, Instance) else _owner(session, row)
            if owner is not None:
                yield owner


def _owner(session: Session, row: Any) -> Instance | None:  # noqa: ANN401
    with session.no_autoflush:
        return session.get(Instance, row.instance_id)


def watch(sessions: type[Session]) -> None:
    """Raise generations in all sessions of a class."""
    event.listen(sessions, "before_flush", raise_generations)
