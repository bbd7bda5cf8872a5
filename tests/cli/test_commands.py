"""The command line: what it prints, its exit codes, and one clear line for each obstacle."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.support.service import Service, unprivileged


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A refusal: exit code 1 and a line of explanation, no traceback."""
    assert done.returncode == 1, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("openrdb: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    "command",
    [
        *([], ["serve"], ["stop"], ["env"], ["doctor"], ["demo"], ["engines", "install"]),
        *(["list"], ["status"], ["connect"], ["undelete"]),
    ],
)
def test_help(service: Service, command: list[str]) -> None:
    done = service.run(*command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_wrong_usage_is_2(service: Service) -> None:
    assert service.run("serve", "--nonsense").returncode == 2


def test_env_can_be_evaluated(service: Service) -> None:
    done = service.run("env", "--data-dir", str(service.data_dir))
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(word[0] == "export" and len(word) == 2 for word in lines)
    names = [word[1].split("=")[0] for word in lines]
    assert names == [
        "SCW_ACCESS_KEY",
        "SCW_SECRET_KEY",
        "SCW_DEFAULT_PROJECT_ID",
        "SCW_DEFAULT_ORGANIZATION_ID",
        "SCW_DEFAULT_REGION",
        "SCW_DEFAULT_ZONE",
        "SCW_API_URL",
    ]


def test_the_banner_names_the_next_command(service: Service) -> None:
    banner = (service.home / "serve.log").read_text()
    assert "OpenRDB" in banner
    assert "env --data-dir" in banner


def test_engines_list(service: Service) -> None:
    done = service.run("engines", "list")
    assert done.returncode == 0
    for major in range(11, 19):
        assert f"PostgreSQL-{major}" in done.stdout


def test_engines_list_says_what_is_installed(cache: Path, service: Service) -> None:
    listed = json.loads(service.run("engines", "list", "--json").stdout)
    found = {one["installed"]: one for one in listed if one["installed"]}
    for version, bundle in Bundles(cache).installed().items():
        one = found[bundle.name]
        assert (one["version"], one["is_used"]) == (version, True)
        assert one["size_mb"] > 10
        has_postgis = version.startswith("PostgreSQL") and one["build"] == "debian"
        assert ("postgis" in one["extensions"]) == has_postgis


def test_doctor_is_content(service: Service) -> None:
    done = service.run("doctor", "--data-dir", str(service.home / "new"))
    assert done.returncode == 0, done.stdout
    assert "HAProxy" in done.stdout
    assert "PostgreSQL-17" in done.stdout


@pytest.mark.parametrize(("version", "asking"), [("PostgreSQL-17", "-Atc"), ("MySQL-9", "-Ne")])
def test_demo(cache: Path, service: Service, version: str, asking: str) -> None:
    """The line that it prints connects, in any shell."""
    if version not in Bundles(cache).installed():
        pytest.skip(f"{version} is not installed")
    done = service.run("demo", "--data-dir", str(service.data_dir), "--engine", version)
    assert done.returncode == 0, done.stderr
    assert f"hello from OpenRDB: {version.replace('-', ' ')}" in done.stdout
    took = re.search(r"was ready after (\d+\.\d+) s", done.stdout)
    assert took is not None
    line = next(text for text in done.stdout.splitlines() if " connect demo-" in text)
    variable, program, *words = shlex.split(line)
    assert Path(program).name == "__main__.py"  # as the tests run it
    name, _, password = variable.partition("=")
    command, environment = service.command(*words, "--", asking, "SELECT text FROM greeting")
    asked = subprocess.run(
        command, env=environment | {name: password}, capture_output=True, text=True, check=False
    )
    assert asked.stdout == "hello from OpenRDB\n", asked.stderr
    assert not list(service.data_dir.glob("*.pem"))


def test_env_before_serve(service: Service) -> None:
    one_line(service.run("env", "--data-dir", str(service.home / "none")), "no credentials")


def test_stop_of_nothing(service: Service) -> None:
    one_line(service.run("stop", "--data-dir", str(service.home / "none")), "no data directory")


def test_port_in_use(service: Service) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        directory = str(service.home / "other")
        done = service.run("serve", "--data-dir", directory, "--listen", address)
    one_line(done, address, "address already in use")


def test_directory_not_writable(service: Service) -> None:
    done = service.run("serve", "--data-dir", "/usr/openrdb", "--listen", "127.0.0.1:0")
    one_line(done, "/usr/openrdb", "permission denied")


def test_path_too_long(service: Service) -> None:
    directory = service.home / ("x" * 80)
    one_line(service.run("serve", "--data-dir", str(directory)), "characters")


def test_path_with_signs(service: Service) -> None:
    one_line(service.run("serve", "--data-dir", str(service.home / 'a "b"')), "letters, digits")


def test_wrong_configuration(service: Service) -> None:
    one_line(service.run("serve", "--listen", "nowhere"), "listen")
    service.environment["OPENRDB_HOLD"] = "soon"
    try:
        one_line(service.run("serve"), "hold")
    finally:
        del service.environment["OPENRDB_HOLD"]


def test_no_network(service: Service, short_tmp: Path) -> None:
    short_tmp.chmod(0o777)
    command, environment = service.command("engines", "install", "PostgreSQL-16")
    nowhere = {
        "OPENRDB_CACHE": str(short_tmp / "cache"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    done = subprocess.run(
        command, env=environment | nowhere, capture_output=True, text=True, check=False
    )
    one_line(done, "PostgreSQL-16")


def serve_in_namespace(service: Service, directory: Path, mount: str) -> Any:
    """`openrdb serve`, without root, where something else is mounted."""
    assert unprivileged()
    command, environment = service.command("serve", "--data-dir", str(directory / "d"))
    environment["OPENRDB_CACHE"] = str(directory / "cache")
    script = f"{mount} && exec {shlex.join(command)} --listen 127.0.0.1:0"
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.root
def test_no_disk(service: Service, short_tmp: Path) -> None:
    mount = f"mount -t tmpfs -o size=2m,mode=777 none {short_tmp}"
    one_line(serve_in_namespace(service, short_tmp, mount), "no space left")


@pytest.mark.root
def test_missing_bundles(service: Service, short_tmp: Path) -> None:
    short_tmp.chmod(0o777)
    system = Path("/usr/lib/postgresql")
    mount = f"mount -t tmpfs none {system}" if system.exists() else "true"
    one_line(serve_in_namespace(service, short_tmp, mount), "openrdb engines install")


INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "openrdb.cli.serve":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from openrdb.cli import main
main()
"""


def test_ctrl_c_while_it_is_loaded() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
