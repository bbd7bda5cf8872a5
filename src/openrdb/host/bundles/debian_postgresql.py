"""PostgreSQL of Debian's own packages, with its extensions, ICU and locales.

What is taken of the packages is self-contained: it brings the C library with its loader, and finds
everything relative to the bundle. PostgreSQL's programs run each other from the directory that they
are in, so each is a script there that runs the real one by the loader:

    bin -> lib/postgresql/17/bin        scripts
    lib/                                libraries, and the loader
    lib/postgresql/17/lib               the server's modules
    libexec/                            programs
    locales/                            of the C library, all those in UTF-8
    share/postgresql/17, share/proj
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from openrdb.errors import HostError
from openrdb.host.bundles import debian, elf, extensions, libraries
from openrdb.host.bundles.downloads import Progress, fetched
from openrdb.host.bundles.extensions import Graft
from openrdb.system.bundle import LISTING, LOCALES, Bundle, open_to_all, version_line

_LOADER = "ld-linux-x86-64.so.2"
# The titles of processes have the room of the first argument: the longer the better.
_SCRIPT = """\
#!/bin/sh
b=${0%/*}/..
exec "$b/../../LOADER" --library-path "$b/../.." --argv0 "$b/bin/../bin/../bin/NAME" \\
  "$b/../../../libexec/NAME" "$@"
"""
_LEFT_OUT = ("llvmjit*", "bitcode", "pgxs", "postgis_raster*", "*plpython*", "*plperl*")
"""Of the modules: a compiler that needs a library of 100 MB, and what needs GDAL, which opens files and
the network; languages without limits."""
_EXTENSIONS_LEFT_OUT = ("postgis_raster*", "h3_postgis*")
_SHARED_LEFT_OUT = ("contrib", "man")


@dataclass(frozen=True, kw_only=True)
class DebianRelease:
    """Packages of some of Debian's suites. Mirrors keep the newest of each, so they are not pinned:
    `libraries.txt` of a bundle says what it was made of."""

    version_name: str
    version: str
    suites: tuple[str, ...]
    """The names of suites; those of security updates end with "-security"."""
    size: int
    """About the bytes of all downloads, grafts left out."""
    extensions: tuple[str, ...]
    """Packages, without "postgresql-17-" before their names."""
    without: tuple[str, ...]
    """Packages that are taken for installed."""
    revision: int
    grafts: tuple[Graft, ...]
    default: bool = True
    source: str = "debian"
    build: str = "debian"

    @classmethod
    def of(
        cls, table: dict[str, Any], common: dict[str, Any], grafts: tuple[Graft, ...]
    ) -> DebianRelease:
        """Read a table of `bundles.toml`.

        Args:
            table: `[[debian.postgresql]]`.
            common: `[debian]`, what all of them have.
            grafts: those of the wheel of the same version.
        """
        lists = {name: tuple(table[name]) for name in ("suites", "extensions")}
        return cls(**table | lists, without=tuple(common["without"]), grafts=grafts)

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]

    def why_not(self, mirror: str | None) -> str | None:
        if not libraries.ZONES.is_dir():
            return f"this host lacks time zones in {libraries.ZONES} (the package tzdata)"
        return debian.why_not(mirror)

    def made(self, name: str) -> bool:
        return name.startswith(f"postgresql-{self.major}.") and name.endswith(self._suffix)

    def make(self, target: Path, mirror: str | None, progress: Progress) -> tuple[str, str]:
        grafts = [graft for graft in self.grafts if graft.runs_here()]
        total = self.size + sum(graft.size for graft in grafts)
        with tempfile.TemporaryDirectory(dir=target) as directory:
            place = Path(directory)
            packages = self._fetch(place, mirror, lambda done, _: progress(done, total))
            (target / LISTING).write_text("".join(f"{package.name}\n" for package in packages))
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                unpacked = partial(debian.unpack, self.version_name, target=place / "root")
                list(pool.map(unpacked, packages))
            tree = _Tree(place / "root", target, self.major)
            tree.move()
        before = self.size
        for graft in grafts:
            title = f"{graft.extension} for {self.version_name}"
            with fetched(title, graft, target, progress, before, total) as download:
                extensions.graft(graft, download, tree.modules, tree.extensions)
            before += graft.size
        extensions.complete(tree.extensions, tree.modules, int(self.major))
        open_to_all(target)
        version = _checked_version(self, target)
        return f"postgresql-{version}{self._suffix}", version

    @property
    def _suffix(self) -> str:
        return f"-debian-r{self.revision}"

    def _fetch(self, place: Path, mirror: str | None, progress: Progress) -> list[Path]:
        server = f"postgresql-{self.major}"
        names = [server, *(f"{server}-{name}" for name in self.extensions)]
        return debian.fetch(
            self.version_name,
            [*names, "locales-all", "libc-bin"],
            place,
            without=self.without,
            source=debian.sources(self.version_name, mirror, self.suites),
            size=self.size,
            progress=progress,
        )


class _Tree:
    """What is taken from unpacked packages, and where a bundle has it."""

    def __init__(self, root: Path, target: Path, major: str) -> None:
        self._root, self._source, self._target = root, root / "usr", target
        self._own = Path("lib", "postgresql", major)
        self._shared = Path("share", "postgresql", major)
        self.modules = target / self._own / "lib"
        self.extensions = target / self._shared / "extension"

    def move(self) -> None:
        for name in (self._own / "bin", self._own / "lib", self._shared, Path("share", "proj")):
            if (self._source / name).exists():
                (self._target / name).parent.mkdir(parents=True, exist_ok=True)
                (self._source / name).rename(self._target / name)
        _remove(self.modules, _LEFT_OUT)
        _remove(self.extensions, _EXTENSIONS_LEFT_OUT)
        _remove(self._target / self._shared, _SHARED_LEFT_OUT)
        for control in self.extensions.glob("*-3.control"):  # as Debian does when it installs them
            control.rename(control.with_name(control.name.replace("-3.", ".")))
        self._wrap_programs()
        self._move_libraries()
        self._move_locales()
        (self._target / "bin").symlink_to(self._own / "bin")

    def _move_locales(self) -> None:
        """Take the locales in UTF-8. What several have in common is one file, to which others link.

        The packages link them to each other as well, but also to those of encodings that are left out.
        """
        first = dict[Path, Path]()
        for locale in sorted(self._source.glob("lib/locale/*.utf8")):
            for path in filter(Path.is_file, locale.rglob("*")):
                made = self._target / LOCALES / path.relative_to(locale.parent)
                made.parent.mkdir(parents=True, exist_ok=True)
                if known := first.get(path.resolve()):
                    made.symlink_to(os.path.relpath(known, made.parent))
                else:
                    shutil.copyfile(path, made)
                    first[path.resolve()] = made
        if not (self._target / LOCALES / "C.utf8").is_dir():
            raise HostError("there are no locales in the packages")

    def _wrap_programs(self) -> None:
        programs = self._target / "libexec"
        programs.mkdir()
        for path in elf.files(self._target / self._own / "bin"):
            path.rename(programs / path.name)
            path.write_text(_SCRIPT.replace("LOADER", _LOADER).replace("NAME", path.name))

    def _move_libraries(self) -> None:
        """Move the libraries that programs and modules need, and those that these need."""
        found = {
            path.name: path
            for place in (self._root, self._source)  # which were not one until 13
            for path in place.glob("lib/*-linux-gnu/*.so*")
            if not path.is_dir()
        }
        wanted = {_LOADER}
        left = [*elf.files(self._target / "libexec"), *elf.files(self.modules)]
        while left:
            for name in set(elf.needed(left.pop())) - wanted:
                if name in found:
                    wanted.add(name)
                    left.append(found[name].resolve())
        for name in sorted(wanted):
            if name not in found:
                raise HostError(f"{name} is in none of the packages")
            shutil.copy2(found[name], self._target / "lib" / name)


def _remove(directory: Path, patterns: Iterable[str]) -> None:
    for path in [path for pattern in patterns for path in directory.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _checked_version(release: DebianRelease, path: Path) -> str:
    """Return the version of a new bundle's server; HostError unless its programs run here."""
    bundle = Bundle(release.version_name, release.version, path)
    for name in ("initdb", "pg_dump", "psql", "pg_upgrade"):  # they need different libraries
        version_line([str(bundle.program(name)), "--version"], bundle.environment)
    said = version_line([str(bundle.program("postgres")), "--version"], bundle.environment)
    version = said.partition("(PostgreSQL) ")[2].partition(" ")[0]
    if version.partition(".")[0] != release.major:
        raise HostError(f"{release.version_name} is not what it should be: {said}")
    return version
