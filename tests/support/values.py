"""Values for settings that are not their defaults."""

from __future__ import annotations

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
