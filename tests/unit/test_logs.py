"""Pruning a directory of logs."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from openrdb.engines import rules_of
from openrdb.host import logs

DAY = 24 * 3600
MIB = 2**20
MYSQL, POSTGRESQL = rules_of("MySQL-9").log_day, rules_of("PostgreSQL-17").log_day


def today() -> date:
    """Asked for by each test: a run may go on over midnight."""
    return datetime.now(UTC).date()


def yesterday() -> date:
    return today() - timedelta(days=1)


def NEVER(_: bytes) -> None:  # noqa: N802
    """No line says when it was written."""


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
    logs.prune(tmp_path, 30, None, NEVER, lambda: reopened.append(stems(tmp_path)))
    assert stems(tmp_path) == {"of-40"}
    # By then nothing to be removed had its own name.
    assert reopened == [{"of-40", "of-41", "of-50"}]
    logs.prune(tmp_path, 30, None, NEVER, lambda: reopened.append(set()))
    assert len(reopened) == 1


def test_the_oldest_go_beyond_a_size(tmp_path):
    for days in range(4):
        write(tmp_path, f"of-{days}.log", size=MIB // 20, days=days)
    logs.prune(tmp_path, None, MIB // 8, NEVER, lambda: None)
    assert stems(tmp_path) == {"of-0", "of-1"}


def test_a_large_one_is_set_aside_once(tmp_path):
    write(tmp_path, "error.log", size=MIB)
    write(tmp_path, "slow.log", days=1)
    names = []

    def reopen() -> None:
        names[:] = [path.name for path in tmp_path.iterdir()]
        write(tmp_path, "error.log")

    logs.prune(tmp_path, 30, 4 * MIB, NEVER, reopen)
    assert "slow.log" in names
    assert "error.log" not in names
    logs.prune(tmp_path, 30, 4 * MIB, NEVER, reopen)
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [10, 10, MIB]


def entry(day: date, what: str) -> str:
    return f"{day}T12:00:00.123456Z 0 [Note] {what}\n"


def test_what_was_begun_on_another_day_is_set_aside(tmp_path):
    (tmp_path / "error.log").write_text(entry(yesterday(), "old") + entry(today(), "new"))
    (tmp_path / "slow.log").write_text("mysqld, Version: 9\n" + entry(today(), "slow"))
    (tmp_path / f"named-{yesterday()}.log").write_text(entry(yesterday(), "by the engine itself"))
    times = []
    for _ in range(2):
        logs.prune(tmp_path, 30, None, MYSQL, lambda: times.append(1))
    assert stems(tmp_path) == {"error", "slow", f"named-{yesterday()}"}
    assert not (tmp_path / "error.log").exists()
    assert (tmp_path / "slow.log").exists()
    assert times == [1]


def read(directory: Path, first: date | None, last: date | None) -> str:
    return b"".join(logs.text(directory, first, last, MYSQL)).decode()


def test_reads_whole_days(tmp_path):
    before = yesterday() - timedelta(days=1)
    long = "x" * 3 * 2**16
    old = entry(before, "first") + "a line more\n" + entry(yesterday(), long) + "of yesterday\n"
    (tmp_path / "error-until-1.log").write_text(old)
    (tmp_path / "error.log").write_text(entry(yesterday(), "late") + entry(today(), "now"))
    slow = f"# Time: {today()}T01:02:03.123456Z\nSELECT 1;\n"
    header = "/usr/sbin/mysqld, Version: 9.7.4. started with:\nUnix socket: /run/a.sock\n"
    (tmp_path / "slow.log").write_text(header + slow + header)
    os.utime(tmp_path / "error-until-1.log", (time.time() - 10, time.time() - 10))
    everything = read(tmp_path, None, None)
    assert everything == old + (tmp_path / "error.log").read_text() + slow
    found = entry(yesterday(), long) + "of yesterday\n" + entry(yesterday(), "late")
    assert read(tmp_path, yesterday(), yesterday()) == found
    assert read(tmp_path, None, before) == entry(before, "first") + "a line more\n"
    assert read(tmp_path, today(), None).startswith(entry(today(), "now") + "# Time")
    assert read(tmp_path, today() + timedelta(days=1), None) == ""


def test_reads_nothing_else(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    directory = tmp_path / "log"
    directory.mkdir()
    (directory / "link.log").symlink_to(secret)
    os.mkfifo(directory / "fifo.log")
    assert read(directory, None, None) == ""
    assert logs.listed(directory) == []
    assert not logs.remove(directory, "link.log", lambda: None)
    assert read(tmp_path / "gone", None, None) == ""


def test_removes_by_name(tmp_path):
    for name in ("one.log", "other.log"):
        write(tmp_path, name)
    reopened = []
    assert logs.remove(tmp_path, "one.log", lambda: reopened.append(stems(tmp_path)))
    assert reopened == [{"one", "other"}]
    assert [one.name for one in logs.listed(tmp_path)] == ["other.log"]
    assert not logs.remove(tmp_path, "one.log", lambda: None)
    assert logs.remove(tmp_path, None, lambda: None)
    assert logs.listed(tmp_path) == []


def test_days_of_entries():
    assert POSTGRESQL(b"2026-11-27 10:00:00.123 UTC [12] LOG:  x\n") == b"2026-11-27"
    assert POSTGRESQL(b"\t2026-11-27 10:00:00.123 UTC [12] LOG:  x\n") is None
    assert MYSQL(b"# User@Host: a[a] @ localhost []\n") is None


def test_listed_in_order_of_their_beginnings(tmp_path):
    """Whichever is written to: MySQL's two logs changed places with each write."""
    write(tmp_path, "error-until-2026-01-01T000000.0.log", days=9)
    write(tmp_path, "slow-until-2026-01-05T000000.0.log", days=5)
    write(tmp_path, "error-until-2026-01-07T000000.0.log", days=3)
    expected = [
        "error-until-2026-01-01T000000.0.log",
        "slow-until-2026-01-05T000000.0.log",
        "error-until-2026-01-07T000000.0.log",
        "slow.log",
        "error.log",
    ]
    for last, other in (("slow", "error"), ("error", "slow")):
        write(tmp_path, f"{other}.log", days=1)
        write(tmp_path, f"{last}.log")
        assert [one.name for one in logs.listed(tmp_path)] == expected
    write(tmp_path, "slow.log", size=0)
    assert [one.name for one in logs.listed(tmp_path)] == [*expected[:3], "error.log"]
