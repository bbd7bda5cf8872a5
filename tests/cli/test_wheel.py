"""The wheel, installed away from the checkout as `pipx install` does it: nothing leads back."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import ROOT, Service, interpreter, ports_of_worker, unprivileged

pytestmark = pytest.mark.slow


def _run(*command: str | Path) -> str:
    environment = {"PATH": os.defpath}
    done = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(target.glob("openrdb-*.whl"))


@pytest.fixture
def installation(wheel: Path, short_tmp: Path) -> Path:
    """A virtual environment with the wheel, and our own packages in place of a registry's."""
    root = short_tmp / "venv"
    venv.create(root, with_pip=True)
    pip = [root / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    _run(*pip, wheel)
    packages = interpreter()[1]["PYTHONPATH"].split(os.pathsep)[1]
    own = next(root.glob("lib/python*/site-packages"))
    # The path files of a directory that a path file names are not read: no editable checkout.
    (own / "dependencies.pth").write_text(packages + "\n")
    return root


class _Installed(Service):
    """A control plane that runs the installed wheel."""

    def __init__(self, cache: Path, ports: tuple[int, int, int, int], root: Path) -> None:
        super().__init__(cache, ports)
        self._program = root / "bin" / "openrdb"

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        return [*unprivileged(), str(self._program), *arguments], self.environment


@pytest.fixture
def installed(cache: Path, worker_id: str, installation: Path) -> Iterator[Service]:
    with _Installed(cache, ports_of_worker(worker_id, 1), installation) as service:
        yield service


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "src" / "openrdb"
    files = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if name.startswith("openrdb/")} == files
    assert {"openrdb/py.typed", "openrdb/catalog/bundles.toml"} <= names


def test_commands_work_from_the_wheel(installed: Service, installation: Path) -> None:
    where = "import openrdb; print(openrdb.__file__)"
    assert _run(installation / "bin" / "python", "-c", where).startswith(str(installation))
    assert installed.run("--version").stdout.startswith("openrdb ")
    engines = installed.run("engines", "list")
    assert "PostgreSQL-17" in engines.stdout, engines.stderr
    doctor = installed.run("doctor", "--data-dir", str(installed.data_dir))
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    installed.environment["_OPENRDB_COMPLETE"] = (
        "source_bash"  # what a shell's start file evaluates
    )
    assert "complete -o default -F" in installed.run().stdout
    del installed.environment["_OPENRDB_COMPLETE"]


def test_the_wheel_serves(installed: Service, installation: Path) -> None:
    installed.start()
    assert installed.request("GET", "//metrics").status_code == 200
    python = str(installation / "bin")
    agents = installed.commands("openrdb.agent")
    assert agents
    assert all(agent.startswith(python) for agent in agents)
