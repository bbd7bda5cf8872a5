"""What logging out costs, by logind's files below another root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrdb.host.session import lost_at_logout

_USER = 54321
"""Without a passwd entry, so that its name is the number."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for directory in ("run/systemd/system", "run/systemd/seats", "var/lib/systemd/linger"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def configure(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"[Login]\n{text}\n")


def test_shared_memory_is_removed_by_default(root: Path) -> None:
    lost = lost_at_logout(_USER, root)
    assert lost is not None
    assert "RemoveIPC" in lost
    assert f"loginctl enable-linger {_USER}" in lost


def test_who_lingers_loses_nothing(root: Path) -> None:
    (root / f"var/lib/systemd/linger/{_USER}").touch()
    assert lost_at_logout(_USER, root) is None


def test_a_system_account_loses_nothing(root: Path) -> None:
    assert lost_at_logout(101, root) is None


def test_nothing_is_lost_without_logind(tmp_path: Path) -> None:
    assert lost_at_logout(_USER, tmp_path) is None


def test_the_last_drop_in_counts(root: Path) -> None:
    configure(root, "etc/systemd/logind.conf", "#RemoveIPC=yes\nKillUserProcesses=yes")
    configure(root, "usr/lib/systemd/logind.conf.d/50-some.conf", "RemoveIPC=no")
    lost = lost_at_logout(_USER, root)
    assert lost is not None
    assert "RemoveIPC" not in lost
    assert "KillUserProcesses" in lost
    configure(root, "run/systemd/logind.conf.d/60-more.conf", "KillUserProcesses=no")
    assert lost_at_logout(_USER, root) is None
    configure(root, "etc/systemd/logind.conf.d/70-last.conf", "RemoveIPC=yes")
    assert "RemoveIPC" in (lost_at_logout(_USER, root) or "")


def test_a_damaged_file_is_passed_over(root: Path) -> None:
    path = root / "etc/systemd/logind.conf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RemoveIPC=no\n" + os.urandom(20))
    assert lost_at_logout(_USER, root) is not None
