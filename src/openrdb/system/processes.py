"""Processes known for certain: by pid, start time and boot, never by "alive" alone.

A pid is given to another process sooner or later; pid, start time and boot together are not. A pidfd
stays with the very process that it was opened for, so signals go through one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_STOPPED = "T"
_NAME = b"--argv0"
"""What tells a loader (ld.so) as what a program is to run."""


@dataclass(frozen=True)
class Identity:
    """A process for certain."""

    pid: int
    start: int
    """Its start, in clock ticks after the boot."""
    boot: str
    """The boot, and the pid namespace within it."""

    def text(self) -> str:
        """Return it as files have it."""
        return json.dumps(asdict(self))


def saved(path: Path) -> Identity | None:
    """Return the identity that a file holds; None if there is none that can be read."""
    try:
        return Identity(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


@cache
def boot() -> str:
    """Return the current boot and pid namespace: identities of others mean nothing here."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{namespace}"


def _stat(pid: int) -> list[str]:
    # The name, which may contain anything, stands in parentheses.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def identify(pid: int) -> Identity | None:
    """Return the identity of a living process; None if there is none, or only its exit status."""
    try:
        stat = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if stat[0] in "ZX" else Identity(pid, int(stat[19]), boot())


def is_alive(pid: int) -> bool:
    """Return whether there is such a process, and more of it than its exit status."""
    return identify(pid) is not None


def is_stopped(pid: int) -> bool:
    """Return whether a process is frozen by SIGSTOP."""
    try:
        return _stat(pid)[0] == _STOPPED
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_frozen(pid: int) -> bool:
    """Return whether a process or one that it started is stopped (SIGSTOP): the others wait for it."""
    return any(map(is_stopped, (pid, *children(pid))))


def children(pid: int) -> list[int]:
    """Return the processes that a process has started; none where the kernel does not tell."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in listed.split()]


def parent(pid: int) -> int | None:
    """Return the parent's pid; None if there is no such process."""
    try:
        return int(_stat(pid)[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def started_as(pid: int) -> list[bytes]:
    """Return the arguments that a process was started with; none of them if it has ended, or has taken
    a title in their place, as servers do for the processes that they start.

    By a loader only the program's name becomes the title: the other arguments stay.
    """
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
    if _NAME in arguments and not arguments[arguments.index(_NAME) + 1].startswith(b"/"):
        return []
    return arguments


def open_pidfd(identity: Identity) -> int | None:
    """Return a pidfd of exactly that process, to be closed by the caller; None if it has ended."""
    if identity.boot != boot():
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except (ProcessLookupError, OSError):
        return None
    # Only now: the descriptor stays with the process even if its pid is given to another.
    if identify(identity.pid) == identity:
        return descriptor
    os.close(descriptor)
    return None


def resume_children(pid: int) -> bool:
    """Let what a process has started go on where it was stopped (SIGSTOP); return whether anything was.

    A no-op where the process itself is stopped. Nothing happens to what a debugger holds.
    """
    if is_stopped(pid):
        return False
    resumed = []
    for child in children(pid):
        identity = identify(child) if is_stopped(child) else None
        if identity is None or parent(child) != pid:
            continue
        with pidfd(identity) as descriptor:
            if descriptor is not None:
                send(descriptor, signal.SIGCONT)
                resumed.append(child)
    if resumed:
        log.warning("processes %s of %d were stopped, and go on", resumed, pid)
    return bool(resumed)


@contextlib.contextmanager
def pidfd(identity: Identity) -> Iterator[int | None]:
    """Yield a pidfd of exactly that process; None if it has ended."""
    descriptor = open_pidfd(identity)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def send(descriptor: int, number: signal.Signals) -> None:
    """Send a signal to the process of a pidfd; a no-op if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def wait_ended(descriptors: Iterable[int], timeout: float) -> bool:
    """Return whether the processes of all pidfds end within some seconds."""
    waiting, deadline = set(descriptors), time.monotonic() + timeout
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting:
        left = deadline - time.monotonic()
        ended = poll.poll(max(left, 0) * 1000)
        if not ended and left <= 0:
            return False
        for descriptor, _ in ended:
            poll.unregister(descriptor)
            waiting.discard(descriptor)
    return True


def end(identity: Identity, stop_signal: signal.Signals, timeout: float) -> bool:
    """Ask a process to end and kill it after some seconds, or at once if it is frozen.

    Returns:
        Whether it has ended.
    """
    with pidfd(identity) as descriptor:
        if descriptor is None:
            return True
        if not is_stopped(identity.pid):
            send(descriptor, stop_signal)
            if wait_ended([descriptor], timeout):
                return True
        send(descriptor, signal.SIGKILL)
        return wait_ended([descriptor], timeout)


def holders(path: Path) -> list[Identity]:
    """Return the living processes that have a file open.

    Those of other accounts are seen by root only; our own locks are open to no others.
    """
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and _has_open(entry.path, str(path), wanted):
            identity = identify(int(entry.name))
            if identity is not None:
                found.append(identity)
    return found


def _has_open(process: str, path: str, wanted: os.stat_result) -> bool:
    try:
        descriptors = os.listdir(f"{process}/fd")  # noqa: PTH208  (thousands of them)
    except OSError:  # it has ended, or is another account's
        return False
    for descriptor in descriptors:
        link = f"{process}/fd/{descriptor}"
        # The name first, which is right on every file system; it changes when the file is renamed.
        with contextlib.suppress(OSError):
            if os.readlink(link) == path:
                return True
            state = os.stat(link)  # noqa: PTH116
            if (state.st_dev, state.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False
