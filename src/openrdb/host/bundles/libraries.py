"""The libraries that a bundle needs in addition to its download.

PyPI's builds of PostgreSQL take some libraries from the system, and a bare system lacks them. Where
the host has apt they come from its own distribution, by its own sources, and so fit its C library;
nothing is installed into the system. They are kept for a day next to the bundles, for the other
versions that are installed with this one, and linked into each bundle.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from openrdb.errors import HostError
from openrdb.host.bundles import debian, elf
from openrdb.host.bundles.downloads import Progress
from openrdb.system.bundle import LISTING

ZONES = Path("/usr/share/zoneinfo")
"""Where PyPI's builds read time zones; the path is compiled in."""
_SIZE = 25_000_000
"""About the bytes that are downloaded: the lists of packages, and the packages."""

_GLIBC = re.compile(r"(?:ld-linux.*|lib(?:c|m|dl|pthread|rt|util|resolv))\.so\.\d+")
"""What comes with the C library, which each host has."""
_WITHOUT = ("libc6", "debconf", "openssl-provider-legacy", "readline-common")
"""What the packages depend on, and libraries alone can do without."""
_FRESH = 24 * 3600


def why_not(libraries: Mapping[str, str]) -> str | None:
    """Return what this host lacks for a build that needs these libraries; None: nothing.

    Args:
        libraries: names of libraries, and of Debian's packages that hold them.
    """
    if not libraries:
        return None  # without asking apt
    lacks = []
    if not debian.has_sources():
        lacks = [f"the library {name}" for name in _not_on_this_host(libraries)]
    if not ZONES.is_dir():
        lacks.append(f"time zones in {ZONES} (the package tzdata)")
    return f"this host lacks {', '.join(lacks)}" if lacks else None


def to_fetch(libraries: Mapping[str, str], kept: Path) -> int:
    """Return about how many bytes `fetch` downloads; 0: nothing is to be fetched.

    That is so where they are kept already, and where there is no apt: then the host's are used.
    """
    return 0 if not libraries or _is_fresh(kept) or not debian.has_sources() else _SIZE


def fetch(title: str, libraries: Mapping[str, str], kept: Path, progress: Progress) -> None:
    """Fetch libraries into a directory, where they stay for other bundles.

    Where apt cannot fetch them, the host's own libraries are used.

    Raises:
        HostError: neither can a library be fetched nor does the host have it.
    """
    try:
        with _lock(kept):
            if not _is_fresh(kept):
                _fetch(title, libraries.values(), kept, progress)
    except HostError as error:
        if lacking := _not_on_this_host(libraries):
            raise HostError(f"{error} (this host lacks {', '.join(lacking)})") from error
    progress(_SIZE, _SIZE)


def add(bundle: Path, kept: Path) -> None:
    """Link the fetched libraries that a bundle's files need into it, and let them be found there."""
    with _lock(kept):
        while found := [name for name in unresolved(bundle) if (kept / name).exists()]:
            for name in found:
                _link_or_copy((kept / name).resolve(), bundle / "lib" / name)
        listing = kept / LISTING
        (bundle / LISTING).write_text(listing.read_text() if listing.exists() else "")
    for path in elf.files(bundle / "bin"):
        elf.search_in(path, "$ORIGIN/../lib")
    for path in elf.files(bundle / "lib"):
        elf.search_in(path, "$ORIGIN")


def unresolved(bundle: Path) -> list[str]:
    """Return the libraries that a bundle's files need and neither it nor the C library has."""
    names = {name for path in elf.files(bundle) for name in elf.needed(path)}
    return sorted(
        name
        for name in names
        if not _GLIBC.fullmatch(name) and not (bundle / "lib" / name).exists()
    )


@contextlib.contextmanager
def _lock(kept: Path) -> Iterator[None]:
    with kept.with_name(f"{kept.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _not_on_this_host(libraries: Iterable[str]) -> list[str]:
    return [name for name in libraries if not _loads(name)]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _is_fresh(kept: Path) -> bool:
    listing = kept / LISTING
    return listing.exists() and time.time() - listing.stat().st_mtime < _FRESH


def _fetch(title: str, packages: Iterable[str], kept: Path, progress: Progress) -> None:
    """Put the libraries of packages, and of those that they depend on, into a new directory."""
    place = kept.with_name(f"{kept.name}.partial")
    shutil.rmtree(place, ignore_errors=True)  # what an interrupted one left
    made = place / "made"
    made.mkdir(parents=True)
    try:
        fetched = debian.fetch(
            title,
            sorted(set(packages)),
            place,
            without=_WITHOUT,
            source=None,
            size=_SIZE,
            progress=progress,
        )
        for package in fetched:
            debian.unpack(title, package, place / "root")
        for path in (place / "root").glob("**/*-linux-gnu/*.so.*"):
            if not path.is_dir():
                path.rename(made / path.name)
        (made / LISTING).write_text("".join(f"{package.name}\n" for package in fetched))
        shutil.rmtree(kept, ignore_errors=True)
        made.rename(kept)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy(source, target)
