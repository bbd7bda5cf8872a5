"""What this deployment can really run, out of what the catalogue knows."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.catalog.engines import EngineVersion, as_run, engine_version, engine_versions


@dataclass(frozen=True)
class Offer:
    """An engine version with the minor version of its installed binaries."""

    version: EngineVersion
    minor: str


@dataclass(frozen=True)
class Offers:
    """`installed`: minor version by version name."""

    installed: dict[str, str]
    allow_disabled: bool

    def find(self, name: str) -> Offer | None:
        """Return a version that can be created now; in any case, which clients do not heed."""
        version = engine_version(name)
        if version is None or version.name not in self.installed:
            return None
        minor = self.installed[version.name]
        offer = Offer(as_run(version, minor), minor)
        return offer if self.allow_disabled or not version.disabled else None

    def listed(self) -> list[EngineVersion]:
        """Return all that is to be shown: what runs here, and what is past its end of life, as such."""
        return [
            as_run(version, self.installed.get(version.name, version.version))
            for version in engine_versions()
            if version.name in self.installed or version.disabled
        ]


def major(version: EngineVersion) -> tuple[int, ...]:
    """Return a version as numbers, for ordering: (17,) of 17, (9, 6) of 9.6."""
    return tuple(int(part) for part in version.version.split("."))
