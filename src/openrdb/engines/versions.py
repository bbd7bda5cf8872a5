"""Versions of what indexes and stored values depend on outside a server.

An index on text is in the order of its collation, and a stored instant was computed by a rule of its
time zone: when the library or the rules change under a volume, both may be wrong. So versions are
recorded with a volume and compared at each start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

TIME_ZONES: Final = "time zones"
_SYSTEM = Path("/usr/share/zoneinfo")
_VERSION = "# version "


def changes(recorded: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Return a sentence that says what has changed since it was recorded; None if nothing has.

    What was not recorded before is no change.
    """
    changed = {name: one for name, one in recorded.items() if found.get(name) != one}
    if not changed:
        return None
    what = [f"{name} from {one} to {found.get(name, 'none')}" for name, one in changed.items()]
    advice = []
    if changed.keys() - {TIME_ZONES}:
        advice.append("REINDEX indexes on text that use these collations")
    if TIME_ZONES in changed:
        advice.append("check what depends on local times in the future")
    return f"the host changed {', '.join(what)}: {', and '.join(advice)}"


def of_time_zones(directories: Sequence[Path]) -> str | None:
    """Return the version of the first time zone data found, in `directories` or the system's."""
    for directory in (*directories, _SYSTEM):
        try:
            with (directory / "tzdata.zi").open() as file:
                first = file.readline()
        except OSError:
            continue
        if first.startswith(_VERSION):
            return first.removeprefix(_VERSION).strip()
    return None
