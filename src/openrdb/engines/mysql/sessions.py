"""Users' sessions: found, and ended."""

from __future__ import annotations

import contextlib

from pymysql import MySQLError
from pymysql.connections import Connection
from pymysql.constants import ER

from openrdb.engines.mysql.sql import rows, run


def end(connection: Connection, user: str | None, database: str | None) -> None:
    """End all sessions of a user (None: of anybody), in a current database (None: in any)."""
    own = connection.thread_id()
    for number, name, _, current, *_ in rows(connection, "SHOW PROCESSLIST"):
        if number != own and user in (None, name) and database in (None, current):
            _end(connection, int(str(number)))


def _end(connection: Connection, number: int) -> None:
    try:
        run(connection, f"KILL {number}")
    except MySQLError as error:
        if error.args[0] != ER.NO_SUCH_THREAD:  # it has ended by itself
            raise
