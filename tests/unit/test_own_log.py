"""An agent's log on a disk that takes nothing more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITER = """
import logging, os, resource, signal, sys
from pathlib import Path
from openrdb import logs

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
logs.configure("INFO", "text", logs.OwnFile(path))
log = logging.getLogger("any")
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


def test_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    lines = [line.rpartition(" ")[2] for line in path.read_text().splitlines()]
    assert lines == ["before", "after", "printed", "below"]


def test_half_characters_and_wrong_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    script = """
import logging, sys
from pathlib import Path
from openrdb import logs
logs.configure("INFO", "text", logs.OwnFile(Path(sys.argv[1])))
logging.getLogger("any").info("caf\\udce9")
logging.getLogger("any").info("%d", "no number")
logging.getLogger("any").info("after")
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    text = path.read_text()
    assert r"caf\udce9" in text
    assert "Logging error" in text
    assert text.endswith("after\n")


def test_older_lines_make_room(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    script = """
import logging, sys
from pathlib import Path
from openrdb import logs
logs.configure("INFO", "text", logs.OwnFile(Path(sys.argv[1])))
for number in range(45):
    logging.getLogger("any").info("x" * 10**5)
print("printed", flush=True)
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["agent.log", "agent.log.1", "agent.log.2"]
    assert path.read_text().endswith("\nprinted\n")
