"""`openrdb systemd`: its units are those of a real systemd, and `serve` tells it when it is ready."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from openrdb.cli.systemd import units
from openrdb.system import notify


@pytest.mark.parametrize("user", [False, True])
def test_units_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = tmp_path / "100% mine" / "openrdb"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name, text in units([str(program)], tmp_path / "data", user=user).items():
        (tmp_path / name).write_text(text)
    verify = ["systemd-analyze", *(["--user"] if user else []), "verify"]
    made = [str(path) for path in tmp_path.glob("*.service")]
    done = subprocess.run([*verify, *made], capture_output=True, text=True, check=False)
    assert (done.returncode, len(made)) == (0, 2), done.stderr
    assert str(tmp_path) not in done.stderr, done.stderr
    text = (tmp_path / "openrdb.service").read_text()
    assert "100%% mine/openrdb' serve --data-dir" in text
    assert ("default.target" in text) == user


@pytest.mark.parametrize("abstract", [False, True])
def test_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"openrdb-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        notify.ready()
        assert manager.recv(100, socket.MSG_DONTWAIT) == b"READY=1"
    notify.ready()  # nobody is there any more
