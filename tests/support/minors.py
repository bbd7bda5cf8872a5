"""A cache of bundles in which newer minor versions of engines can be installed, and removed again.

All are links to the tests' own: the older one is the same binaries by the name of an earlier version.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from openrdb.host.bundles.cache import Bundles
from openrdb.system.bundle import Bundle
from tests.support.service import Service

VERSIONS = ("PostgreSQL-14", "PostgreSQL-17", "PostgreSQL-18", "MySQL-9")
_SERVERS = {"PostgreSQL": "postgres", "MySQL": "mysqld"}


def older(bundle: Bundle) -> str:
    """Return a name of the same build for an earlier minor version."""
    major, _, minor = bundle.version.rpartition(".")
    return bundle.name.replace(f"{major}.{minor}", f"{major}.1", 1)


class Minors:
    """The cache of a service's next `serve`, which has the older binaries at first."""

    _made: ClassVar[dict[Path, Minors]] = {}

    def __init__(self, service: Service, cache: Path) -> None:
        self.place = service.home / "cache"
        self.place.mkdir(mode=0o777)
        self.place.chmod(0o777)  # which is written to by whoever serves
        bundles = Bundles(cache)
        self.newest = bundles.installed()
        # Not what an earlier installation left there: it would be newer than the older ones here.
        for bundle in (*self.newest.values(), bundles.haproxy()):
            if bundle.path.parent == cache:
                (self.place / bundle.name).symlink_to(bundle.path)
        for engine in VERSIONS:
            if newest := self.newest.get(engine):
                (self.place / older(newest)).symlink_to(newest.path)
                self.remove(engine)
        service.environment["OPENRDB_CACHE"] = str(self.place)
        self._made[service.home] = self

    def install(self, engine: str) -> Bundle:
        """Install the newer binaries of an engine; a no-op if they are there."""
        newest = self.newest[engine]
        path = self.place / newest.name
        if not path.exists():
            path.symlink_to(newest.path)
        return newest

    @classmethod
    def of(cls, service: Service) -> Minors:
        """Return what was made for a service."""
        return cls._made[service.home]

    def install_broken(self, engine: str) -> Bundle:
        """Install newer binaries whose server does not start."""
        newest = self.newest[engine]
        partial, path = self.place / ".broken", self.place / newest.name
        (partial / "bin").mkdir(parents=True)
        for entry in newest.path.iterdir():
            if entry.name != "bin":
                (partial / entry.name).symlink_to(entry)
        server = _SERVERS[engine.partition("-")[0]]
        for program in (newest.path / "bin").iterdir():
            if program.name != server:
                (partial / "bin" / program.name).symlink_to(program)
        broken = partial / "bin" / server
        broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
        broken.chmod(0o755)
        partial.rename(path)
        return newest

    def remove(self, engine: str) -> None:
        """Remove the newer binaries; a no-op if they are not there."""
        path = self.place / self.newest[engine].name
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
