"""Pruning a directory of logs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from openrdb.host import logs

DAY = 24 * 3600
MIB = 2**20


def write(directory: Path, name: str, *, size: int = 10, days: int = 0) -> None:
    path = directory / name
    path.write_bytes(b"x" * size)
    modified = time.time() - days * DAY
    os.utime(path, (modified, modified))


def stems(directory: Path) -> set[str]:
    """Without the time of those that were set aside."""
    return {path.stem.partition("-until-")[0] for path in directory.iterdir()}


def test_old_ones_go_and_the_newest_stays_however_old(tmp_path):
    for days in (40, 41, 50):
        write(tmp_path, f"of-{days}.log", days=days)
    reopened = []
    logs.prune(tmp_path, 30, None, lambda: reopened.append(stems(tmp_path)))
    assert stems(tmp_path) == {"of-40"}
    # By then nothing to be removed had its own name.
    assert reopened == [{"of-40", "of-41", "of-50"}]
    logs.prune(tmp_path, 30, None, lambda: reopened.append(set()))
    assert len(reopened) == 1


def test_the_oldest_go_beyond_a_size(tmp_path):
    for days in range(4):
        write(tmp_path, f"of-{days}.log", size=MIB // 20, days=days)
    logs.prune(tmp_path, None, MIB // 8, lambda: None)
    assert stems(tmp_path) == {"of-0", "of-1"}


def test_a_large_one_is_set_aside_once(tmp_path):
    write(tmp_path, "error.log", size=MIB)
    write(tmp_path, "slow.log", days=1)
    names = []

    def reopen() -> None:
        names[:] = [path.name for path in tmp_path.iterdir()]
        write(tmp_path, "error.log")

    logs.prune(tmp_path, 30, 4 * MIB, reopen)
    assert "slow.log" in names
    assert "error.log" not in names
    logs.prune(tmp_path, 30, 4 * MIB, reopen)
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [10, 10, MIB]
