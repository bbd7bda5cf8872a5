"""What this deployment can really run, out of what the catalogue knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from openrdb.catalog.engines import EngineVersion, as_run, engine_version, engine_versions

_VERSIONS: Final = UUID("5b0f0f6e-6b0e-4c5d-9a53-0d1c3f2d8a71")


@dataclass(frozen=True)
class Offer:
    """An engine version with the minor version of its installed binaries."""

    version: EngineVersion
    minor: str

    @property
    def id(self) -> UUID:
        """By which an upgrade names the version; the same in all deployments."""
        return uuid5(_VERSIONS, self.version.name)


@dataclass
class Offers:
    """What can be created and upgraded to, by what is installed at the moment."""

    installed: dict[str, str]
    """The minor version by version name; replaced as a whole when something else is installed."""
    allow_disabled: bool

    def find(self, name: str) -> Offer | None:
        """Return a version that can be created now; in any case, which clients do not heed."""
        version = engine_version(name)
        minor = self.installed.get(version.name) if version is not None else None
        if version is None or minor is None:
            return None
        offer = Offer(as_run(version, minor), minor)
        return offer if self.allow_disabled or not version.disabled else None

    def newer_minor(self, name: str, minor: str) -> str | None:
        """Return the minor version of the binaries that replace those an instance of a version runs;
        None where these are the newest.

        Also where none could be created: of a version past its end of life, or one that another
        version's binaries serve.
        """
        newest = self.installed.get(name, "")
        return newest if is_newer(newest, minor) else None

    def upgrades(self, name: str, minor: str, *, majors: bool) -> list[Offer]:
        """Return what an instance of a version, which runs a minor version, can be upgraded to, the
        oldest first: newer binaries of the same major version, and with `majors` the newer ones."""
        version, ours = engine_version(name), numbers(minor)
        if version is None or not ours:
            return []
        found = [(numbers(offer.minor), offer) for offer in self._of_engine(version.engine)]
        newer = [
            (newest, offer)
            for newest, offer in found
            if newest > ours and (offer.version.name == name if newest[:1] == ours[:1] else majors)
        ]
        return [offer for _, offer in sorted(newer, key=lambda one: one[0])]

    def _of_engine(self, engine: str) -> list[Offer]:
        """Return what can be created of an engine, and runs under its own name."""
        offers = [self.find(one.name) for one in engine_versions() if one.engine == engine]
        return [one for one in offers if one and numbers(one.minor)[:1] == major(one.version)[:1]]

    def listed(self) -> list[EngineVersion]:
        """Return all that is to be shown: what runs here, and what is past its end of life, as such."""
        return [
            as_run(version, self.installed.get(version.name, version.version))
            for version in engine_versions()
            if version.name in self.installed or version.disabled
        ]


def major(version: EngineVersion) -> tuple[int, ...]:
    """Return a version as numbers, for ordering: (17,) of 17, (9, 6) of 9.6."""
    return numbers(version.version)


def is_newer(version: str, than: str) -> bool:
    """Return whether a minor version is a newer one of the same major version."""
    ours, theirs = numbers(version), numbers(than)
    return ours[:1] == theirs[:1] and ours > theirs


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; none of one that is unknown."""
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(map(str.isdigit, parts)) else ()
