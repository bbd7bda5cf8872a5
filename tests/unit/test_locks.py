"""Whose lock it is, and taking it over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openrdb.errors import HostError
from openrdb.system import locks, processes
from tests.support.service import wait_until

HOLD = """
import signal, sys
from pathlib import Path
from openrdb.system import locks
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with locks.exclusive(Path(sys.argv[1]), "held"):
    print("held", flush=True)
    signal.pause()
"""


@contextmanager
def holding(path: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLD, str(path), *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_holder_is_known_by_its_identity(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert locks.holder(lock) is None
    with holding(lock) as process:
        assert locks.holder(lock) == processes.identify(process.pid)
        with (
            pytest.raises(HostError, match=f"served, by process {process.pid}"),
            locks.exclusive(lock, "served"),
        ):
            pass
    assert locks.holder(lock) is None
    with locks.exclusive(lock, "free again"):
        assert locks.holder(lock) == processes.identify(os.getpid())


def test_nobody_else_may_open_a_lock_file(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch(0o644)
    with locks.exclusive(lock, ""):
        assert lock.stat().st_mode & 0o077 == 0


def test_a_holder_that_did_not_sign_is_found_by_what_it_has_open(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(["flock", "--no-fork", str(lock), "sleep", "600"]) as process:
        wait_until(lambda: locks.is_held(lock))
        assert locks.holder(lock) == processes.identify(process.pid)
        process.kill()


@pytest.mark.parametrize("how", ["ends when asked to", "is frozen"])
def test_taking_over_ends_the_holder(tmp_path: Path, how: str) -> None:
    lock = tmp_path / "lock"
    with holding(lock) as process:
        if how == "is frozen":
            process.send_signal(signal.SIGSTOP)
        with locks.taken_over(lock):
            assert process.wait(10) is not None
            assert locks.holder(lock) == processes.identify(os.getpid())


def test_a_lock_lasts_as_long_as_any_process_has_it_open(tmp_path: Path) -> None:
    lock, script = tmp_path / "lock", "sleep 600 & echo $! ; wait"
    command = ["flock", "--no-fork", str(lock), "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = processes.identify(int(process.stdout.readline()))
        assert child is not None
        process.kill()
        process.wait()
        assert locks.is_held(lock)
        assert processes.holders(lock) == [child]
        assert processes.end(child, signal.SIGTERM, 10)
        assert not locks.is_held(lock)
