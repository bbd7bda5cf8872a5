"""Extensions: what a PostgreSQL bundle is given beyond its download (docs/extensions.md).

An instance's administrator is no superuser. He can create an extension only where its control file
says `trusted`: then the server runs its script as the superuser, on their behalf.
"""

from __future__ import annotations

import shutil
import tomllib
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path, PurePosixPath

from openrdb.host.bundles.downloads import Package

_CATALOG = resources.files("openrdb.catalog")
_EXTENSIONS = Path("share", "extension")
_CPU = Path("/proc/cpuinfo")
_FIRST_MAJOR = 14
"""12 knows no trusted extensions, 13 no functions in standard SQL, as our script's are."""


@dataclass(frozen=True, kw_only=True)
class Graft(Package):
    """An extension that another wheel has been built with, for the same major version."""

    extension: str
    files: tuple[str, ...]
    """Patterns of what is taken from the wheel: libraries, and what belongs next to control files."""
    cpu_flags: tuple[str, ...] = ()
    """What the wheel's library needs of the processor, as the kernel calls it."""

    def runs_here(self) -> bool:
        """Return whether the processor has what the library was compiled for."""
        lines = _CPU.read_text().splitlines()
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        return set(self.cpu_flags) <= set(flags)


def graft(graft: Graft, wheel: Path, root: Path) -> None:
    """Copy an extension's files from a wheel into a bundle."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if any(fnmatchcase(name, pattern) for pattern in graft.files):
                file_name = PurePosixPath(name).name
                directory = root / ("lib" if file_name.endswith(".so") else _EXTENSIONS)
                with archive.open(name) as content, (directory / file_name).open("xb") as file:
                    shutil.copyfileobj(content, file)


def complete(root: Path, major: int) -> None:
    """Make a bundle's safe extensions creatable, and uuid-ossp work without its library."""
    if major < _FIRST_MAJOR:
        return
    directory = root / _EXTENSIONS
    for name in tomllib.loads((_CATALOG / "extensions.toml").read_text())["trusted"]:
        control = directory / f"{name}.control"
        if control.exists():
            with control.open("a") as file:
                file.write("\ntrusted = true\n")
    script = directory / "uuid-ossp--1.1.sql"
    if script.exists():
        script.write_text((_CATALOG / script.name).read_text())
        (root / "lib" / "uuid-ossp.so").unlink(missing_ok=True)
