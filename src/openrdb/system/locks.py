"""Lock files: one process at a time, known by its identity.

Whoever holds the lock writes its identity into the file; the lock itself says whether it still does.
The kernel's list of locks is not used: btrfs and overlayfs show other devices there than `stat`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from openrdb.errors import HostError
from openrdb.system import processes
from openrdb.system.processes import Identity

_ENDING = 10.0
"""Seconds in which a process that is to be replaced ends by itself."""
_PAUSE = 0.02


def open_file(path: Path) -> int:
    """Return a descriptor of a lock file, made if need be, that only its owner can open."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.fstat(descriptor).st_mode & 0o077:
        os.fchmod(descriptor, 0o600)  # an older version let others lock it
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Return whether a lock file's lock could be taken; it lasts as long as any copy of the
    descriptor is open, in whichever process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_within(descriptor: int, timeout: float) -> bool:
    """Return whether a lock file's lock could be taken within some seconds."""
    deadline = time.monotonic() + timeout
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def is_held(path: Path) -> bool:
    """Return whether somebody holds a lock file's lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(path: Path) -> Identity | None:
    """Return the process that holds a lock file's lock; None if nobody does."""
    if not is_held(path):
        return None
    named = processes.saved(path)
    if named is not None and processes.identify(named.pid) == named:
        return named
    # It has not written its identity yet, or is of a version that did not.
    found = [one for one in processes.holders(path) if one.pid != os.getpid()]
    return min(found, key=lambda one: one.start, default=None)


@contextlib.contextmanager
def exclusive(path: Path, refusal: str) -> Iterator[None]:
    """Be the only process that holds a lock file.

    Raises:
        HostError: another process holds it; `refusal` and its pid say so.
    """
    descriptor = open_file(path)
    try:
        if not try_lock(descriptor):
            other = holder(path)
            raise HostError(f"{refusal}, by process {other.pid if other else 'unknown'}")
        sign(descriptor, _myself())
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def taken_over(path: Path) -> Iterator[None]:
    """Hold a lock file; whoever holds it is asked to end, and killed if it does not.

    Raises:
        HostError: it cannot be ended.
    """
    descriptor = open_file(path)
    try:
        deadline = time.monotonic() + 2 * _ENDING
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise HostError(f"{path} is held by a process that does not end")
            if (other := holder(path)) is not None:
                processes.end(other, signal.SIGTERM, _ENDING)
            else:
                time.sleep(_PAUSE)  # it is just taking the lock, or letting go of it
        sign(descriptor, _myself())
        yield
    finally:
        os.close(descriptor)


def sign(descriptor: int, identity: Identity) -> None:
    """Write the identity of a lock's holder into its file.

    A full disk may not take it: `holder` then finds the process itself.
    """
    text = identity.text().encode()
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, text, 0)  # over what is there, for which there is room
        os.ftruncate(descriptor, len(text))


def _myself() -> Identity:
    mine = processes.identify(os.getpid())
    assert mine is not None  # noqa: S101
    return mine
