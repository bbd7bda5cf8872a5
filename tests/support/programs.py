"""The processes of a served data directory, by what they are: engines, balancers, agent, keeper."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from openrdb.system import locks, processes
from tests.support.service import Service, wait_until

_SOON = 0.01
"""Seconds after which a program that was started is frozen."""


def commands() -> Iterator[tuple[int, str]]:
    """Yield pid and command of each process, sooner than psutil does: some do not run for long."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(path.parent.name), command


def runs(process: psutil.Process, *programs: str) -> bool:
    """Return whether a process runs one of these, by its own name or by a loader that is told which."""
    with suppress(psutil.NoSuchProcess):
        arguments = process.cmdline()
        title = arguments[arguments.index("--argv0") + 1] if "--argv0" in arguments else ""
        return not {process.name(), Path(title.partition(":")[0]).name}.isdisjoint(programs)
    return False


def is_readable(descriptor: int, timeout: float) -> bool:
    """Return whether something is to be read within some seconds."""
    poll = select.poll()  # `select` knows no descriptor over 1,023, and a test may be given one
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def lock_of(service: Service, instance_id: str, program: str) -> Path:
    return next((service.data_dir / "instances" / instance_id).glob(f"{program}*.lock"))


def holder(service: Service, instance_id: str, program: str) -> int | None:
    """Return the pid of a program's main process; None while it does not run."""
    try:
        record = lock_of(service, instance_id, program).with_suffix(".process")
    except StopIteration:
        return None
    identity = processes.saved(record)
    if identity is None or processes.identify(identity.pid) != identity:
        return None
    return identity.pid


def kill_and_wait(service: Service, instance_id: str, program: str) -> None:
    """Kill a program's main process, and return when another one runs in its place."""
    old = holder(service, instance_id, program)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: holder(service, instance_id, program) not in (None, old), 60)


@contextmanager
def held(
    service: Service, instance_id: str, program: str, first: psutil.Process | None = None
) -> Iterator[None]:
    """Let a program do nothing within the context: it is frozen, and so is each that is started in its
    place, before it has come far.

    Args:
        first: what of it is frozen at first, in the place of its main process.
    """
    known = holder(service, instance_id, program)
    assert known is not None
    ending = threading.Event()

    def hold() -> None:
        held = known
        while not ending.wait(_SOON):
            pid = holder(service, instance_id, program)
            if pid is not None and pid != held:
                _send(pid, signal.SIGSTOP)
                held = pid

    thread = threading.Thread(target=hold)
    frozen = known if first is None else first.pid
    _send(frozen, signal.SIGSTOP)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        for pid in (frozen, holder(service, instance_id, program)):
            if pid is not None:
                _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def agent(service: Service) -> int | None:
    found = locks.holder(service.data_dir / "agent.lock")
    return found.pid if found else None


def keeper(service: Service) -> int | None:
    found = locks.holder(service.data_dir / "keeper.lock")
    return found.pid if found else None
