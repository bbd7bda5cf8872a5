"""Control groups (version 2): limits of a node's memory and processors, and killing all it started.

They lie below the cgroup that the agent was started in, where that one was delegated to us or we are
root. Whatever of it a host lacks is left out: `Cgroups.missing` says which controllers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_LIMITS = ("memory", "cpu")
"""The controllers that limits need."""
_LEAF = "openrdb-agent"
"""Where the agent itself goes: a cgroup that controls others must have no process of its own."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_PERIOD = 100_000
"""Microseconds in which the share of processor time is counted."""


@dataclass(frozen=True)
class Cgroup:
    """A cgroup with the processes of one node."""

    path: Path

    def add(self, pid: int) -> None:
        """Move a process into it; what the process starts from then on is in it too.

        Raises:
            ProcessLookupError: there is no such process.
        """
        _write(self.path / "cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """Return the processes in it, without those that ended and were not waited for."""
        try:
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except (FileNotFoundError, OSError) as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return []
            raise

    def kill(self) -> None:
        """Send SIGKILL to all processes in it, also to those that are being started; repeatable."""
        with contextlib.suppress(FileNotFoundError):
            if (self.path / "cgroup.kill").exists():
                _write(self.path / "cgroup.kill", "1")
                return
            # Linux before 5.14: what stands still starts nothing.
            _write(self.path / "cgroup.freeze", "1")
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _write(self.path / "cgroup.freeze", "0")

    def wait_empty(self, timeout: float) -> bool:
        """Return whether its last process ends within some seconds."""
        deadline = time.monotonic() + timeout
        try:
            descriptor = os.open(self.path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLPRI)
            # A change is announced once, and reading takes note of it: read before each wait.
            while b"populated 1" in os.pread(descriptor, 4096, 0):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poll.poll(left * 1000)
            return True
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove it when its processes have ended; harmless when there is none.

        Raises:
            OSError: there are processes in it (EBUSY).
        """
        with contextlib.suppress(FileNotFoundError):
            self.path.rmdir()


@dataclass(frozen=True)
class Cgroups:
    """The cgroups below ours."""

    path: Path
    missing: tuple[str, ...]
    """Controllers without which some limit is not set."""

    @classmethod
    def find(cls) -> Cgroups | None:
        """Return the cgroups that we can make here, for the start of the agent, which may move into
        one itself; None where `why_not` says why."""
        base = _writable_base()
        if isinstance(base, str):
            return None
        _enable(base)
        return cls(base, _missing(base))

    @staticmethod
    def why_not() -> str | None:
        """Return why there can be no cgroups; None if there can."""
        base = _writable_base()
        return base if isinstance(base, str) else None

    def ensure(self, name: str, *, memory: int | None = None, cpus: float | None = None) -> Cgroup:
        """Make a cgroup, or change its limits.

        Args:
            name: small letters, digits and hyphens, as of an instance's id.
            memory: bytes; None: no limit.
            cpus: how many processors' time; None: no limit.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name} cannot be a cgroup's name")
        path = self.path / name
        path.mkdir(exist_ok=True)
        if "memory" not in self.missing:
            _write(path / "memory.max", "max" if memory is None else str(memory))
        if "cpu" not in self.missing:
            share = "max" if cpus is None else str(round(cpus * _PERIOD))
            _write(path / "cpu.max", f"{share} {_PERIOD}")
        return Cgroup(path)

    def all(self) -> list[Cgroup]:
        """Return the existing cgroups, also those of an earlier agent."""
        found = (path for path in self.path.iterdir() if path.is_dir() and path.name != _LEAF)
        return [Cgroup(path) for path in found if _NAME.fullmatch(path.name)]


def _writable_base() -> Path | str:
    """Return the directory below which cgroups can be made, or why there is none."""
    own = own_cgroup(
        Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    )
    if own is None:
        return "cgroup v2 is not mounted"
    base = own.parent if own.name == _LEAF else own
    probe = base / f"openrdb-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"{base}: {os.strerror(error.errno or errno.EIO).lower()}"
    if not os.access(base / "cgroup.procs", os.W_OK):
        return f"{base} is not delegated to this user"
    return base


def own_cgroup(membership: str, mounts: str) -> Path | None:
    """Return the directory of our cgroup, of what /proc/self/cgroup and mountinfo say."""
    paths = [line[3:] for line in membership.splitlines() if line.startswith("0::")]
    for line in mounts.splitlines():
        fields, _, kind = line.partition(" - ")
        if not paths or kind.split(" ")[0] != "cgroup2":
            continue
        root, mounted = (_unescaped(field) for field in fields.split(" ")[3:5])
        path = Path(_unescaped(paths[0]))
        if path.is_relative_to(root):
            return Path(mounted) / path.relative_to(root)
    return None


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _enable(base: Path) -> None:
    """Enable the available controllers below `base`, unless somebody else is in the way."""
    if not _missing(base):
        return
    available = (base / "cgroup.controllers").read_text().split()
    wanted = [name for name in _LIMITS if name in available]
    if not wanted:
        return
    with contextlib.suppress(OSError):  # as when a shell of the same session is in `base`
        if (base / "cgroup.type").exists():  # the root of all may have processes
            leaf = base / _LEAF
            leaf.mkdir(exist_ok=True)
            _write(leaf / "cgroup.procs", str(os.getpid()))
        for name in wanted:
            _write(base / "cgroup.subtree_control", f"+{name}")


def _missing(base: Path) -> tuple[str, ...]:
    enabled = (base / "cgroup.subtree_control").read_text().split()
    return tuple(name for name in _LIMITS if name not in enabled)


def _write(path: Path, text: str) -> None:
    # One system call, without creating anything: the kernel judges each write on its own.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
