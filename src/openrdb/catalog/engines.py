"""Engine versions and their settings.

The data is one file an engine, each distinct definition of a setting once, with the versions it
holds for. They are the recorded ones; PostgreSQL 18's are 17's, checked against a running 18.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

_FILES = ("postgresql.json", "mysql.json")


@dataclass(frozen=True)
class EngineSetting:
    """A setting that a user may change, and what values it takes."""

    name: str
    default_value: str
    hot_configurable: bool
    """Changed without a restart."""
    description: str
    property_type: Literal["BOOLEAN", "INT", "STRING", "FLOAT"]
    """In capitals as recorded on the wire, and as the Go clients compare it."""
    unit: str | None = None
    """Of the value and the bounds: "ms", "kB", "MB", "B"; None: the engine's own."""
    string_constraint: str | None = None
    """A regular expression."""
    int_min: int | None = None
    int_max: int | None = None
    float_min: float | None = None
    float_max: float | None = None


@dataclass(frozen=True)
class EngineVersion:
    """An engine's major version: its name on the wire is "PostgreSQL-17"."""

    engine: str
    name: str
    version: str
    logo_url: str
    """An icon of ours within the URL itself: clients need no other host for it."""
    end_of_life: str
    """RFC 3339."""
    release_date: str
    """Of the major version's first release, RFC 3339."""
    disabled: bool
    """Past its end of life: shown, but not to be created."""
    beta: bool
    available_settings: tuple[EngineSetting, ...]
    available_init_settings: tuple[EngineSetting, ...]


@functools.cache
def engine_versions() -> tuple[EngineVersion, ...]:
    """Return all known versions, newest first within an engine, without the settings no bundle has."""
    unsupported = _load("unsupported_settings.json")
    return tuple(version for file in _FILES for version in _versions(_load(file), unsupported))


def engine_version(name: str) -> EngineVersion | None:
    """Return the version of that name, in any case; None when there is none."""
    return _by_name().get(name.lower())


def is_newest(version: EngineVersion) -> bool:
    """Return whether no version of its engine is newer."""
    return version == next(one for one in engine_versions() if one.engine == version.engine)


def as_run(version: EngineVersion, minor: str) -> EngineVersion:
    """Return a version as binaries of a minor version run it: an alias has its target's settings."""
    own = engine_version(f"{version.engine}-{minor.partition('.')[0]}")
    if own is None or own.name == version.name:
        return version
    return dataclasses.replace(
        version,
        available_settings=own.available_settings,
        available_init_settings=own.available_init_settings,
    )


@functools.cache
def _by_name() -> dict[str, EngineVersion]:
    return {version.name.lower(): version for version in engine_versions()}


def _load(file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((resources.files(__package__) / file).read_text())
    return content


def _versions(engine: dict[str, Any], unsupported: dict[str, list[str]]) -> Iterator[EngineVersion]:
    for row in engine["versions"]:
        name = f"{engine['engine']}-{row['version']}"
        settings = [
            setting
            for setting in engine["settings"]
            if row["version"] in setting["versions"]
            and setting["name"] not in unsupported.get(name, ())
        ]
        yield EngineVersion(
            engine=engine["engine"],
            name=name,
            logo_url=engine["logo_url"],
            available_settings=_settings(settings, init=False),
            available_init_settings=_settings(settings, init=True),
            **row,
        )


def _settings(rows: list[dict[str, Any]], *, init: bool) -> tuple[EngineSetting, ...]:
    return tuple(
        EngineSetting(**{key: row[key] for key in row if key not in ("versions", "init")})
        for row in rows
        if row.get("init", False) == init
    )
