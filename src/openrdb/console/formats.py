"""How values are written on pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

GB = 10**9
NONE = "\N{EN DASH}"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_STEP = 1000
_METRIC_UNITS = {"percent": ", %", "bytes": ", bytes", "seconds": ""}
_METRIC_WORDS = {"cpu": "CPU", "mem": "memory"}
_GOOD = {"ready", "done", "accepted"}
_BAD = {"error", "failed", "refused", "locked", "out_of_stock"}
_WARNING = {"disk_full", "autohealing", "overdue", "unknown"}


def size(count: int | None) -> str:
    """Return bytes in the unit that suits them: 5 GB."""
    if count is None:
        return NONE
    value, unit = float(count), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if unit else f"{count} B"


def memory(count: int) -> str:
    """Return a machine's memory, which comes in powers of two."""
    return f"{count / 2**30:g} GiB"


def moment(text: str | datetime | None) -> str:
    """Return a moment in UTC: 2026-11-27 16:34."""
    return f"{_moment(text):%Y-%m-%d %H:%M:%S}" if text else NONE


def day(text: str | None) -> str:
    """Return the day of a moment in UTC, as fields of forms have it."""
    return f"{_moment(text):%Y-%m-%d}" if text else ""


def _moment(given: str | datetime) -> datetime:
    found = datetime.fromisoformat(given) if isinstance(given, str) else given
    return found.astimezone(UTC)


def is_ahead(text: str | None) -> bool:
    """Return whether a moment is still to come; one that is not known is not."""
    return text is not None and _moment(text) > datetime.now(UTC)


def tone(status: str) -> str:
    """Return how a status is coloured; what is neither good nor bad is under way."""
    for name, statuses in (("good", _GOOD), ("bad", _BAD), ("warning", _WARNING)):
        if status in statuses:
            return name
    return "moving"


def words(name: str) -> str:
    return name.replace("_", " ")


def engine(name: str) -> str:
    """Return a version's name as people write it: PostgreSQL 17."""
    return name.replace("-", " ")


def metric(name: str) -> str:
    """Return what a metric is called: CPU usage, %."""
    kind, _, unit = name.rpartition("_")
    if unit not in _METRIC_UNITS:
        kind, unit = name, ""
    written = " ".join(_METRIC_WORDS.get(word, word) for word in kind.split("_"))
    return written[:1].upper() + written[1:] + _METRIC_UNITS.get(unit, "")


def choices(items: Iterable[Mapping[str, Any]], key: str, title: str) -> list[tuple[str, str]]:
    """Return what a list to choose from offers: each one's value, and how it is written."""
    return [(one[key], title.format_map(one)) for one in items]


def node_types(items: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return node types to choose from: db-dev-s · 2 vCPU, 2 GiB."""
    return [
        (one["name"], f"{one['name']} · {one['vcpus']} vCPU, {memory(one['memory'])}")
        for one in items
    ]


def switch(value: str) -> str:
    """Return a boolean setting's value as forms offer it."""
    return "on" if value.lower() in ("on", "true", "1", "yes") else "off"


def pretty(value: object) -> str:
    """Return plain data as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False)
