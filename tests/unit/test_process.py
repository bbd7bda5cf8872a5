"""What a process of ours does to itself at its start; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from openrdb.system.process import clean_environment


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
