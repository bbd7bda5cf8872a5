"""Whose lock it is, by the kernel's word."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrdb.system import locks
from tests.support.service import wait_until


@contextmanager
def holding(path: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["flock", "--no-fork", str(path), *command])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_holder_is_the_process_that_took_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert locks.holder(lock) is None
    with holding(lock, "sleep", "600") as first:
        wait_until(lambda: locks.holder(lock) == first.pid)
        with holding(lock, "sleep", "600") as second:
            assert locks.holder(lock) == first.pid, "who waits does not hold"
            first.kill()
            first.wait()
            wait_until(lambda: locks.holder(lock) == second.pid)
    assert locks.holder(lock) is None
    assert locks.wait_released(lock, 1)


def test_a_child_keeps_the_lock_but_is_not_its_holder(tmp_path: Path) -> None:
    lock, script = tmp_path / "lock", "sleep 600 & echo $! ; wait"
    process = subprocess.Popen(
        ["flock", "--no-fork", str(lock), "sh", "-c", script], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    assert locks.holder(lock) is None
    assert not locks.wait_released(lock, 0.05)
    locks.end_process(child, signal.SIGTERM, 10)
    assert locks.wait_released(lock, 10)
    process.stdout.close()


def test_ending_what_does_not_listen(tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 600; done"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    locks.end_process(process.pid, signal.SIGTERM, 0.1)
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
    os.killpg(process.pid, signal.SIGKILL)  # the sleep that it waited for


def test_nobody_is_overlooked_while_locks_come_and_go(tmp_path: Path) -> None:
    """The kernel's list is longer than what one reading takes, and changes meanwhile."""
    paths = [tmp_path / f"lock{number}" for number in range(300)]
    taken = [path.open("w") for path in paths]
    for file in taken:
        fcntl.flock(file, fcntl.LOCK_EX)
    churn = (
        "import fcntl, itertools, os, sys\n"
        "os.sched_setaffinity(0, {int(sys.argv[2])})\n"
        "files = [open(f'{sys.argv[1]}/churn{sys.argv[2]}-{n}', 'w') for n in range(200)]\n"
        "print(flush=True)\n"
        "for n in itertools.count():\n"
        "    fcntl.flock(files[n % 200], fcntl.LOCK_UN if n // 200 % 2 else fcntl.LOCK_EX)\n"
    )
    # Each processor has a list of its own.
    churning = [
        subprocess.Popen(
            [sys.executable, "-c", churn, str(tmp_path), str(processor)], stdout=subprocess.PIPE
        )
        for processor in os.sched_getaffinity(0)
    ]
    try:
        for process in churning:
            assert process.stdout is not None
            process.stdout.readline()
        for _ in range(50):
            assert locks.holders(paths) == dict.fromkeys(paths, os.getpid())
    finally:
        for process in churning:
            process.kill()
            process.communicate()
        for file in taken:
            file.close()


def test_many_at_once(tmp_path: Path) -> None:
    free, taken = tmp_path / "free", tmp_path / "taken"
    free.touch()
    with holding(taken, "sleep", "600") as process:
        wait_until(lambda: locks.holder(taken))
        found = locks.holders([free, taken, tmp_path / "absent"])
    assert found == {taken: process.pid}
