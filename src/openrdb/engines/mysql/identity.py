"""What a copied data directory gets of its own: a server UUID, by which replication knows servers, and
a mark for as long as its server has not taken over what its source was to do."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID, uuid4

from openrdb.system import files

_FILE = "auto.cnf"
_COPIED = "openrdb.copied"
_RECEIVED = ("relay.[0-9]*", "relay.index", "*-relay-bin.[0-9]*", "*-relay-bin.index")
"""Relay logs, also those of servers that older code has started. No database's directory has a dot."""


def renew_server_uuid(data: Path) -> UUID:
    """Put a fresh UUID into a stopped server's directory, durably, and return it."""
    identifier = uuid4()
    owner = data.stat()
    descriptor = os.open(data / _FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "w") as file:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
        file.write(f"[auto]\nserver-uuid={identifier}\n")
        file.flush()
        os.fsync(descriptor)
    files.sync_directory(data)
    return identifier


def forget_received(data: Path) -> None:
    """Remove what a stopped server's copy has received of another one and not applied, durably."""
    for pattern in _RECEIVED:
        for path in data.glob(pattern):
            path.unlink()
    files.sync_directory(data)


def mark_copied(data: Path) -> None:
    """Let a stopped server start as a copy, durably: it runs no events before `forget_copied`."""
    owner = data.stat()
    descriptor = os.open(data / _COPIED, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
    files.sync_directory(data)


def is_copied(data: Path) -> bool:
    """Return whether a data directory is marked as a copy."""
    return os.path.lexists(data / _COPIED)


def forget_copied(data: Path) -> None:
    """Remove the mark of a copy, durably; a no-op if there is none."""
    files.remove_entry(data / _COPIED)
    files.sync_directory(data)


def server_id(node_id: UUID) -> int:
    """Return the node's number in replication: 1 to 2^32 - 1."""
    return node_id.int % (2**32 - 1) + 1
