"""Jobs: programs that run once, found again by id after the agent's end.

Each job has a directory. `job.json` says what to run. The process that creates `claim.json` owns the
only run: the wrapper (`job_wrapper.py`), or one that calls `stop` or `forget`, which claim a job so
that it never runs. The first `result.json` is the result. Each of these files appears atomically and
never changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from openrdb.errors import HostError
from openrdb.host import job_wrapper
from openrdb.host.job_wrapper import CLAIM, GRACE, JOB, RESULT
from openrdb.spec import JobSpec, JobState
from openrdb.system import files, processes, programs
from openrdb.system.accounts import as_account
from openrdb.system.processes import Identity

NO_RECORD = "the wrapper ended without a record"
RESTARTED = "the machine was restarted"
NEVER_RAN = "stopped before it ran"

_SPECS = TypeAdapter(JobSpec)
_START_TIMEOUT = 60
_PATIENCE = 10.0
"""Seconds that a wrapper may take for its own work, or a killed process to end."""

_PF_KTHREAD = 0x200000


@dataclass(frozen=True)
class _Claim:
    """Who owns a job's only run."""

    pid: int
    """The wrapper's; 0: the job is never to run."""
    started: int
    """When that process started, in clock ticks since the boot."""
    boot: str
    at: float
    """Seconds since the epoch."""
    ends_by: float
    """On this boot's monotonic clock: when the wrapper has killed the program at the latest."""


class Jobs:
    """The jobs of a host. Several objects, threads and processes may use one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            for leftover in directory.glob(".*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def start(self, spec: JobSpec, handed: bytes | None = None) -> None:
        """Start a job unless it was started before, whatever has become of it.

        Args:
            spec: what to run; it is kept on disk.
            handed: the program's standard input, which never is: it may have secrets.

        Raises:
            HostError: the specification makes no sense, or the id has another one.
        """
        _check(spec)
        with self._locked():
            path = self._path(spec.id)
            if not path.exists():
                self._create(spec)
        with _opened(path) as directory:
            if _SPECS.validate_python(_read(directory, JOB)) != spec:
                raise HostError(f"job {spec.id} exists with another specification")
            if _read(directory, CLAIM) is None:
                _launch(path, handed)

    def _create(self, spec: JobSpec) -> None:
        stored = _SPECS.dump_python(spec, mode="json") | {"program": _program(spec)}
        new = self._directory / f".new-{spec.id}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        with _opened(new) as directory:
            job_wrapper.record_once(directory, JOB, stored)
        new.rename(self._path(spec.id))
        files.sync_directory(self._directory)

    def state(self, job_id: UUID) -> JobState:
        """Return what has become of a job.

        A wrapper that ended without a record, or does not end the program at its deadline, is seen
        here: what is left of the job is killed and the job has failed.
        """
        with contextlib.suppress(FileNotFoundError), _opened(self._path(job_id)) as directory:
            return self._state(job_id, directory)
        return JobState(job_id, "unknown")

    def _state(self, job_id: UUID, directory: int) -> JobState:
        claim = _claim(directory)
        if claim is None:
            return JobState(job_id, "unknown", _spec(directory).name)
        result = _read(directory, RESULT)
        if result is None:
            reason = ""
            with _process(claim) as wrapper:
                if wrapper is not None:
                    if time.monotonic() < claim.ends_by + _PATIENCE or not _kill(wrapper):
                        name, since = _spec(directory).name, _moment(claim.at)
                        return JobState(job_id, "running", name, started_at=since)
                    reason = job_wrapper.OVERDUE
            result = _settle(job_id, directory, claim, reason)
        return _ended(_spec(directory), claim, result)

    def wait(self, job_id: UUID, timeout: float) -> JobState:
        """Return a job's state once it has ended, or after some seconds."""
        until = time.monotonic() + timeout
        while (state := self.state(job_id)).status == "running":
            left = until - time.monotonic()
            if left <= 0:
                break
            with contextlib.suppress(FileNotFoundError), _opened(self._path(job_id)) as directory:
                claim = _claim(directory)
                if claim is None:
                    continue
                with _process(claim) as wrapper:
                    if wrapper is not None:
                        overdue = claim.ends_by + _PATIENCE - time.monotonic()
                        processes.wait_ended([wrapper], max(0.0, min(left, overdue)))
        return state

    def stop(self, job_id: UUID) -> None:
        """End a job with all its descendants; harmless if it has ended or is unknown.

        A job that is created but not yet running never runs.

        Raises:
            HostError: its wrapper cannot even be killed.
        """
        with contextlib.suppress(FileNotFoundError), _opened(self._path(job_id)) as directory:
            claim = _claim(directory) or _prevent(directory)
            if _read(directory, RESULT) is not None:
                return
            with _process(claim) as wrapper:
                if wrapper is not None:
                    processes.send(wrapper, signal.SIGTERM)
                    if not processes.wait_ended([wrapper], GRACE + _PATIENCE) and not _kill(
                        wrapper
                    ):
                        raise HostError(f"job {job_id} does not end")
            _settle(job_id, directory, claim, job_wrapper.STOPPED)

    def forget(self, job_id: UUID) -> None:
        """Remove all traces of a job; harmless if it is unknown.

        Raises:
            HostError: the job is running.
        """
        path = self._path(job_id)
        with self._locked(), contextlib.suppress(FileNotFoundError), _opened(path) as directory:
            if _claim(directory) is None:
                _prevent(directory)
            if self._state(job_id, directory).status == "running":
                raise HostError(f"job {job_id} is running; stop it first")
            old = self._directory / f".old-{job_id}"
            path.rename(old)
            files.sync_directory(self._directory)
            shutil.rmtree(old, ignore_errors=True)

    def list(self) -> list[JobState]:
        """Return the states of all jobs that are not forgotten."""
        names = [path.name for path in self._directory.iterdir() if path.is_dir()]
        return [self.state(UUID(name)) for name in sorted(names) if not name.startswith(".")]

    def _path(self, job_id: UUID) -> Path:
        return self._directory / str(job_id)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold off other threads and processes that create or remove jobs."""
        with (self._directory / "lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _check(spec: JobSpec) -> None:
    if not spec.command or not all(spec.command):
        raise HostError(f"job {spec.id} has no program to run")
    if not 0 < spec.deadline < math.inf:
        raise HostError(f"job {spec.id} has no deadline: {spec.deadline} seconds")
    paths = [path for path in (spec.directory, spec.stdin, spec.stdout) if path is not None]
    if not all(path.is_absolute() for path in paths):
        raise HostError(f"job {spec.id} has a path that is not absolute")


def _program(spec: JobSpec) -> list[str]:
    if spec.uid is None:
        return list(spec.command)
    # Never looked for in the job's own PATH, which may be the account's to write to.
    setpriv = programs.which_of_system("setpriv")
    if setpriv is None:
        raise HostError("jobs of other accounts need the program setpriv (util-linux)")
    # Dropping privileges undoes the death signal.
    return [setpriv, "--pdeathsig=KILL", *as_account(spec.uid, list(spec.command))[1:]]


def _launch(path: Path, handed: bytes | None) -> None:
    """Run a wrapper until the job is claimed, by it or by another; it goes on in the background."""
    command = [sys.executable, "-I", "-S", job_wrapper.__file__, str(path)]
    with contextlib.ExitStack() as opened:
        passed: tuple[int, ...] = ()
        if handed is not None:
            descriptor = _in_memory(handed)
            opened.callback(os.close, descriptor)
            command.append(str(descriptor))
            passed = (descriptor,)
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_START_TIMEOUT,
            cwd="/",
            env={},
            pass_fds=passed,
        )
    if done.returncode != 0:
        why = done.stderr.strip().rpartition("\n")[2]
        raise HostError(f"job {path.name} cannot be started: {why}")


def _in_memory(content: bytes) -> int:
    """Return a descriptor from which a content is read, that is in no file system."""
    descriptor = os.memfd_create("openrdb-job")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(directory: int, name: str) -> dict[str, Any] | None:
    return job_wrapper.read(directory, name)


def _spec(directory: int) -> JobSpec:
    stored = _read(directory, JOB)
    if stored is None:
        raise FileNotFoundError(JOB)
    return _SPECS.validate_python(stored)


def _claim(directory: int) -> _Claim | None:
    found = _read(directory, CLAIM)
    return None if found is None else _Claim(**found)


def _prevent(directory: int) -> _Claim:
    """Claim a job so that it never runs; return the claim that counts."""
    nobody = {"pid": 0, "started": 0, "boot": "", "at": time.time(), "ends_by": 0.0}
    job_wrapper.record_once(directory, CLAIM, nobody)
    claim = _claim(directory)
    if claim is None:
        raise FileNotFoundError(CLAIM)
    return claim


def _process(claim: _Claim) -> AbstractContextManager[int | None]:
    """Open a pidfd of the very process that made a claim; None if it has ended."""
    boot = processes.boot() if claim.boot == job_wrapper.boot_id() else claim.boot
    return processes.pidfd(Identity(claim.pid, claim.started, boot))


def _kill(descriptor: int) -> bool:
    """Kill a process; return whether it has ended."""
    processes.send(descriptor, signal.SIGKILL)
    return processes.wait_ended([descriptor], _PATIENCE)


def _settle(job_id: UUID, directory: int, claim: _Claim, reason: str) -> dict[str, Any]:
    """Record the failure of a job whose wrapper has ended; return the result that counts."""
    if (result := _read(directory, RESULT)) is not None:
        return result
    if claim.pid == 0:
        reason = NEVER_RAN
    elif claim.boot != job_wrapper.boot_id():
        reason = RESTARTED
    else:
        _kill_orphans(job_id, _spec(directory).uid)
        reason = reason or NO_RECORD
    end = {"exit_code": None, "signal": None, "ended_at": time.time(), "output": ""}
    failure = end | {"reason": reason}
    # On a full disk it is found out again at the next call.
    with contextlib.suppress(OSError):
        job_wrapper.record_once(directory, RESULT, failure)
    return _read(directory, RESULT) or failure


def _kill_orphans(job_id: UUID, uid: int | None) -> None:
    """Kill what a killed wrapper has left: its account's processes that carry the job's id.

    The program itself dies with the wrapper; its descendants do not.
    """
    marker = f"{job_wrapper.MARKER}={job_id}".encode()
    owner = os.geteuid() if uid is None else uid
    until = time.monotonic() + _PATIENCE
    # Twice without finding any: one that forks and exits meanwhile is not in the first listing.
    while time.monotonic() < until and any(
        _kill_marked(path, marker, owner) for _ in range(2) for path in Path("/proc").glob("[0-9]*")
    ):
        pass


def _kill_marked(process: Path, marker: bytes, owner: int) -> bool:
    """Kill a process of an account if its environment has a marker.

    Returns: whether it had, or cannot be told yet: the caller looks again.
    """
    try:
        if process.stat().st_uid not in (owner, os.geteuid()):
            return False
        descriptor = os.pidfd_open(int(process.name))
    except OSError:
        return False
    try:
        # Read after the descriptor is opened: if the number is another's by now, nobody is killed.
        environment = (process / "environ").read_bytes()
        if not environment:
            return _may_get_environment(process)
        return marker in environment.split(b"\0") and _kill(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _may_get_environment(process: Path) -> bool:
    """Return whether a process that showed no environment was in the middle of an exec."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    is_kernel_thread = int(fields[6]) & _PF_KTHREAD
    start, end = fields[47:49]
    is_empty = start == end != "0"
    return fields[0] not in "ZX" and not is_kernel_thread and not is_empty


def _ended(spec: JobSpec, claim: _Claim, result: dict[str, Any]) -> JobState:
    code, number, reason = result["exit_code"], result["signal"], result["reason"]
    if not reason and number is not None:
        reason = f"killed by {signal.Signals(number).name}"
    elif not reason and code != 0:
        reason = f"exit code {code}"
    return JobState(
        spec.id,
        "failed" if reason else "done",
        spec.name,
        code,
        number,
        _moment(claim.at),
        _moment(result["ended_at"]),
        reason,
        result["output"],
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
