"""The data directory at the start of the service: made, opened to instances' accounts, locked."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from openrdb.errors import HostError
from openrdb.host.space import LEAST_FREE
from openrdb.system import accounts, files, locks
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)

_RESERVE = 16 * 2**20
"""Given back at a start on a full disk, and by the state before it writes (`state.database`)."""


def make(layout: Layout) -> None:
    """Make the directories that instances' accounts pass through, whatever the umask.

    Raises:
        HostError: that cannot be.
    """
    root = layout.root
    try:
        for path in (*reversed(root.parents), root, layout.run, layout.instances):
            if not path.exists() or path.parent == root:
                accounts.passable_directory(path)
        if os.geteuid() == 0:
            root.chmod(root.stat().st_mode & 0o7777 | 0o001)
    except OSError as error:
        raise HostError(_cannot_write(root, error)) from None


def _cannot_write(path: Path, error: OSError) -> str:
    why = os.strerror(error.errno or errno.EIO).lower()
    return f"cannot write to {path}: {why}; run as its owner or pass another --data-dir"


@contextlib.contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Be the only control plane on a data directory.

    Raises:
        HostError: another one serves it, or it belongs to another user.
    """
    try:
        files.open_private(layout.lock).close()
    except OSError as error:
        raise HostError(_cannot_write(layout.lock, error)) from None
    with locks.exclusive(layout.lock, f"{layout.root} is served already"):
        yield


def require_whole(layout: Layout) -> None:
    """Raise HostError if a restore was broken off: the state may be half this one, half that one."""
    if layout.restoring.exists():
        raise HostError(
            f"a restore of the state in {layout.root} was broken off: repeat it with --replace; or "
            "put back what is in its newest directory replaced-state.*, and remove the file "
            f"{layout.restoring.name}"
        )


def prepare_files(layout: Layout) -> None:
    """Make databases private before SQLite makes them, and throw away damaged workflows.

    For whoever is alone on the directory.

    Raises:
        HostError: one of them belongs to another user.
    """
    _keep_reserve(layout.reserve)
    _discard_if_damaged(layout.root / "workflows.sqlite")
    for path in (layout.root / "state.sqlite", layout.root / "workflows.sqlite"):
        try:
            files.open_private(path).close()
        except OSError as error:
            raise HostError(_cannot_write(path, error)) from None
    # A process that can open a lock can hold it; earlier versions left that to the shell's umask.
    for pattern in ("run/*.lock", "instances/*/*.lock"):
        for path in layout.root.glob(pattern):
            path.chmod(0o600)


def _discard_if_damaged(path: Path) -> None:
    """Remove a SQLite database that is not sound: workflows begin again from the operations."""
    if not path.exists() or _is_sound(path):
        return
    log.warning("%s is damaged: operations begin again from their first step", path)
    for suffix in ("", "-wal", "-shm"):
        files.remove_file(path.with_name(path.name + suffix))


def _is_sound(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError:
        return False
    return bool(said == "ok")


def _keep_reserve(path: Path) -> None:
    """Keep some bytes aside while there is room, and give them back when the disk is full."""
    free = files.free_bytes(path.parent)
    if free >= LEAST_FREE and not path.exists():
        with contextlib.suppress(OSError), files.open_private(path) as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE)
    elif free < _RESERVE and path.exists():
        log.warning("the disk is full: gave back the %d MiB kept aside", _RESERVE >> 20)
        files.remove_file(path)
