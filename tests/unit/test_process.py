"""What a process of ours does to itself at its start; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openrdb.system.process import clean_environment, offer_to_oom_killer
from tests.support.service import interpreter, unprivileged


def said_by(code: str, *, before: str = "") -> str:
    """What a new Python process prints, after a shell's command."""
    command = ["sh", "-c", f'{before} exec "$0" -c "$1"', sys.executable, code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_foreign_variables_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = ("PGHOSTADDR", "PGSERVICE", "http_proxy", "HTTPS_PROXY", "no_proxy", "MYSQL_HOST")
    for name in foreign:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("OPENRDB_HOLD", "1")
    clean_environment()
    assert not set(foreign) & set(os.environ)
    assert os.environ["OPENRDB_HOLD"] == "1"


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    code = "from openrdb.system.process import *; print(raise_descriptor_limit())"
    assert said_by(code, before="ulimit -Sn 128; ulimit -Hn 512;") == "512"
    code = "from openrdb.system.process import *; raise_descriptor_limit(); "
    code += "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert said_by(code, before="ulimit -Sn 128; ulimit -Hn 512;") == "(512, 512)"


def test_new_files_are_private(tmp_path: object) -> None:
    code = "from openrdb.system.process import *; prepare(); open('made', 'w'); "
    code += "import os; print(oct(os.stat('made').st_mode & 0o777))"
    assert said_by(code, before=f"umask 022; cd {tmp_path};") == "0o600"


def test_a_tenants_process_is_ended_first() -> None:
    child = 'read go; sh -c "cat /proc/self/oom_score_adj"'
    with subprocess.Popen(
        ["sh", "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        offer_to_oom_killer(process.pid)
        said, _ = process.communicate("\n")
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(said) == 500 > own
    offer_to_oom_killer(process.pid)  # has ended


@pytest.mark.root
def test_a_process_that_waits_to_be_reaped_is_left_alone() -> None:
    """Its file is root's by then, whoever it belonged to."""
    python, environment = interpreter()
    code = "import subprocess as s, os; p = s.Popen(['true']); "
    code += "os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOWAIT); "
    code += "from openrdb.system.process import *; offer_to_oom_killer(p.pid)"
    subprocess.run([*unprivileged(), python, "-c", code], env=environment, check=True)
