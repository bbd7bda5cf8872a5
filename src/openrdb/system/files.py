"""Syncing volumes, waiting for a file to change, and reading what others wrote."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import stat
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from inotify_simple import INotify
from inotify_simple import flags as events

if TYPE_CHECKING:
    from openrdb.system.accounts import Uid

OTHERS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
"""How to open what another account may have put there."""
_NOT_READABLE = (
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV),
    errno.EWOULDBLOCK,  # somebody has a lease on it
)
_REMOVAL = 20.0
LEAST_FREE = 512 * 2**20
"""Bytes without which nothing new is made on a disk of databases; what exists runs on."""
_libc = ctypes.CDLL(None, use_errno=True)
WATCHED = events.CREATE | events.MODIFY | events.MOVED_TO | events.CLOSE_WRITE | events.DELETE_SELF


def wait_for(
    directory: Path, condition: Callable[[], bool], timeout: float, *, pid: int | None = None
) -> bool:
    """Return whether a condition comes true in time; check it at each change of a directory.

    Ends at once, with the condition's last word, when the process `pid` ends.
    """
    if condition():
        return True
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        poll, process = select.poll(), None
        inotify = _watching(directory)
        if inotify is not None:
            stack.enter_context(inotify)
            poll.register(inotify.fileno(), select.POLLIN)
        if pid is not None:
            try:
                process = os.pidfd_open(pid)
            except ProcessLookupError:
                return condition()
            stack.callback(os.close, process)
            poll.register(process, select.POLLIN)
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # At least each 50 ms: a socket that is there may listen only later, unannounced.
            woken = {descriptor for descriptor, _ in poll.poll(min(50, left * 1000))}
            if process in woken:
                return condition()
            if woken and inotify is not None:
                inotify.read(timeout=0)
    return True


def _watching(directory: Path) -> INotify | None:
    """Return a watch on a directory; None if the host's inotify instances are used up."""
    try:
        inotify = INotify()
    except OSError:  # others use up the account's few; looking each 50 ms does without
        return None
    with contextlib.suppress(OSError):
        inotify.add_watch(directory, WATCHED)
    return inotify


def dig_holes(paths: Iterable[Path]) -> None:
    """Make the zeros in files holes, where the file system can: copies then need not write them."""
    for path in paths:
        subprocess.run(["fallocate", "--dig-holes", str(path)], check=False)


def give_tree(top: Path, uid: Uid) -> None:
    """Make an account the owner of a directory and of all that is in it; no link is followed.

    The directory must be out of the account's reach until this has returned. It is given last itself.
    """
    if uid is None:
        return
    for _, _, names, descriptor in os.fwalk(top, topdown=False):
        for name in names:
            os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, uid, uid)


def tree_size(top: Path) -> int:
    """Return the bytes that a directory takes on its device, with all that is in it.

    What is removed meanwhile does not count; no link is followed.
    """
    blocks = 0
    for _, _, names, descriptor in os.fwalk(top):
        blocks += os.fstat(descriptor).st_blocks
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                blocks += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_blocks
    return blocks * 512


def sync_file_system(path: Path) -> None:
    """Return when all that was written so far to the file system of `path` is on its device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed", str(path))
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Put on disk what somebody else has written to a file.

    Raises:
        OSError: it is no file, or the disk does not take it.
    """
    # Its owner may have put a pipe or a link in its place: opening must neither wait nor follow it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make what was created, renamed and removed in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_text(path: Path, text: str) -> bool:
    """Return whether there is a file with just this content."""
    return path.exists() and path.read_text() == text


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that nobody but us may read, atomically and durably."""
    _replace(path, content)
    sync_directory(path.parent)


def write_for_group(path: Path, content: str, group: int | None) -> None:
    """Write a file of root's that a group may read, or of ours without a group, atomically.

    After a power cut it may be the old one, never a part of the new one.
    """
    _replace(path, content, group=group)


def write_for_account(path: Path, content: str, owner: int | None) -> None:
    """Write a file that nobody but its owner may read, ours without one, atomically likewise."""
    _replace(path, content, owner=owner)


def _replace(
    path: Path, content: str | bytes, *, group: int | None = None, owner: int | None = None
) -> None:
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(
        partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(descriptor, "wb") as file:
        if group is not None:
            os.fchown(descriptor, 0, group)
            os.fchmod(descriptor, 0o640)
        elif owner is not None:
            os.fchown(descriptor, owner, owner)
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(descriptor)
    partial.rename(path)


def read_small(path: Path, limit: int = 65536) -> bytes:
    """Return the content of a file that another account may have put there.

    Neither waits for a FIFO's writer nor follows a symbolic link in the place of the file; the
    directories above it must be out of that account's reach.

    Raises:
        FileNotFoundError: there is no file.
        OSError: it is a link (ELOOP), no regular file (EINVAL), or longer than `limit` (EFBIG).
    """
    descriptor = os.open(path, OTHERS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        content = os.read(descriptor, limit + 1)  # of a regular file: all that there is
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"is longer than {limit} bytes", str(path))
    return content


def read_tail(path: Path, limit: int = 2**18) -> str:
    """Return the last bytes of a file that another account may have put there, as text.

    Returns:
        "" if there is no file, or something that is not a regular file.
    """
    try:
        descriptor = os.open(path, OTHERS)
    except OSError as error:
        if error.errno in _NOT_READABLE:
            return ""
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return ""
        start = max(0, found.st_size - limit)
        return os.pread(descriptor, limit, start).decode(errors="replace")
    finally:
        os.close(descriptor)


def remove_entry(path: Path) -> None:
    """Remove whatever has this name, a whole directory too; no symbolic link is followed.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        remove_tree(path)


def remove_tree(path: Path, timeout: float = _REMOVAL) -> None:
    """Remove a directory with all that an account may have put into it; a no-op if there is none.

    No symbolic link is followed, and no tree is too deep.

    Raises:
        OSError: something cannot be removed, or is not within some seconds, as where the account
            still adds to it.
    """
    try:
        done = subprocess.run(
            # It ends with us: `openrdb stop` leaves no process, and what is left is removed later.
            ["setpriv", "--pdeathsig=KILL", "--", "rm", "-rf", "--", str(path)],
            capture_output=True,
            check=False,
            timeout=timeout,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, "takes too long to remove", str(path)) from None
    if done.returncode != 0:
        why = (done.stderr.splitlines() or ["no reason given"])[-1]
        raise OSError(errno.EIO, f"cannot be removed ({why[-200:]})", str(path))


def open_private(path: Path) -> BinaryIO:
    """Open a file for writing at its end, as for a lock; nobody but its owner can open it.

    The file is made if there is none, and becomes private if another version left it open to all.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "a+b")


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def used_bytes(path: Path) -> tuple[int, int]:
    """Return how many bytes the file system of a path has, and how many of them are taken."""
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize, (found.f_blocks - found.f_bavail) * found.f_frsize


def file_system(path: Path) -> str:
    """Return what identifies the file system of a path, or of where it would be made.

    The device that `stat` tells is another one for each subvolume of btrfs: its mount tells one.
    """
    while not path.exists():
        path = path.parent
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        device = os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)
    mount = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)["mnt_id"]
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return next((one[2] for one in mounts if one[0] == mount), str(device))


def remove_file(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
