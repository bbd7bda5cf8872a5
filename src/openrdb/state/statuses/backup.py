"""The statuses of a database backup, the moves between them, and the requests that each allows."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from openrdb.state.statuses.machine import Machine


class BackupStatus(StrEnum):
    CREATING = "creating"
    READY = "ready"
    RESTORING = "restoring"
    EXPORTING = "exporting"
    ERROR = "error"
    DELETING = "deleting"


class BackupRequest(StrEnum):
    UPDATE = "update"
    EXPORT = "export"
    RESTORE = "restore"
    DELETE = "delete"
    RETRY = "retry"
    """The operator's: begin a failed operation again."""


_S, _R = BackupStatus, BackupRequest

MOVES: Final[dict[BackupStatus, frozenset[BackupStatus]]] = {
    _S.CREATING: frozenset({_S.READY, _S.ERROR}),
    _S.READY: frozenset({_S.RESTORING, _S.EXPORTING, _S.DELETING}),
    # Back to ready, or to error where the object turned out to be damaged.
    _S.RESTORING: frozenset({_S.READY, _S.ERROR}),
    _S.EXPORTING: frozenset({_S.READY, _S.ERROR}),
    # Also to where a failed operation was, when it is retried.
    _S.ERROR: frozenset({_S.DELETING, _S.CREATING, _S.RESTORING, _S.EXPORTING}),
    _S.DELETING: frozenset({_S.ERROR}),
}

TRANSIENT: Final = frozenset({_S.CREATING, _S.RESTORING, _S.EXPORTING, _S.DELETING})
"""Statuses that an operation will end by itself."""

_READY = frozenset({_S.READY})
_SETTLED = frozenset({_S.READY, _S.ERROR})
ALLOWED: Final[dict[BackupRequest, frozenset[BackupStatus]]] = {
    # Name and expiry are no concern of what is under way.
    _R.UPDATE: frozenset(_S) - {_S.DELETING},
    _R.EXPORT: _READY,
    _R.RESTORE: _READY,
    _R.DELETE: _SETTLED,
    _R.RETRY: frozenset({_S.ERROR}),
}

_WAYS_OUT: Final = {_S.ERROR: "delete it, and make another one"}
BACKUP: Final = Machine("database_backup", MOVES, ALLOWED, TRANSIENT, _WAYS_OUT)
require, move = BACKUP.require, BACKUP.move
