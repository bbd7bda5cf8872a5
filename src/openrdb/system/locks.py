"""Who holds a lock file, and waiting for a process to end, without polling."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

_READINGS = 10


def holders(paths: Iterable[Path]) -> dict[Path, int]:
    """The living process that took each file's exclusive `flock`, by the kernel's list.

    A lock outlives the process that took it while a child of that still has the file open; such a
    file is left out here, and whoever waits for the lock gets it when the last child has gone.
    """
    missing = list(paths)
    held: dict[Path, int] = {}
    for _ in range(_READINGS):
        held |= _listed(missing)
        # The list is read in pieces, and what changes meanwhile hides entries: a lock that is not
        # in it counts as free only if it can be taken.
        missing = [path for path in missing if path not in held and _is_taken(path)]
        if not missing:
            break
    return held


def _listed(paths: Iterable[Path]) -> dict[Path, int]:
    wanted: dict[str, Path] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
            wanted[f"{device}:{found.st_ino}"] = path
    held: dict[Path, int] = {}
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        # "12: FLOCK  ADVISORY  WRITE 4242 fe:00:131 0 EOF"; those who wait have "->" second.
        if fields[1] != "FLOCK" or fields[3] != "WRITE" or fields[5] not in wanted:
            continue
        if is_alive(int(fields[4])):
            held[wanted[fields[5]]] = int(fields[4])
    return held


def _is_taken(path: Path) -> bool:
    # Shared and for a moment: it is never taken for a holder's.
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder(path: Path) -> int | None:
    return holders([path]).get(path)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and more of it than its exit status."""
    try:
        # A zombie has let go of everything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_ended(descriptor: int, timeout: float) -> bool:
    """Whether the process of a pidfd ends within some seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def end_process(pid: int, stop_signal: signal.Signals, timeout: float) -> None:
    """Ask a process to end, and kill it after some seconds; return when it has gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, stop_signal)
        if not wait_ended(descriptor, timeout):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            wait_ended(descriptor, timeout)
    finally:
        os.close(descriptor)


def wait_released(path: Path, timeout: float) -> bool:
    """Whether a lock file is let go of by the last of its holders within some seconds."""
    if not path.exists():
        return True
    # The program, because the system call cannot be given a limit in a thread.
    wait = ["flock", "--timeout", str(timeout), str(path), "true"]
    return subprocess.run(wait, check=False).returncode == 0
