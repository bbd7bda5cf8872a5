"""Plugins of the server, loaded and unloaded while it runs."""

from __future__ import annotations

from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import rows, run

_LOADED = "SELECT 1 FROM information_schema.plugins WHERE plugin_name = %s"


def load(connection: Session, name: str, library: str) -> None:
    """Load a plugin until the server ends; a no-op where it is loaded.

    What a server loads at its start, its configuration file says: the table of plugins would go with
    every copy of the data. The file's plugins that are in it as well are errors in the log.

    Raises:
        pymysql.err.OperationalError: the binaries have no such library (`CANT_OPEN_LIBRARY`).
    """
    if rows(connection, _LOADED, name):
        return
    run(connection, f"INSTALL PLUGIN {name} SONAME '{library}'")
    run(connection, "SET SESSION sql_log_bin = 0")
    run(connection, f"DELETE FROM mysql.plugin WHERE name = '{name}'")  # noqa: S608
    run(connection, "SET SESSION sql_log_bin = 1")


def unload(connection: Session, name: str) -> None:
    """Unload a plugin; a no-op where it is not loaded."""
    if rows(connection, _LOADED, name):
        run(connection, f"UNINSTALL PLUGIN {name}")
