"""Clients' sessions: found, and ended. They come by TCP; ours, whose names a tenant may also give to
users, by the socket."""

from __future__ import annotations

from collections.abc import Callable, Set

from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import rows, run


def end(session: Session, users: Set[str], database: str | None = None) -> None:
    """End all sessions of some users, in a current database (None: in any)."""
    _end(session, lambda user, current: user in users and database in (None, current))


def end_within(session: Session, database: str) -> None:
    """End all sessions in a current database, whoever's they are."""
    _end(session, lambda _, current: current == database)


def end_all(session: Session) -> None:
    _end(session, lambda _, __: True)


def _end(session: Session, wanted: Callable[[object, object], bool]) -> None:
    for number, user, host, current, *_ in rows(session, "SHOW PROCESSLIST"):
        if ":" in str(host) and wanted(user, current):
            _kill(session, int(str(number)))


def _kill(session: Session, number: int) -> None:
    try:
        run(session, f"KILL {number}")
    except MySQLError as error:
        if error.args[0] != ER.NO_SUCH_THREAD:  # it has ended by itself
            raise
