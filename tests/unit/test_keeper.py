"""The agent's keeper without systemd, and its replacement by another version's."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from openrdb.agent import keeper
from openrdb.agent.keeper import Supervisord
from openrdb.system import files, locks
from openrdb.system.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    made = Layout(tmp_path)
    yield made
    Supervisord(made).shut_down()


def of_version(monkeypatch: pytest.MonkeyPatch, layout: Layout, version: str) -> Supervisord:
    """Return a keeper whose agent is started in this way, and lives as long as it."""
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()", version]
    monkeypatch.setattr(keeper, "agent_command", lambda _: waits)
    return Supervisord(layout)


def full(*_: object) -> None:
    """Write nothing, as on a disk that takes nothing more."""
    raise OSError(errno.ENOSPC, "no space left")


def test_a_keeper_stays_until_its_successor_can_start(
    monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    of_version(monkeypatch, layout, "old").ensure_up()
    old = locks.holder(layout.keeper_lock)
    assert old is not None
    new = of_version(monkeypatch, layout, "new")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(files, "write_private", full)
        with pytest.raises(OSError, match="no space left"):
            new.ensure_up()
    assert locks.holder(layout.keeper_lock) == old
    new.ensure_up()
    assert locks.holder(layout.keeper_lock) not in (None, old)


def test_a_keeper_is_started_again_on_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    kept = of_version(monkeypatch, layout, "same")
    kept.ensure_up()
    kept.shut_down()
    monkeypatch.setattr(files, "write_private", full)
    kept.ensure_up()
    assert locks.holder(layout.keeper_lock) is not None


def test_a_keeper_waits_for_what_a_killed_one_has_forked(
    monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    """It has the lock for a moment, and is no keeper."""
    layout.keeper_lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = locks.open_file(layout.keeper_lock)
    assert locks.try_lock(descriptor)
    Timer(0.5, os.close, [descriptor]).start()
    of_version(monkeypatch, layout, "next").ensure_up()
    assert locks.holder(layout.keeper_lock) is not None


def test_a_replacement_that_was_interrupted_is_done_again(
    monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    of_version(monkeypatch, layout, "old").ensure_up()
    old = locks.holder(layout.keeper_lock)
    with monkeypatch.context() as killed:

        def end(_: Supervisord) -> None:
            raise KeyboardInterrupt

        killed.setattr(Supervisord, "_end", end)
        with pytest.raises(KeyboardInterrupt):
            of_version(monkeypatch, layout, "new").ensure_up()
    of_version(monkeypatch, layout, "new").ensure_up()
    assert locks.holder(layout.keeper_lock) not in (None, old)
