"""Debian's packages, fetched by apt-get without root and without touching the system's own.

apt has sources, lists and a cache of its own in a directory that is thrown away. It resolves the
dependencies and verifies the signatures as ever. Versions are not pinned: Debian's mirrors keep the
newest only.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from openrdb.errors import HostError
from openrdb.host.bundles import downloads
from openrdb.host.bundles.downloads import Progress

_SECURITY = "-security"
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
_LISTS_SHARE = 0.2
"""How much of what is fetched are the lists of packages."""

_OWN_SOURCES = """\
Dir::Etc::sourcelist "{place}/sources.list";
Dir::Etc::sourceparts "-";
"""
_CONFIGURATION = """\
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "{place}/state";
Dir::State::status "{place}/status";
Dir::Cache "{place}/cache";
Dir::Cache::archives "{place}/cache/archives";
APT::Sandbox::User "";
APT::Install-Recommends "false";
APT::Status-Fd "1";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"""
_INSTALLED = """\
Package: {name}
Status: install ok installed
Architecture: all
Multi-Arch: allowed
Version: 999:999
Description: taken for installed

"""
_PROGRESS = re.compile(r"dlstatus:\d+:(\d+(?:\.\d+)?):")
_NO_PROGRESS = re.compile(r"(?:Get|Hit|Ign):\d+ |pmstatus:")


def has_sources() -> bool:
    """Return whether this host has apt, with a distribution's packages to fetch from."""
    return all(map(shutil.which, ("apt-get", "dpkg-deb"))) and bool(_package_lists())


def why_not(mirror: str | None) -> str | None:
    """Return what this host must have before packages of Debian's can be fetched; None: it has it."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "it comes from Debian's packages, and this host has no apt"
    if _keyring() is None:
        return "it comes from Debian's packages: apt-get install debian-archive-keyring"
    if mirror is None and _own_mirror() is None:
        return (
            "it comes from Debian's packages, of which this host's apt has no mirror: "
            "name one with OPENRDB_DEBIAN_MIRROR"
        )
    return None


def fetch(
    title: str,
    packages: Sequence[str],
    place: Path,
    *,
    without: Sequence[str],
    source: str | None,
    size: int,
    progress: Progress,
) -> list[Path]:
    """Download packages and what they depend on, into a directory; return their files.

    Args:
        without: packages that are taken for installed.
        source: a line of a `sources.list`; None: the host's own sources, any of which may fail.
        size: about how many bytes are downloaded.

    Raises:
        HostError: the packages cannot be fetched; the message begins with the title.
    """
    configuration = _CONFIGURATION
    if source is not None:
        configuration += _OWN_SOURCES
        (place / "sources.list").write_text(source)
    (place / "status").write_text("".join(_INSTALLED.format(name=name) for name in without))
    (place / "apt.conf").write_text(configuration.format(place=place))
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (place / directory).mkdir(parents=True)
    apt = ["apt-get", "-c", str(place / "apt.conf"), "--quiet"]
    lists = int(size * _LISTS_SHARE)
    update = [*apt, "update", "--error-on=any"]
    install = [*apt, "install", "--yes", "--download-only", *packages]
    failed = None
    try:
        _run(title, update, progress, 0, lists, size)
    except HostError as error:
        if source is not None:
            raise
        failed = error  # one of the host's sources, which may have nothing that is wanted
    try:
        _run(title, install, progress, lists, size, size)
    except HostError as error:
        raise failed or error from None
    progress(size, size)
    return sorted((place / "cache" / "archives").glob("*.deb"))


def unpack(title: str, package: Path, target: Path) -> None:
    """Unpack a package's files; HostError when it is damaged."""
    command = ["dpkg-deb", "--extract", str(package), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostError(f"{title}: {package.name} cannot be unpacked: {done.stderr.strip()}")


def sources(title: str, mirror: str | None, suites: Sequence[str]) -> str:
    """Return the lines of a `sources.list` for some of Debian's suites.

    Suites that end with "-security" are in a directory next to the mirror's, as Debian has them.

    Raises:
        HostError: the host lacks apt, Debian's keys or a mirror.
    """
    if missing := why_not(mirror):
        raise HostError(f"{title} cannot be fetched: {missing}")
    place = (mirror or _own_mirror() or "").rstrip("/")
    return "".join(
        _line(f"{place}{_SECURITY if suite.endswith(_SECURITY) else ''}", suite) for suite in suites
    )


def _line(mirror: str, suite: str) -> str:
    return f"deb [signed-by={_keyring()}] {mirror} {suite} main\n"


def _keyring() -> Path | None:
    return next(filter(Path.exists, _KEYRINGS), None)


def _own_mirror() -> str | None:
    """Return the mirror of Debian that the host's own apt uses."""
    return next((uri for uri in _package_lists() if uri.rstrip("/").endswith("/debian")), None)


def _package_lists() -> list[str]:
    """Return the URLs of the repositories that the host's own apt uses."""
    command = [
        "apt-get",
        "indextargets",
        "--no-release-info",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def _run(
    title: str, command: list[str], progress: Progress, first: int, last: int, total: int
) -> None:
    """Run apt-get; its progress is that from `first` to `last` bytes of `total`."""

    def is_progress(line: str) -> bool:
        if match := _PROGRESS.match(line):
            progress(first + int((last - first) * float(match[1]) / 100), total)
        return bool(match or _NO_PROGRESS.match(line))

    progress(first, total)
    downloads.run_client(title, command, is_progress)
