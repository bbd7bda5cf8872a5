"""Statements: names and values quoted, rows read. Whatever of a name gets into SQL comes from here."""

from __future__ import annotations

from pymysql.connections import Connection

Row = tuple[object, ...]
Account = tuple[str, str]
"""A user's name and the host that it comes from, `%` for any."""


def quoted_identifier(name: str) -> str:
    """A database's or object's name as the grammar has it; PyMySQL has no such function."""
    return "`" + name.replace("`", "``") + "`"


def quoted_account(connection: Connection, account: Account) -> str:
    """`'user'@'host'`, each quoted by the driver."""
    return "@".join(str(connection.escape(part)) for part in account)


def rows(connection: Connection, query: str, *arguments: object) -> list[Row]:
    """What a query answers; its values are quoted by the driver."""
    with connection.cursor() as cursor:
        cursor.execute(query, arguments or None)
        return list(cursor.fetchall())


def run(connection: Connection, statement: str) -> None:
    """A statement whose names and values are quoted already: percent signs stay what they are."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
