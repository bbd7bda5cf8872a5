"""Statements: names and values quoted, rows read. Whatever of a name gets into SQL comes from here."""

from __future__ import annotations

from pymysql.converters import escape_string

from openrdb.engines.mysql.session import Session

Row = tuple[object, ...]
Account = tuple[str, str]
"""A user's name and the host that it comes from, `%` for any."""


def quoted_identifier(name: str) -> str:
    """Return a database's or object's name as the grammar has it; PyMySQL has no such function."""
    return "`" + name.replace("`", "``") + "`"


def quoted_literal(text: str) -> str:
    """Return a text where the grammar wants one and nothing else."""
    return f"'{escape_string(text)}'"


def quoted_account(account: Account) -> str:
    """Return `'user'@'host'`."""
    return "@".join(map(quoted_literal, account))


def rows(session: Session, query: str, *arguments: object) -> list[Row]:
    """Return what a query answers; its values are quoted by the driver."""
    with session.cursor() as cursor:
        cursor.execute(query, arguments or None)
        return list(cursor.fetchall())


def run(session: Session, statement: str) -> None:
    """Run a statement whose names and values are quoted already: percent signs stay what they are."""
    with session.cursor() as cursor:
        cursor.execute(statement)
