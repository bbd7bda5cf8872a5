"""Bringing configuration into force."""

from __future__ import annotations

from pathlib import Path

import pymysql
from pymysql.constants import ER

from openrdb.catalog.engines import EngineSetting
from openrdb.catalog.setting_values import TRUE
from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import config, failures, session
from openrdb.system import accounts

_VARIABLES = {"default_time_zone": "time_zone"}
"""Options whose variable has another name."""
_OF_PERFORMANCE_SCHEMA = "performance_schema_"
_UNITS = {"K": 2**10, "M": 2**20}


def reload(node: EngineNode) -> bool:
    """Make the server read its certificate again and set what can be set.

    Returns:
        Whether the rest needs a restart.
    """
    waiting = False
    with session.connect(node) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER INSTANCE RELOAD TLS")
        cursor.execute("SELECT VERSION(), @@performance_schema")
        ((version, measuring),) = cursor.fetchall()
        for setting, text in config.catalogue_settings(node.spec, version):
            name, value = _VARIABLES.get(setting.name, setting.name), _typed(setting, text)
            if name.startswith(_OF_PERFORMANCE_SCHEMA) and not measuring:
                continue  # it is in force nowhere
            try:
                cursor.execute(f"SET GLOBAL {name} = %s", [value])
            except pymysql.err.MySQLError as error:
                if error.args[0] == ER.UNKNOWN_SYSTEM_VARIABLE:
                    continue  # this minor version has dropped it
                if error.args[0] != ER.INCORRECT_GLOBAL_LOCAL_VAR:  # it is read-only
                    raise
                cursor.execute(f"SELECT @@GLOBAL.{name} = %s", [value])
                waiting = waiting or cursor.fetchall() != ((1,),)
    return waiting


def reopen_logs(node: EngineNode) -> None:
    """Make the server open its logs again, under their own names."""
    with session.connect(node) as connection, connection.cursor() as cursor:
        cursor.execute("FLUSH NO_WRITE_TO_BINLOG ERROR LOGS, SLOW LOGS, GENERAL LOGS")


def _typed(setting: EngineSetting, text: str) -> str | int | float:
    if setting.property_type == "INT":
        return int(text.rstrip("KM")) * _UNITS.get(text[-1], 1)
    if setting.property_type == "BOOLEAN":
        return int(text.lower() in TRUE)
    return float(text) if setting.property_type == "FLOAT" else text


def check(node: EngineNode, directory: Path) -> str | None:
    """Return why a server refuses the configuration file in `directory`; None if it does not.

    The server itself reads it, as at a start; what it would find out only later is not found.
    """
    if (why := config.check_open_files(node.spec)) is not None:
        return why
    command = [*config.command(node.bundle, directory), "--log-error=stderr", "--validate-config"]
    command += [f"--tmpdir={directory}"]  # its own may be made only at the next start
    done = accounts.run(node.spec.uid, command, node.bundle.environment)
    return failures.first_complaint(done.stderr) if done.returncode else None
