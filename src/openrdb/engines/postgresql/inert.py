"""Servers that take no writes until they are told to: they start as standbys, each time.

`standby.signal` lets a server start so; it removes the file when it begins to take writes, and the file
is put back at once. `promote` lets it begin, when it is told to look by a signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from pathlib import Path

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import postmaster
from openrdb.engines.postgresql.control import Control
from openrdb.errors import HostError
from openrdb.system import files

_SIGNAL, _PROMOTE = "standby.signal", "promote"
_OPENED = 60.0
_PAUSE = 0.01


def ensure(data: Path) -> None:
    """Let the next start of a data directory's server be inert, durably."""
    files.remove_entry(data / _PROMOTE)
    _put(data / _SIGNAL)
    files.sync_directory(data)


def end(data: Path) -> None:
    """Let a server take writes from its start on, durably."""
    for name in (_SIGNAL, _PROMOTE):
        files.remove_entry(data / name)
    files.sync_directory(data)


def open_server(node: EngineNode) -> None:
    """Let a server take writes, and return when it does; its next start is inert again.

    No connection is needed: a server that has just been started may not accept any before.

    Raises:
        HostError: it does not run, or not within a minute.
    """
    deadline = time.monotonic() + _OPENED
    while not is_open(node):
        if time.monotonic() > deadline:
            raise HostError("the server does not begin to take writes")
        # Again and again: a start removes the file, as one that was left.
        _put(node.paths.data / _PROMOTE)
        postmaster.send(node, signal.SIGUSR1)
        time.sleep(_PAUSE)
    with contextlib.suppress(OSError):  # of a full volume: each start does it as well
        ensure(node.paths.data)


def is_open(node: EngineNode) -> bool:
    """Return whether a running server takes writes, by its files.

    Raises:
        HostError: it does not run.
    """
    postmaster.check(node)
    try:
        control = Control.read(node.paths.data)
    except HostError:  # it is just being written
        return False
    return control.takes_writes and postmaster.is_ready(node)


def _put(path: Path) -> None:
    """Make an empty file that belongs to its directory's owner, whatever they have put there."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode):
            return
        files.remove_entry(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
