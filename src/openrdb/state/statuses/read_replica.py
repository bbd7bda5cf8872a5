"""The statuses of a read replica, the moves between them, and the requests that each allows.

A replica that is `ready` and does not follow at the moment is shown as `initializing`: its host copies
its data again where it has to (`state.read_replicas.shown_status`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from openrdb.state.statuses.machine import Machine


class ReadReplicaStatus(StrEnum):
    PROVISIONING = "provisioning"
    INITIALIZING = "initializing"
    READY = "ready"
    CONFIGURING = "configuring"
    PROMOTING = "promoting"
    """While an instance is made of it."""
    ERROR = "error"
    DELETING = "deleting"


class ReadReplicaRequest(StrEnum):
    CREATE_ENDPOINT = "create_endpoint"
    DELETE_ENDPOINT = "delete_endpoint"
    MIGRATE_ENDPOINT = "migrate_endpoint"
    RESET = "reset"
    PROMOTE = "promote"
    DELETE = "delete"
    """Of the replica, or of its instance."""
    RETRY = "retry"
    """The operator's: begin a failed operation again."""


_S, _R = ReadReplicaStatus, ReadReplicaRequest

MOVES: Final[dict[ReadReplicaStatus, frozenset[ReadReplicaStatus]]] = {
    _S.PROVISIONING: frozenset({_S.INITIALIZING, _S.ERROR}),
    _S.INITIALIZING: frozenset({_S.READY, _S.ERROR}),
    _S.READY: frozenset({_S.INITIALIZING, _S.CONFIGURING, _S.PROMOTING, _S.DELETING}),
    _S.CONFIGURING: frozenset({_S.READY, _S.ERROR}),
    _S.PROMOTING: frozenset({_S.ERROR}),
    # Also to where a failed operation was, when it is retried.
    _S.ERROR: frozenset(
        {_S.DELETING, _S.PROVISIONING, _S.INITIALIZING, _S.CONFIGURING, _S.PROMOTING}
    ),
    _S.DELETING: frozenset({_S.ERROR}),
}

TRANSIENT: Final = frozenset(
    {_S.PROVISIONING, _S.INITIALIZING, _S.CONFIGURING, _S.PROMOTING, _S.DELETING}
)
"""Statuses that will end by themselves."""

SERVING: Final = frozenset({_S.INITIALIZING, _S.READY, _S.CONFIGURING})
"""Statuses in which it has endpoints that lead to it."""

_READY = frozenset({_S.READY})
_SETTLED = frozenset({_S.READY, _S.ERROR})
ALLOWED: Final[dict[ReadReplicaRequest, frozenset[ReadReplicaStatus]]] = {
    _R.CREATE_ENDPOINT: _READY,
    _R.DELETE_ENDPOINT: _READY,
    _R.MIGRATE_ENDPOINT: _READY,
    _R.RESET: _SETTLED,
    _R.PROMOTE: _READY,
    _R.DELETE: _SETTLED,
    _R.RETRY: frozenset({_S.ERROR}),
}

_WAYS_OUT: Final = {_S.ERROR: "reset it, or delete it"}
READ_REPLICA: Final = Machine("read_replica", MOVES, ALLOWED, TRANSIENT, _WAYS_OUT)
require, move = READ_REPLICA.require, READ_REPLICA.move
