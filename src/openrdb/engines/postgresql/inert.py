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

import psycopg
from psycopg import errors

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import postmaster, session
from openrdb.errors import HostError
from openrdb.system import files

_SIGNAL, _PROMOTE = "standby.signal", "promote"
_OPENED = 60.0
_ASKED_AGAIN = 1.0
"""Seconds: a server that has just begun to start removes the file, as one that was left."""
_PAUSE = 0.01
_STATE = """
    SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END
"""


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

    Raises:
        HostError: it does not run, or not within a minute.
    """
    deadline = time.monotonic() + _OPENED
    while (why := _why_not_opened(node)) is not None:
        if time.monotonic() > deadline:
            raise HostError(f"the server does not begin to take writes: {why}")
    with contextlib.suppress(OSError):  # of a full volume: each start does it as well
        ensure(node.paths.data)


def _why_not_opened(node: EngineNode) -> str | None:
    """Tell a server to take writes; return why it does not within a moment; None if it does."""
    _put(node.paths.data / _PROMOTE)
    postmaster.send(node, signal.SIGUSR1)
    until = time.monotonic() + _ASKED_AGAIN
    try:
        with session.connect_in_time(node, "postgres", _ASKED_AGAIN) as connection:
            while time.monotonic() < until:
                with contextlib.suppress(errors.ObjectNotInPrerequisiteState):  # just between both
                    row = connection.execute(_STATE).fetchone()
                    if row == (False, None):
                        return None
                    if row == (True, True):
                        raise HostError(
                            "the server cannot take writes: settings of it are lower than those of the "
                            "one that it followed"
                        )
                time.sleep(_PAUSE)
    except psycopg.OperationalError as error:
        time.sleep(_PAUSE)
        return str(error)
    return "it is still reading what was written before"


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
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
