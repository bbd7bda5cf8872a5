"""Fetching packages by the registries' ordinary clients: the user's proxies and mirrors count."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from openrdb.errors import HostError


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of a registry, pinned."""

    source: Literal["pypi", "npm", "maven"]
    package: str
    package_version: str
    digest: str
    """Of the download: "sha256:<hexadecimal>", "sha512:<hexadecimal>"."""
    size: int
    """Of the download, in bytes."""


class Progress(Protocol):
    """Told how much of a download is there, both in bytes."""

    def __call__(self, done: int, total: int, /) -> None: ...


def fetch(title: str, package: Package, directory: Path, progress: Progress) -> Path:
    """Download a package into an empty directory; the path of a file whose digest is right.

    HostError, beginning with the title, if it cannot be fetched.
    """
    client = {"pypi": _fetch_wheel, "npm": _fetch_archive, "maven": _fetch_jar}[package.source]
    progress(0, package.size)
    client(title, package, directory, progress)
    suffix = {"pypi": "*.whl", "npm": "*.tgz", "maven": "*.jar"}[package.source]
    download = next(directory.glob(suffix))
    _check_digest(title, package, download)
    progress(package.size, package.size)
    return download


@contextlib.contextmanager
def fetched(
    title: str, package: Package, place: Path, progress: Progress, before: int, total: int
) -> Iterator[Path]:
    """Yield a package's file for a while; its progress is shown as a part of all that is fetched."""

    def part(done: int, _: int) -> None:
        progress(before + done, total)

    with tempfile.TemporaryDirectory(dir=place) as directory:
        yield fetch(title, package, Path(directory), part)


def _fetch_wheel(title: str, package: Package, directory: Path, progress: Progress) -> None:
    requirements = directory / "requirements.txt"
    requirements.write_text(
        f"{package.package}=={package.package_version} --hash={package.digest}\n"
    )
    # The wheels are data: they say Python 3.12, but hold no Python worth running.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version=3.12", "--require-hashes", f"--requirement={requirements}"]
    command += [f"--dest={directory}", "--disable-pip-version-check", "--retries=2"]
    run_client(title, [*command, "--progress-bar=raw"], _pip_progress(progress))


def _fetch_archive(title: str, package: Package, directory: Path, progress: Progress) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise HostError(f"{title} is fetched by npm, which this host lacks")
    command = [npm, "pack", f"{package.package}@{package.package_version}", "--ignore-scripts"]
    run_client(title, [*command, f"--pack-destination={directory}"], _pip_progress(progress))


def _fetch_jar(title: str, package: Package, directory: Path, progress: Progress) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise HostError(f"{title} is fetched by mvn, which this host lacks")
    artifact = f"{package.package}:{package.package_version}"
    command = [maven, "--batch-mode", "--quiet", "dependency:copy", f"-Dartifact={artifact}"]
    # What it needs for itself goes into a repository that is thrown away with the directory.
    command += [f"-DoutputDirectory={directory}", f"-Dmaven.repo.local={directory / 'repository'}"]
    run_client(title, command, _pip_progress(progress))


def _pip_progress(progress: Progress) -> Callable[[str], bool]:
    def is_progress(line: str) -> bool:
        match = re.fullmatch(r"Progress (\d+) of (\d+)\n", line)
        if match:
            progress(int(match[1]), int(match[2]))
        return bool(match)

    return is_progress


def run_client(title: str, command: list[str], is_progress: Callable[[str], bool]) -> None:
    """Run a registry's client; HostError with its own complaint when it fails.

    `is_progress` is shown each line that the client prints; the others are what it said.
    """
    client = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env=os.environ | {"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    with client:
        assert client.stdout is not None  # noqa: S101
        try:
            said = [line.rstrip() for line in client.stdout if not is_progress(line)]
        except BaseException:
            client.kill()
            raise
    if client.returncode != 0:
        raise HostError(f"{title} cannot be fetched: {_complaint(said)}")


_NO_NETWORK = re.compile(
    r"connection broken|ECONN|ENOTFOUND|EAI_AGAIN|ENETUNREACH|ETIMEDOUT"
    r"|Could not resolve|Temporary failure|Could not connect|Unknown host|Network is unreachable"
)
_COMPLAINT = re.compile(
    r"(?:ERROR:|\[ERROR\]|E:|npm (?:error|ERR!)(?: notarget| \d+)?) "
    r"(?!Exception:|code |syscall |errno )(.+)"
)


def _complaint(said: list[str]) -> str:
    """Return the line that tells most of what pip or npm printed."""
    if any(_NO_NETWORK.search(line) for line in said):
        return "the package registry cannot be reached"
    complaints = [match[1] for line in said if (match := _COMPLAINT.fullmatch(line))]
    last_line = [line for line in said if line][-1:]
    return next(iter(complaints + last_line), "its client says nothing")


def _check_digest(title: str, package: Package, download: Path) -> None:
    algorithm, _, promised = package.digest.partition(":")
    with download.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != promised:
        raise HostError(f"{title}: the download's {algorithm} is not the pinned one")
