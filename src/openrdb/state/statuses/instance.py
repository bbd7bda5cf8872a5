"""The instance's statuses, the moves between them, and the requests that each allows.

A request that the status does not allow answers 409 `transient_state`, or 412 where waiting does not
help: clients repeat what is answered with 409.

In `error` everything can be read as far as it is known, and removed: what cannot be removed at the
moment is once the instance works again. Attributes, rules and settings can be changed; the
last two try to repair the instance.

In `disk_full` it works, and its users may not write by default. Whatever is `ready` may become so, and
comes back by itself (`state.health`). All is allowed but what would fill the volume further.

In `autohealing` it works, and a failure of its primary would interrupt it: the host is making the
standby of a highly available instance again. It comes and goes as `disk_full` does, and allows what
`ready` allows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from openrdb.state.statuses.machine import Machine


class InstanceStatus(StrEnum):
    PROVISIONING = "provisioning"
    INITIALIZING = "initializing"
    READY = "ready"
    CONFIGURING = "configuring"
    RESTARTING = "restarting"
    BACKUPING = "backuping"
    """While a backup of it is made, or one is restored into it."""
    SNAPSHOTTING = "snapshotting"
    """While its volume is copied, into a snapshot or a clone."""
    DISK_FULL = "disk_full"
    AUTOHEALING = "autohealing"
    """While a pair is not protected."""
    ERROR = "error"
    DELETING = "deleting"


class InstanceRequest(StrEnum):
    UPDATE = "update"
    CONFIGURE = "configure"
    RESTART = "restart"
    RENEW_CERTIFICATE = "renew_certificate"
    SET_ACL = "set_acl"
    SET_SETTINGS = "set_settings"
    CREATE_ENDPOINT = "create_endpoint"
    DELETE_ENDPOINT = "delete_endpoint"
    MIGRATE_ENDPOINT = "migrate_endpoint"
    UPGRADE = "upgrade"
    """In place; of size or node type above all."""
    APPLY_MAINTENANCE = "apply_maintenance"
    UPGRADE_MAJOR = "upgrade_major"
    """Of the instance that is copied into one of a newer major version."""
    READ_CONTENT = "read_content"
    """Users, databases and privileges."""
    CHANGE_CONTENT = "change_content"
    CREATE_BACKUP = "create_backup"
    RESTORE_BACKUP = "restore_backup"
    """Of the instance into which a backup is restored."""
    CREATE_SNAPSHOT = "create_snapshot"
    CLONE = "clone"
    CREATE_READ_REPLICA = "create_read_replica"
    RESET_READ_REPLICA = "reset_read_replica"
    """Of the instance whose data is copied again."""
    REMOVE_READ_REPLICA = "remove_read_replica"
    """Of the instance that a replica is deleted or promoted from: what is done to it reaches its
    replicas."""
    PREPARE_LOGS = "prepare_logs"
    PURGE_LOGS = "purge_logs"
    DELETE = "delete"
    RETRY = "retry"
    """The operator's: begin a failed operation again."""


_S, _R = InstanceStatus, InstanceRequest

WORKING: Final = frozenset({_S.READY, _S.DISK_FULL, _S.AUTOHEALING})
_BEGUN = frozenset(
    {
        *(_S.CONFIGURING, _S.INITIALIZING, _S.RESTARTING, _S.BACKUPING, _S.SNAPSHOTTING),
        _S.DELETING,
    }
)
"""What requests make of an instance that works."""

MOVES: Final[dict[InstanceStatus, frozenset[InstanceStatus]]] = {
    _S.PROVISIONING: frozenset({_S.INITIALIZING, _S.ERROR}),
    _S.INITIALIZING: frozenset({*WORKING, _S.ERROR}),
    **{status: (WORKING - {status}) | _BEGUN for status in WORKING},
    _S.CONFIGURING: frozenset({*WORKING, _S.ERROR}),
    _S.RESTARTING: frozenset({*WORKING, _S.ERROR}),
    _S.BACKUPING: WORKING,  # a failed backup is no fault of the instance
    _S.SNAPSHOTTING: WORKING,  # nor is a failed copy
    # Also to where a failed operation was, when it is retried.
    _S.ERROR: frozenset(
        {_S.DELETING, _S.RESTARTING, _S.PROVISIONING, _S.INITIALIZING, _S.CONFIGURING}
    ),
    _S.DELETING: frozenset({_S.ERROR}),
}

TRANSIENT: Final = frozenset(
    {
        _S.PROVISIONING,
        _S.INITIALIZING,
        _S.CONFIGURING,
        _S.RESTARTING,
        _S.BACKUPING,
        _S.SNAPSHOTTING,
        _S.DELETING,
    }
)
"""Statuses that an operation will end by itself."""

PASSING: Final = TRANSIENT | {_S.AUTOHEALING}
"""Statuses that end soon without anybody's doing; clients wait for others."""

_ROOMY = WORKING - {_S.DISK_FULL}
_SETTLED = frozenset({*WORKING, _S.ERROR})
_COPIED = frozenset({_S.BACKUPING, _S.SNAPSHOTTING})
"""While a copy of it is made it works as ever."""
_THERE = frozenset(_S) - {_S.PROVISIONING, _S.DELETING}
"""Whatever is done to it: logs tell how that goes."""
ALLOWED: Final[dict[InstanceRequest, frozenset[InstanceStatus]]] = {
    _R.UPDATE: frozenset({*WORKING, _S.CONFIGURING, *_COPIED, _S.ERROR}),
    _R.CONFIGURE: WORKING,
    _R.RESTART: _SETTLED,
    _R.RENEW_CERTIFICATE: WORKING,
    _R.SET_ACL: _SETTLED,
    _R.SET_SETTINGS: _SETTLED,
    _R.CREATE_ENDPOINT: WORKING,
    _R.DELETE_ENDPOINT: _SETTLED,
    _R.MIGRATE_ENDPOINT: WORKING,  # of both instances
    _R.UPGRADE: WORKING,
    _R.APPLY_MAINTENANCE: WORKING,
    _R.UPGRADE_MAJOR: _ROOMY,
    _R.READ_CONTENT: frozenset({*WORKING, _S.CONFIGURING, _S.INITIALIZING, *_COPIED, _S.ERROR}),
    _R.CHANGE_CONTENT: _SETTLED,
    _R.CREATE_BACKUP: WORKING,
    _R.RESTORE_BACKUP: _ROOMY,
    _R.CREATE_SNAPSHOT: WORKING,
    _R.CLONE: WORKING,
    _R.CREATE_READ_REPLICA: WORKING,
    _R.RESET_READ_REPLICA: WORKING,  # else there may be nothing to copy
    _R.REMOVE_READ_REPLICA: frozenset({*_SETTLED, *_COPIED}),
    _R.PREPARE_LOGS: _THERE,
    _R.PURGE_LOGS: _THERE,
    _R.DELETE: _SETTLED,
    _R.RETRY: frozenset({_S.ERROR}),
}

_WAYS_OUT: Final = {
    _S.ERROR: "restart it, or delete it",
    _S.DISK_FULL: "enlarge its volume, or delete some of its data",
}
INSTANCE: Final = Machine("instance", MOVES, ALLOWED, TRANSIENT, _WAYS_OUT)
require, move, not_usable = INSTANCE.require, INSTANCE.move, INSTANCE.not_usable
