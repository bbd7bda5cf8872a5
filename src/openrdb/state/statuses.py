"""The instance's status machine, as one table, and which requests each status allows.

Sources: behaviours.md ("Instance"), recordings/transitions.tsv. A request that the status does not
allow answers 409 `transient_state`.
"""

from __future__ import annotations

from typing import Final

from openrdb.errors import TransientState
from openrdb.state.models import Instance

MOVES: Final[dict[str, frozenset[str]]] = {
    "provisioning": frozenset({"initializing", "error"}),
    "initializing": frozenset({"ready", "error"}),
    "ready": frozenset({"configuring", "initializing", "restarting", "deleting"}),
    "configuring": frozenset({"ready", "error"}),
    "restarting": frozenset({"ready", "error"}),
    "error": frozenset({"deleting", "restarting"}),
    "deleting": frozenset({"error"}),
}

TRANSIENT: Final = frozenset(
    {"provisioning", "initializing", "configuring", "restarting", "deleting"}
)
"""Statuses that an operation will end by itself."""

ALLOWED: Final[dict[str, frozenset[str]]] = {
    "update": frozenset({"ready", "configuring"}),
    "configure": frozenset({"ready"}),
    "restart": frozenset({"ready", "error"}),
    "renew_certificate": frozenset({"ready"}),
    "set_acl": frozenset({"ready"}),
    "set_settings": frozenset({"ready"}),
    "create_endpoint": frozenset({"ready"}),
    "delete_endpoint": frozenset({"ready"}),
    "migrate_endpoint": frozenset({"ready"}),  # both instances
    # Users, databases, privileges.
    "look_inside": frozenset({"ready", "configuring", "initializing"}),
    "change_inside": frozenset({"ready"}),
    "delete": frozenset({"ready", "error"}),
}


def require(instance: Instance, request: str) -> None:
    """Raise `TransientState` unless the instance's status allows the request."""
    if instance.status not in ALLOWED[request]:
        raise TransientState("instance", str(instance.id), instance.status)


def move(instance: Instance, status: str) -> None:
    """Bring the instance to a status; staying where it is is allowed, for repeated steps.

    Raises:
        ValueError: the table knows no such move, which is a defect of the caller.
    """
    if status == instance.status:
        return
    if status not in MOVES[instance.status]:
        raise ValueError(f"an instance cannot go from {instance.status} to {status}")
    instance.status = status
