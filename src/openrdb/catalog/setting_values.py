"""Which values a setting takes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from openrdb.catalog.engines import EngineSetting

TRUE: Final = frozenset({"on", "true", "yes", "1"})
"""How a boolean setting is switched on, in lower case."""
_FALSE = frozenset({"off", "false", "no", "0"})


def is_on(settings: Mapping[str, str], name: str) -> bool:
    """Return whether a user has switched a boolean setting on."""
    return settings.get(name, "off").lower() in TRUE


def problem(setting: EngineSetting, value: str) -> str | None:  # noqa: PLR0911
    """Return why a setting does not take a value, to follow its name; None where it does."""
    if setting.property_type == "BOOLEAN":
        return None if value.lower() in TRUE | _FALSE else "must be on or off"
    if setting.property_type == "INT":
        # No leading zero: PostgreSQL would take it for an octal number.
        if not re.fullmatch(r"0|-?[1-9][0-9]{0,17}", value):
            return "must be a whole number"
        return _bounds(int(value), setting.int_min, setting.int_max)
    if setting.property_type == "FLOAT":
        if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", value):
            return "must be a number"
        return _bounds(float(value), setting.float_min, setting.float_max)
    if not value.isprintable():
        return "must not contain control characters"
    if setting.string_constraint and not re.search(setting.string_constraint, value):
        return f"must match {setting.string_constraint}"
    return None


def _bounds(number: float, least: float | None, most: float | None) -> str | None:
    least = -math.inf if least is None else least
    most = math.inf if most is None else most
    return None if least <= number <= most else f"must be between {least} and {most}"
