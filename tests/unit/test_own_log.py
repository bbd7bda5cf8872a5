"""An agent's log on a disk that takes nothing more."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import logging, os, resource, signal, sys
from pathlib import Path
from openrdb import logs

path = Path(sys.argv[1])
logs.configure("INFO", "text", logs.OwnFile(path))
log = logging.getLogger("any")
"""
FULL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log.info("before")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, most))
for _ in range(3000):  # more than buffers take
    log.info("lost")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
log.info("after")
print("printed", flush=True)
os.write(2, b"from below\\n")
"""
ODD = """
log.info("caf\\udce9")
log.info("%d", "no number")
log.info("after")
"""
MUCH = """
for number in range(45):
    log.info("x" * 10**5)
print("printed", flush=True)
"""


MISSING = """
log.info("lost")
path.parent.mkdir()
log.info("after")
print("printed", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.log"


def run(script: str, path: Path) -> None:
    """Let a process of its own log to a file; nothing comes anywhere else."""
    command = [sys.executable, "-c", BEGIN + script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_does_not_fit_is_left_out(path: Path) -> None:
    run(FULL, path)
    lines = [line.rpartition(" ")[2] for line in path.read_text().splitlines()]
    assert lines == ["before", "after", "printed", "below"]


def test_half_characters_and_wrong_lines_are_told(path: Path) -> None:
    run(ODD, path)
    text = path.read_text()
    assert r"caf\udce9" in text
    assert "Logging error" in text
    assert text.endswith("after\n")


def test_a_process_starts_without_its_log(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "agent.log"
    run(MISSING, path)
    lines = [line.rpartition(" ")[2] for line in path.read_text().splitlines()]
    assert lines == ["after", "printed"]


def test_what_fails_before_the_agent_runs_is_told(path: Path) -> None:
    """As a package that is broken."""
    data_dir, broken = path.parent / "data", path.parent / "uvicorn.py"
    broken.write_text("raise ImportError('a broken package')")
    command = [sys.executable, "-m", "openrdb.agent", "--data-dir", data_dir, "--log-file", path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path.parent), *sys.path])}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert "ImportError: a broken package" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_older_lines_make_room(path: Path) -> None:
    run(MUCH, path)
    names = sorted(one.name for one in path.parent.iterdir())
    assert names == ["agent.log", "agent.log.1", "agent.log.2"]
    assert path.read_text().endswith("\nprinted\n")
