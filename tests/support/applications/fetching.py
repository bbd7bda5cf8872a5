"""What applications consist of, fetched by pip, npm, Maven or apt into a cache that runs share.

Each set has a directory of its own, named after all that it was asked for, so another version is
another directory. Nothing is installed on the machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

_COMPLETE = ".complete"
_TIMEOUT = 1200
_NO_NETWORK = re.compile(
    "Temporary failure|Name or service not known|Network is unreachable|Could not resolve"
    "|Unknown host|UnknownHost|EAI_AGAIN|ENOTFOUND|ENETUNREACH|NewConnectionError"
)


class Needs(Protocol):
    """What is fetched: pinned versions of one registry's packages."""

    def fetch(self, place: Path) -> None: ...


class Unavailable(Exception):
    """The machine has not what fetching takes: a tool or the network."""


def cache() -> Path:
    return Path(os.environ.get("APPLICATIONS_CACHE", "~/.cache/openrdb-applications")).expanduser()


def fetched(needs: Needs) -> Path:
    """Return the directory of what is needed; skip the test where it cannot be fetched."""
    try:
        return fetch(needs)
    except Unavailable as error:
        pytest.skip(str(error))


def fetch(needs: Needs) -> Path:
    """Return the directory of what is needed, which is fetched unless an earlier run has done so.

    Raises:
        Unavailable: a tool or the network is not there.
    """
    kind = type(needs).__name__.lower()
    place = cache() / f"{kind}-{hashlib.sha256(repr(needs).encode()).hexdigest()[:12]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / _COMPLETE).exists():
            if not _has_network():
                raise Unavailable(f"{kind}: it is to be fetched, and there is no network")
            # Not renamed when it is whole: scripts of a virtual environment name their directory.
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            needs.fetch(place)
            (place / _COMPLETE).write_text(f"{needs}\n")
    return place


def _has_network() -> bool:
    """Return whether packets leave this machine: npm tries for many minutes where none do."""
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    return any(route.split()[1] == "00000000" for route in routes)


def _run(command: Sequence[str | Path], place: Path, **environment: str) -> None:
    program = Path(str(command[0])).name
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{program} is not installed")
    done = subprocess.run(
        command,
        cwd=place,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        if _NO_NETWORK.search(done.stdout):
            raise Unavailable(f"{program} cannot fetch it: no network")
        raise AssertionError(f"{program}: {done.stdout[-3000:]}")


@dataclass(frozen=True)
class PyPI:
    """Python packages, in a virtual environment."""

    requirements: tuple[str, ...]

    def fetch(self, place: Path) -> None:
        _run([sys.executable, "-m", "venv", "."], place)
        quiet = ("--quiet", "--disable-pip-version-check", "--retries=1", "--prefer-binary")
        _run([place / "bin/python", "-m", "pip", "install", *quiet, *self.requirements], place)


@dataclass(frozen=True)
class Npm:
    """Packages of npm, in `node_modules`."""

    packages: tuple[str, ...]

    def fetch(self, place: Path) -> None:
        (place / "package.json").write_text(json.dumps({"name": "application", "private": True}))
        quiet = ("--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error")
        _run(["npm", "install", "--ignore-scripts", *quiet, *self.packages], place)


_POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>application</groupId><artifactId>application</artifactId><version>1</version>
  <dependencies>{}</dependencies>
</project>
"""
_WITHOUT = (
    "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
)
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


@dataclass(frozen=True)
class Maven:
    """Artifacts `group:artifact:version[:type]` with what they depend on; archives unpacked."""

    artifacts: tuple[str, ...]

    def fetch(self, place: Path) -> None:
        found = [f"{one}:jar".split(":")[:4] for one in self.artifacts]
        (place / "pom.xml").write_text(
            _POM.format("".join(self._dependency(*one) for one in found))
        )
        _run(["mvn", "-q", "-B", f"{_PLUGIN}:copy-dependencies", "-DoutputDirectory=."], place)
        for archive in place.glob("*.zip"):
            shutil.unpack_archive(archive, place)
            archive.unlink()

    @staticmethod
    def _dependency(group: str, artifact: str, version: str, kind: str) -> str:
        parts = {"groupId": group, "artifactId": artifact, "version": version, "type": kind}
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in parts.items())
        # An archive has all that it depends on within it.
        return f"<dependency>{inner}{'' if kind == 'jar' else _WITHOUT}</dependency>"


@dataclass(frozen=True)
class Debian:
    """Packages of the machine's own Debian, unpacked; not what is installed there already.

    Its mirrors keep one version of each, so none is named.
    """

    packages: tuple[str, ...]

    def fetch(self, place: Path) -> None:
        if not list(Path("/var/lib/apt/lists").glob("*_Packages*")):
            raise Unavailable("apt has no lists of packages: apt-get update")
        archives = place / "archives"
        (archives / "partial").mkdir(parents=True)
        apt = (
            *("apt-get", "install", "--download-only", "--yes", "--no-install-recommends"),
            *("-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=true"),
            *("-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=1"),
        )
        _run([*apt, *self.packages], place, DEBIAN_FRONTEND="noninteractive")
        for package in sorted(archives.glob("*.deb")):
            _run(["dpkg-deb", "--extract", package, place], place)
        shutil.rmtree(archives)
        _within(place)


def _within(place: Path) -> None:
    """Let links of unpacked packages lead to what was unpacked, not to what is installed."""
    entries = [Path(top, name) for top, *names in os.walk(place) for name in (*names[0], *names[1])]
    for link in entries:
        if link.is_symlink() and (target := link.readlink()).is_absolute():
            unpacked = place / target.relative_to("/")
            if unpacked.exists() or unpacked.is_symlink():
                link.unlink()
                link.symlink_to(unpacked)
