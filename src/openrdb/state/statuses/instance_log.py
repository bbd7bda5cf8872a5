"""The statuses of a copy of logs, the moves between them, and the requests that each allows."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from openrdb.state.statuses.machine import Machine


class InstanceLogStatus(StrEnum):
    CREATING = "creating"
    READY = "ready"
    ERROR = "error"


class InstanceLogRequest(StrEnum):
    DELETE = "delete"
    """When it has expired: nobody sees it any more by then."""
    RETRY = "retry"
    """The operator's: begin a failed operation again."""


_S, _R = InstanceLogStatus, InstanceLogRequest

MOVES: Final[dict[InstanceLogStatus, frozenset[InstanceLogStatus]]] = {
    _S.CREATING: frozenset({_S.READY, _S.ERROR}),
    # To where a failed operation was, when it is retried: it copies the logs of all its nodes again.
    _S.READY: frozenset({_S.CREATING}),
    _S.ERROR: frozenset({_S.CREATING}),
}

TRANSIENT: Final = frozenset({_S.CREATING})
"""Statuses that an operation will end by itself."""

ALLOWED: Final[dict[InstanceLogRequest, frozenset[InstanceLogStatus]]] = {
    _R.DELETE: frozenset({_S.READY, _S.ERROR}),
    _R.RETRY: frozenset({_S.ERROR}),
}

_WAYS_OUT: Final = {_S.ERROR: "prepare it again"}
INSTANCE_LOG: Final = Machine("instance_log", MOVES, ALLOWED, TRANSIENT, _WAYS_OUT)
require, move = INSTANCE_LOG.require, INSTANCE_LOG.move
