"""The programs of a host: started in a session of their own, adopted, and ended to the last process.

Every process of a program inherits the descriptor of its lock file, so the kernel knows whether any is
left: the lock can be taken only when the last one has gone. A program is therefore never run twice,
and a new PostgreSQL never meets an old one's backends, each of which is in a process group of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from openrdb.errors import HostError
from openrdb.host.cgroups import Cgroup
from openrdb.system import files, locks, process, processes
from openrdb.system.processes import Identity

log = logging.getLogger(__name__)

_KILLED = 30.0
"""Seconds in which the kernel has ended what was killed; a process in the middle of a write to a slow
disk takes its time."""
_ABORTED = 10.0
"""Seconds that a program has for an end without any cleaning up of its data; PostgreSQL kills its
children after five."""
_FROZEN = 0.5
"""Seconds between two looks whether what is asked to end is frozen."""
_PAUSE = 0.01
_LARGEST_OUTPUT = 2**20

STOP_TIMEOUT = 60.0
"""Seconds that a server has for a clean end."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Program:
    """A process to keep running: what starts it, how it is asked to end, what it locks."""

    name: str
    command: list[str]
    lock: Path
    output: Path
    """Where its standard output and error go; begun again at a start when it has over 1 MiB."""
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = STOP_TIMEOUT
    """Seconds until it is killed."""
    abort_signal: signal.Signals = signal.SIGKILL
    """How it is ended when nobody waits for a clean end; its next start recovers."""
    cgroup: Callable[[], Cgroup | None] = lambda: None
    """Return the control group that its processes are in, with their limits; None if there is none."""
    watch: Callable[[int], None] | None = None
    """Follow a start, given the main process' pid, until the program does what it is for."""
    prepare: Callable[[], None] = _nothing
    """Make again whatever it needs and somebody removed; called before each start."""
    is_restarted: bool = True
    """Whether it is started again when it ends; not where something else decides what is started."""
    explain: Callable[[], str] = lambda: "it ended"
    """Return why it ended, in its own words."""

    @property
    def record(self) -> Path:
        """Where the identity of its main process is written down."""
        return self.lock.with_suffix(".process")


@dataclass
class Running:
    """The main process of a program."""

    identity: Identity
    descriptor: int
    """A pidfd."""
    child: subprocess.Popen[bytes] | None
    """Where it is our own child: somebody has to take its exit status."""
    started: float
    """When it was started or adopted (`time.monotonic`)."""

    @property
    def pid(self) -> int:
        return self.identity.pid

    def reap(self) -> int | None:
        """Take the exit status of a process that has ended, and forget it; return the status, negative
        for a signal, None where it is not known."""
        status = self.child.wait() if self.child is not None else None
        os.close(self.descriptor)
        return status


def environment_of(path: Path) -> dict[str, str]:
    """Return the environment that programs get in addition to their own: nothing of ours."""
    return {"PATH": os.defpath, "HOME": str(path), "LANG": "C.UTF-8"}


def start(program: Program) -> Running:
    """Start a program, in a session of its own and with nothing of ours but its lock.

    What is left of an earlier run is ended first.

    Raises:
        HostError: it cannot be executed, or what is left of it cannot be ended.
    """
    end_leftovers(program)
    lock = locks.open_file(program.lock)
    try:
        if not locks.try_lock(lock):
            raise HostError(f"{program.name} runs already")
        child = _execute(program, lock)
    finally:
        os.close(lock)
    identity = processes.identify(child.pid)
    descriptor = processes.open_pidfd(identity) if identity else None
    if identity is None or descriptor is None:
        child.wait()
        raise HostError(program.explain())
    if (group := program.cgroup()) is not None:
        with contextlib.suppress(ProcessLookupError):
            group.add(child.pid)
    _write_down(program, identity)
    process.offer_to_oom_killer(child.pid)
    return Running(identity, descriptor, child, time.monotonic())


def _execute(program: Program, lock: int) -> subprocess.Popen[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    output = os.open(program.output, flags, 0o600)
    try:
        os.set_blocking(output, True)
        if os.fstat(output).st_size > _LARGEST_OUTPUT:
            os.ftruncate(output, 0)
        return subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=program.environment,
            cwd="/",
            pass_fds=(lock,),
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"{program.name} cannot be started: {error}") from error
    finally:
        os.close(output)


def adopt(program: Program) -> Running | None:
    """Return the main process of a program that runs, whoever started it; None if it does not run."""
    if not locks.is_held(program.lock):
        return None
    identity = _recorded(program) or _found(program)
    if identity is None:
        return None
    descriptor = processes.open_pidfd(identity)
    if descriptor is None:
        return None
    if processes.saved(program.record) != identity:
        _write_down(program, identity)
    return Running(identity, descriptor, None, time.monotonic())


def _write_down(program: Program, identity: Identity) -> None:
    """Keep which process a program's main one is. A full disk may not take it: it is found then."""
    with contextlib.suppress(OSError):
        files.write_private(program.record, identity.text())


def _recorded(program: Program) -> Identity | None:
    identity = processes.saved(program.record)
    if identity is None or processes.identify(identity.pid) != identity:
        return None
    # Earlier versions took what a dead server had left for the server, and wrote it down.
    return identity if processes.started_as(identity.pid) else None


def _found(program: Program) -> Identity | None:
    """Return the main process among those that hold the lock: no other's child, and with the
    program's directory among what it was started with. What a dead one has left is none."""
    found = _holders(program.lock)
    pids = {one.pid for one in found}
    directory = os.fsencode(program.lock.parent)
    mains = [
        one
        for one in found
        if processes.parent(one.pid) not in pids
        and any(directory in argument for argument in processes.started_as(one.pid))
    ]
    return min(mains, key=lambda one: one.start, default=None)


def _holders(lock: Path) -> list[Identity]:
    """Return the processes that hold a lock, but for this one and our own children that are about to
    become another program."""
    mine = os.getpid()
    return [
        one
        for one in processes.holders(lock)
        if one.pid != mine and not _is_own_copy(one.pid, mine)
    ]


def _is_own_copy(pid: int, mine: int) -> bool:
    if processes.parent(pid) != mine:
        return False
    try:
        return os.readlink(f"/proc/{pid}/exe") == os.readlink("/proc/self/exe")
    except OSError:
        return False


def end(program: Program, running: Running | None, *, at_once: bool = False) -> bool:
    """End a program to its last process: asked first, killed after some seconds or where one of its
    processes is frozen, as the others would wait for it.

    Args:
        at_once: Do not wait for a clean end: what it has on disk is recovered at its next start.

    Returns:
        Whether its main process did not have to be killed.

    Raises:
        HostError: something of it does not end.
    """
    asked = program.abort_signal if at_once else program.stop_signal
    patience = _ABORTED if at_once else program.stop_timeout
    has_ended = True
    if running is not None:
        has_ended = _ends(running, asked, patience)
        if not has_ended:
            log.warning("%s does not end when asked to: killing it", program.name)
        processes.send(running.descriptor, signal.SIGKILL)
        processes.wait_ended([running.descriptor], _KILLED)
        running.reap()
    end_leftovers(program)
    files.remove_file(program.record)
    if (group := program.cgroup()) is not None:
        group.kill()  # a process may have closed the lock's descriptor and stayed
        group.wait_empty(_KILLED)
        group.remove()
    return has_ended


def _ends(running: Running, asked: signal.Signals, patience: float) -> bool:
    """Ask a process to end, and return whether it does."""
    deadline, is_asked = time.monotonic() + patience, False
    while not processes.is_frozen(running.pid):
        if not is_asked:
            processes.send(running.descriptor, asked)
            is_asked = True
        left = deadline - time.monotonic()
        if processes.wait_ended([running.descriptor], min(max(left, 0.0), _FROZEN)):
            return True
        if left <= 0:
            return False
    return processes.wait_ended([running.descriptor], 0.0)


def kill(program: Program, running: Running | None) -> None:
    """Kill a program to its last process at once.

    Raises:
        HostError: something of it does not end.
    """
    if running is not None:
        processes.send(running.descriptor, signal.SIGKILL)
    end_leftovers(program)
    if running is not None:
        processes.wait_ended([running.descriptor], _KILLED)
        running.reap()
    files.remove_file(program.record)


def end_leftovers(program: Program) -> None:
    """Kill what is left of a program whose main process has gone, and return when nothing is.

    Raises:
        HostError: something of it does not end.
    """
    group = program.cgroup() if locks.is_held(program.lock) else None
    if group is not None:
        group.kill()
    end_holders(program.lock, program.name)


def end_holders(lock: Path, name: str) -> None:
    """Kill the processes that hold a lock, but for this one, and return when there are none.

    Raises:
        HostError: one of them does not end.
    """
    deadline = time.monotonic() + _KILLED
    while locks.is_held(lock):
        left = _holders(lock)
        _kill(left)
        if not left:
            time.sleep(_PAUSE)  # a child of ours between its fork and its exec
        if time.monotonic() > deadline:
            pids = ", ".join(str(one.pid) for one in left) or "unknown"
            raise HostError(f"processes of {name} do not end: {pids}")


@contextlib.contextmanager
def holding(lock: Path, name: str) -> Iterator[int]:
    """Yield the descriptor of a lock, for programs to inherit; those that are left of an earlier time
    are killed before, and what is left of these is afterwards.

    Raises:
        HostError: something of it does not end.
    """
    end_holders(lock, name)
    descriptor = locks.open_file(lock)
    try:
        if not locks.try_lock(descriptor):
            raise HostError(f"{name} is under way already")
        yield descriptor
    finally:
        os.close(descriptor)
        end_holders(lock, name)


def wait_gone(program: Program, timeout: float) -> bool:
    """Return whether the last process of a program whose main process ended does so too, within
    some seconds."""
    deadline = time.monotonic() + timeout
    while locks.is_held(program.lock):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        with contextlib.ExitStack() as opened:
            found = [opened.enter_context(processes.pidfd(one)) for one in _holders(program.lock)]
            processes.wait_ended([one for one in found if one is not None], left)
    return True


def _kill(identities: list[Identity]) -> None:
    """Kill processes and return when they have ended, or after some seconds."""
    with contextlib.ExitStack() as opened:
        descriptors = [opened.enter_context(processes.pidfd(one)) for one in identities]
        living = [descriptor for descriptor in descriptors if descriptor is not None]
        for descriptor in living:
            processes.send(descriptor, signal.SIGKILL)
        processes.wait_ended(living, _KILLED)
