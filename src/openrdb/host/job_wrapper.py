"""The parent of one job's program: run by path, `python -I -S job_wrapper.py DIRECTORY [DESCRIPTOR]`.

It outlives the agent, ends the program with its deadline, and writes how it ended. One such process
runs for each running job, so it imports little and holds only the output's tail.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # typing's costs memory.
if TYPE_CHECKING:
    from typing import Any

JOB = "job.json"
CLAIM = "claim.json"
RESULT = "result.json"
MARKER = "OPENRDB_JOB"
"""Variable with the job's id in the environment of each of its processes."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
STOPPED = "stopped"
OVERDUE = "killed at its deadline"

_TAIL = 8192
_OOM_SCORE = 200
_LONGEST_POLL = 3600.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


def boot_id() -> str:
    """Return what tells this boot of the machine from all others."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def record_once(directory: int, name: str, content: object) -> bool:
    """Write a JSON file atomically and durably, unless it exists.

    Args:
        directory: the directory's descriptor.

    Returns: whether this call wrote it; of several callers exactly one does.
    """
    partial = f"{name}.{os.urandom(6).hex()}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(descriptor)
        # Unlike a rename it never replaces what another process wrote.
        os.link(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):  # The job is already forgotten.
            os.unlink(partial, dir_fd=directory)
    os.fsync(directory)
    return True


def read(directory: int, name: str) -> dict[str, Any] | None:
    """Return a JSON file's content; None if there is no such file."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        return None
    with open(descriptor) as file:
        content: dict[str, Any] = json.load(file)
    return content


def main(path: str, handed: str | None = None) -> int:
    """Claim the job in a process of its own and return; that process runs it, if it has the claim.

    Args:
        path: the job's directory.
        handed: the number of a descriptor that the program's standard input is read from.

    Returns: the exit status for the caller: 0 once the job is claimed, by us or by another.
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    reading, writing = os.pipe()
    if os.fork() != 0:
        os.close(writing)
        return 0 if os.read(reading, 1) else 1
    os.close(reading)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    # Before the claim: who reads it may send SIGTERM at once.
    signals = _catch_signals()
    job = read(directory, JOB)
    if job is None:
        raise FileNotFoundError(f"{path} has no {JOB}")
    claimed = record_once(directory, CLAIM, _claim(job["deadline"]))
    with contextlib.suppress(BrokenPipeError):  # The caller was killed; the job goes on.
        os.write(writing, b"1")
    os.close(writing)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    if claimed:
        record_once(directory, RESULT, _run(job, signals, None if handed is None else int(handed)))
    return 0


def _claim(deadline: float) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "started": start_time(os.getpid()),
        "boot": boot_id(),
        "at": time.time(),
        "ends_by": time.monotonic() + deadline + GRACE,
    }


def _catch_signals() -> int:
    """Return a descriptor from which the numbers of received signals are read."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    return reading


def _run(job: dict[str, Any], signals: int, handed: int | None) -> dict[str, Any]:
    """Run the program until it and all its descendants have ended; return how it ended."""
    # Orphaned descendants become our children, whatever session they are in.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    output, writing = os.pipe()
    wrapper = os.getpid()
    # A SIGTERM to the new process waits until it no longer has our handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    program = os.fork()
    if program == 0:
        _become_program(job, writing, wrapper, handed)
    if handed is not None:
        os.close(handed)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.close(writing)
    watch = select.poll()
    watch.register(output, select.POLLIN)
    watch.register(signals, select.POLLIN)
    timer: float | None = time.monotonic() + job["deadline"]
    reason, tail, status = "", b"", None
    while status is None:
        left = _LONGEST_POLL if timer is None else max(0.0, timer - time.monotonic())
        received = b""
        for descriptor, _ in watch.poll(min(left, _LONGEST_POLL) * 1000):
            if descriptor == signals:
                received = os.read(signals, 4096)
            elif data := os.read(output, 65536):
                tail = (tail + data)[-_TAIL:]
            else:
                watch.unregister(output)
        status = _reap(program)
        is_late = timer is not None and time.monotonic() >= timer
        is_stopped = not reason and signal.SIGTERM in received
        if status is None and (is_late or is_stopped):
            if reason:
                _signal_group(program, signal.SIGKILL)
                timer = None
            else:
                reason = STOPPED if is_stopped else OVERDUE
                _ask_to_end(program)
                timer = time.monotonic() + GRACE
    _kill_descendants()
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):  # Empty, and a stranger was handed the other end.
        # All writers have ended, and no unprivileged process makes a pipe larger than 1 MiB.
        tail = (tail + os.read(output, 1 << 20))[-_TAIL:]
    code = os.waitstatus_to_exitcode(status)
    return {
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "ended_at": time.time(),
        "reason": reason,
        "output": tail.decode(errors="replace"),
    }


def _reap(program: int) -> int | None:
    """Reap all children that have ended; return the program's wait status if it is one of them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == program:
            found = status


def _ask_to_end(program: int) -> None:
    """Send SIGTERM to the program's process group and to the orphans it has left.

    Only to children and their groups: these identifiers are not given away before we reap.
    """
    _signal_group(program, signal.SIGTERM)
    for pid in _children():
        if pid != program:
            os.kill(pid, signal.SIGTERM)


def _signal_group(program: int, number: signal.Signals) -> None:
    try:
        os.killpg(program, number)
    except ProcessLookupError:
        os.kill(program, number)  # It has no group of its own yet.


def _kill_descendants() -> None:
    # A killed child's children are ours before it can be reaped.
    while True:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _become_program(job: dict[str, Any], output: int, wrapper: int, handed: int | None) -> None:
    """Turn the forked process into the job's program; never return."""
    try:
        os.setsid()
        _die_with(wrapper)
        signal.set_wakeup_fd(-1)
        # Ours, those that Python ignores, and those that whoever started the agent ignored.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.dup2(output, 1)
        os.dup2(output, 2)
        _raise_oom_score()
        # No descendant may become one that we may not kill.
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if job["uid"] is None:
            _open_files(job)
        else:
            _open_as(job["uid"], job, wrapper)
        if handed is not None:
            os.dup2(handed, 0)
            os.close(handed)
        program = job["program"]
        os.execvpe(program[0], program, job["environment"] | {MARKER: job["id"]})  # noqa: S606
    except BaseException as error:
        os.write(2, f"the job's program cannot be run: {error}\n".encode())
    finally:
        os._exit(127)


def _open_as(uid: int, job: dict[str, Any], wrapper: int) -> None:
    """Open the program's files with the rights of its account only.

    The account may have put links and FIFOs there: a link leads nowhere that the account could not
    go, and a FIFO blocks this process only, which the deadline ends.
    """
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    _die_with(wrapper)  # A change of credentials has undone it.
    _open_files(job)
    os.seteuid(0)
    os.setegid(0)
    _die_with(wrapper)


def _open_files(job: dict[str, Any]) -> None:
    os.chdir(job["directory"])
    os.dup2(os.open(job["stdin"] or os.devnull, os.O_RDONLY), 0)
    if job["stdout"]:
        os.dup2(os.open(job["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)


def _raise_oom_score() -> None:
    with open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < _OOM_SCORE:
            file.seek(0)
            file.write(str(_OOM_SCORE))


def _die_with(wrapper: int) -> None:
    """Let the kernel kill this process when the wrapper ends, also if it already has."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != wrapper:
        os._exit(127)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
