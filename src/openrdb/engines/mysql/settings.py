"""Bringing configuration into force, and what a server says that refuses it."""

from __future__ import annotations

import re
from pathlib import Path

import pymysql
from pymysql.constants import ER

from openrdb.catalog.engines import EngineSetting
from openrdb.engines.mysql import config, server
from openrdb.spec import NodeSpec
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths

_LAST_WORDS = 16384
_STARTED = "MySQL Server - start."
_COMPLAINT = re.compile(r"\[ERROR\] \[MY-\d+\] \[\w+\] (.+)")
_UNTELLING = re.compile(r"Aborting|Data Dictionary initialization failed")
_VARIABLES = {"default_time_zone": "time_zone"}
"""Options whose variable has another name."""
_OF_PERFORMANCE_SCHEMA = "performance_schema_"
_UNITS = {"K": 2**10, "M": 2**20}


def reload(spec: NodeSpec, paths: NodePaths, secret: str) -> bool:
    """Have the certificate read again and set what can be set; whether the rest needs a restart."""
    waiting = False
    with server.connect(spec, paths, secret) as session, session.cursor() as cursor:
        cursor.execute("ALTER INSTANCE RELOAD TLS")
        cursor.execute("SELECT VERSION(), @@performance_schema")
        ((version, measuring),) = cursor.fetchall()
        for setting, text in config.catalogue_settings(spec, version):
            name, value = _VARIABLES.get(setting.name, setting.name), _typed(setting, text)
            if name.startswith(_OF_PERFORMANCE_SCHEMA) and not measuring:
                continue  # it is in force nowhere
            try:
                cursor.execute(f"SET GLOBAL {name} = %s", [value])
            except pymysql.err.MySQLError as error:
                if error.args[0] == ER.UNKNOWN_SYSTEM_VARIABLE:
                    continue  # this minor version has it no more
                if error.args[0] != ER.INCORRECT_GLOBAL_LOCAL_VAR:  # it is read-only
                    raise
                cursor.execute(f"SELECT @@GLOBAL.{name} = %s", [value])
                waiting = waiting or cursor.fetchall() != ((1,),)
    return waiting


def reopen_logs(spec: NodeSpec, paths: NodePaths, secret: str) -> None:
    with server.connect(spec, paths, secret) as session, session.cursor() as cursor:
        cursor.execute("FLUSH NO_WRITE_TO_BINLOG ERROR LOGS, SLOW LOGS, GENERAL LOGS")


def _typed(setting: EngineSetting, text: str) -> str | int | float:
    if setting.property_type == "INT":
        return int(text.rstrip("KM")) * _UNITS.get(text[-1], 1)
    if setting.property_type == "BOOLEAN":
        return int(text.lower() in ("on", "true", "yes", "1"))
    return float(text) if setting.property_type == "FLOAT" else text


def check(spec: NodeSpec, bundle: Bundle, paths: NodePaths, place: Path) -> str | None:  # noqa: ARG001
    """Why a server would not take the configuration file in `place`; None: it says nothing.

    The server itself reads it, as at a start; what it would find out only later is not found.
    """
    command = [*config.command(bundle, place), "--log-error=stderr", "--validate-config"]
    done = accounts.run(spec.uid, command, bundle.environment)
    return _complaint(done.stderr) if done.returncode else None


def last_words(paths: NodePaths, output: Path) -> str:
    """Why a server ended: what it said before its log was opened, or in it."""
    logs = [path for path in (output, paths.log / config.ERROR_LOG) if path.exists()]
    text = "".join(path.read_text(errors="replace")[-_LAST_WORDS:] for path in logs)
    return _complaint(text.rpartition(_STARTED)[2])


def _complaint(said: str) -> str:
    found = [text for text in _COMPLAINT.findall(said) if not _UNTELLING.search(text)]
    return str(found[0]) if found else "it does not start"
