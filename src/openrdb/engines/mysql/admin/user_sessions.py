"""Users' sessions: found, and ended."""

from __future__ import annotations

from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import rows, run


def end(session: Session, user: str | None, database: str | None) -> None:
    """End all sessions of a user (None: of anybody), in a current database (None: in any)."""
    ((own,),) = rows(session, "SELECT CONNECTION_ID()")
    for number, name, _, current, *_ in rows(session, "SHOW PROCESSLIST"):
        if number != own and user in (None, name) and database in (None, current):
            _end(session, int(str(number)))


def _end(session: Session, number: int) -> None:
    try:
        run(session, f"KILL {number}")
    except MySQLError as error:
        if error.args[0] != ER.NO_SUCH_THREAD:  # it has ended by itself
            raise
