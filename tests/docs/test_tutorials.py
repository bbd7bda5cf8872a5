"""The tutorials: every command that they let a reader run succeeds, and prints what they say."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tutorials
from tests.support.service import (
    ROOT,
    Service,
    interpreter,
    port_of_server,
    ports_of_worker,
    unprivileged,
)

TUTORIALS = ROOT / "docs" / "tutorials"
_NEEDED = ("bash", "curl", "openssl")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not all(map(shutil.which, _NEEDED)), reason=f"one of {', '.join(_NEEDED)} is not installed"
    ),
]


class Reader:
    """Someone with a directory of their own, and OpenRDB's commands in PATH."""

    def __init__(self, home: Path, command: list[str], environment: dict[str, str]) -> None:
        """`command`: what precedes the shell."""
        self._command = command
        self._directory = home / "reader"
        programs = home / "bin"
        for made in (self._directory, programs):
            made.mkdir()
            os.chown(made, home.stat().st_uid, -1)
        python, extra = interpreter()
        for name, program in (("openrdb", f"{python} -m openrdb"), ("python", python)):
            (programs / name).write_text(
                f'#!/bin/sh\nPYTHONPATH={extra["PYTHONPATH"]} exec {program} "$@"\n'
            )
            (programs / name).chmod(0o755)
        path = [str(programs), os.environ["PATH"], sysconfig.get_path("scripts")]
        self._environment = environment | {"PATH": os.pathsep.join(path), "COLUMNS": "110"}

    def follow(self, tutorial: Path) -> list[tuple[tutorials.Block, str]]:
        """Run a tutorial's blocks; return each with what it printed."""
        found = list(tutorials.blocks(tutorial.read_text()))
        command = [*self._command, "bash"]
        printed = tutorials.run(found, command, self._environment, self._directory)
        return list(zip(found, printed, strict=True))


@pytest.fixture
def reader(cache: Path, worker_id: str) -> Iterator[Reader]:
    """An ordinary user."""
    with Service(cache, ports_of_worker(worker_id, 1)) as service:
        environment = service.environment | {
            "OPENRDB_DATA_DIR": str(service.data_dir),
            "OPENRDB_LISTEN": f"127.0.0.1:{port_of_server(worker_id, 60)}",
        }
        yield Reader(service.home, unprivileged(), environment)


@pytest.fixture
def root(cache: Path, short_tmp: Path) -> Reader:
    """Root of a machine with its own network, files and processes, which end with the tutorial."""
    machine = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    environment = {
        "HOME": str(short_tmp),
        "OPENRDB_CACHE": str(cache),
        "OPENRDB_WARM_ENGINES": "[]",
    }
    return Reader(short_tmp, machine, environment)


def _check(done: list[tuple[tutorials.Block, str]]) -> None:
    wrong = [
        f"{line!r} is not among:\n{printed}"
        for block, printed in done
        for line in tutorials.differences(block, printed)
    ]
    assert not wrong, "\n".join(wrong)


def test_local(reader: Reader) -> None:
    _check(reader.follow(TUTORIALS / "local.md"))


def test_dba(reader: Reader) -> None:
    _check(reader.follow(TUTORIALS / "dba.md"))


@pytest.mark.root
@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
def test_own_hardware(root: Reader) -> None:
    _check(root.follow(TUTORIALS / "own-hardware.md"))
