"""A bundle: one installed engine version's binaries, and trying whether they run here."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from openrdb.errors import HostError

LOCALES = "locales"
"""In bundles with a C library of their own: the locales that it knows."""
LISTING = "libraries.txt"
"""In bundles whose programs find the libraries of the bundle by themselves: a line for each package
that libraries were taken from, as `name_version_architecture.deb`."""


@dataclass(frozen=True)
class Bundle:
    """One installed engine version's binaries."""

    name: str
    """Of this very build: "postgresql-17.11.0-r2", "mysql-9.7.4", "system-postgresql-15"."""
    version: str
    """The engine's own minor version: "17.11", "9.7.4"."""
    path: Path

    def program(self, name: str) -> Path:
        """Return the path of a program; HostError if the bundle lacks it (11-13 have only a server)."""
        if found := self._program(name):
            return found
        raise HostError(f"{self.name} has no program {name}")

    def has_program(self, name: str) -> bool:
        return self._program(name) is not None

    def _program(self, name: str) -> Path | None:
        places = (self.path / directory / name for directory in ("bin", "sbin"))
        return next(filter(Path.is_file, places), None)

    def command(self, name: str) -> list[str]:
        """Return the argument vector that runs a program, by the bundle's own loader if it has one.

        Named in full at each run, so that a bundle works wherever it is copied to.
        """
        program = str(self.program(name))
        if loader := self._loader():
            options = ["--library-path", str(self._libraries), "--argv0", program]
            return [str(loader), *options, program]
        return [program]

    @property
    def environment(self) -> dict[str, str]:
        """What the programs need in their environment.

        Bundles of earlier revisions and of npm packages have modules that do not find the libraries
        beside them.
        """
        locales = self.path / LOCALES
        if locales.is_dir():
            return {"LOCPATH": str(locales)}
        found = self._loader() is not None or (self.path / LISTING).exists()
        own = not found and any(self._libraries.glob("lib*.so.*"))
        return {"LD_LIBRARY_PATH": str(self._libraries)} if own else {}

    @property
    def modules(self) -> Path:
        """The directory of PostgreSQL's modules."""
        return next(self.path.glob("lib/postgresql/*/lib"), self._libraries)

    @property
    def share(self) -> Path:
        """The directory of PostgreSQL's files that are no programs."""
        return next(self.path.glob("share/postgresql/*"), self.path / "share")

    @property
    def _libraries(self) -> Path:
        return self.path / "lib"

    def _loader(self) -> Path | None:
        """Return the loader of a bundle whose programs do not name it themselves."""
        if (self.path / "libexec").is_dir():
            return None
        return next(self._libraries.glob("ld-linux*.so.*"), None)


def open_to_all(root: Path) -> None:
    """Let every account read and run a tree, whatever the umask: engines have their own uids."""
    root.chmod(0o755)
    for directory, _, names in os.walk(root):
        Path(directory).chmod(0o755)
        for path in (Path(directory, name) for name in names):
            if not path.is_symlink():
                runs = path.parent.name == "bin" or path.stat().st_mode & 0o100
                path.chmod(0o755 if runs else 0o644)


def version_line(command: list[str], environment: dict[str, str]) -> str:
    """Return the first line of what a program says of its version; HostError if it does not run."""
    name = Path(command[-2]).name
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=os.environ | environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{name} does not run on this host: {error}") from error
    if done.returncode != 0:
        raise HostError(_why_not(name, done.stderr))
    return done.stdout.partition("\n")[0]


def _why_not(program: str, stderr: str) -> str:
    match = re.search(r"error while loading shared libraries: (\S+?):", stderr)
    if match is None:
        return f"{program} does not run on this host: {stderr.strip().rpartition(chr(10))[2]}"
    return f"{program} needs the library {match[1]}, which this host lacks"
