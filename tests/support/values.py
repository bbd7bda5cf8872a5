"""Values for settings: others than their defaults, and their bounds."""

from __future__ import annotations

import re

from openrdb.catalog.engines import EngineSetting
from openrdb.catalog.setting_values import problem

_CHOSEN = {
    # PostgreSQL: more would take too much memory.
    "max_connections": "60",
    "max_locks_per_transaction": "20",
    "timezone": "Europe/Paris",
    "pg_stat_statements.track": "all",
    # MySQL
    "character_set_server": "latin1",
    "default_authentication_plugin": "caching_sha2_password",
    "default_time_zone": "Europe/Paris",
    "innodb_flush_method": "O_DIRECT",
    "table_open_cache": "1007",  # as many as a host's limit of open files lets it have
    "sql_mode": "NO_ENGINE_SUBSTITUTION",
    "transaction_isolation": "READ-COMMITTED",
}


def another(setting: EngineSetting) -> str:
    """A valid value that is not the default."""
    if setting.name in _CHOSEN:
        value = _CHOSEN[setting.name]
    elif setting.property_type == "BOOLEAN":
        value = "off" if setting.default_value.lower() == "on" else "on"
    elif setting.property_type == "INT":
        assert setting.int_max is not None
        value = str(min(max(int(setting.default_value), 0) + 7, setting.int_max))
        value = str(int(value) - 1) if value == setting.default_value else value
    else:
        value = "3.25"
    assert problem(setting, value) is None, setting
    assert value != setting.default_value, setting
    return value


def bounds(setting: EngineSetting) -> tuple[str, str]:
    """The least and the greatest value that is advertised; of words the first and the last."""
    if setting.property_type == "INT":
        least, most = str(setting.int_min), str(setting.int_max)
    elif setting.property_type == "FLOAT":
        least, most = str(setting.float_min), str(setting.float_max)
    elif setting.property_type == "BOOLEAN":
        least, most = "off", "on"
    elif listed := re.fullmatch(r"\^\(([\w|-]+)\)\$", setting.string_constraint or ""):
        words = listed[1].split("|")
        least, most = words[0], words[-1]
    else:
        least, most = setting.default_value, another(setting)
    for value in (least, most):
        assert problem(setting, value) is None, setting
    return least, most
