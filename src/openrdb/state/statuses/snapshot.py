"""The statuses of a snapshot, the moves between them, and the requests that each allows."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from openrdb.state.statuses.machine import Machine


class SnapshotStatus(StrEnum):
    CREATING = "creating"
    READY = "ready"
    RESTORING = "restoring"
    """While an instance is made of it."""
    ERROR = "error"
    DELETING = "deleting"


class SnapshotRequest(StrEnum):
    UPDATE = "update"
    RESTORE = "restore"
    DELETE = "delete"
    RETRY = "retry"
    """The operator's: begin a failed operation again."""


_S, _R = SnapshotStatus, SnapshotRequest

MOVES: Final[dict[SnapshotStatus, frozenset[SnapshotStatus]]] = {
    _S.CREATING: frozenset({_S.READY, _S.ERROR}),
    _S.READY: frozenset({_S.RESTORING, _S.DELETING}),
    _S.RESTORING: frozenset({_S.READY}),  # a failed instance is no fault of the snapshot
    # Also to where a failed operation was, when it is retried.
    _S.ERROR: frozenset({_S.DELETING, _S.CREATING}),
    _S.DELETING: frozenset({_S.ERROR}),
}

TRANSIENT: Final = frozenset({_S.CREATING, _S.RESTORING, _S.DELETING})
"""Statuses that an operation will end by itself."""

_READY = frozenset({_S.READY})
_SETTLED = frozenset({_S.READY, _S.ERROR})
ALLOWED: Final[dict[SnapshotRequest, frozenset[SnapshotStatus]]] = {
    # Name and expiry are no concern of what is under way.
    _R.UPDATE: frozenset(_S) - {_S.DELETING},
    _R.RESTORE: _READY,
    _R.DELETE: _SETTLED,
    _R.RETRY: frozenset({_S.ERROR}),
}

_WAYS_OUT: Final = {_S.ERROR: "delete it, and make another one"}
SNAPSHOT: Final = Machine("instance_snapshot", MOVES, ALLOWED, TRANSIENT, _WAYS_OUT)
require, move = SNAPSHOT.require, SNAPSHOT.move
