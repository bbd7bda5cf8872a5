"""What a restore must know of a database besides its tables, and gives back to one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set

from pymysql import MySQLError

from openrdb.engines.mysql import definitions, reserved
from openrdb.engines.mysql.admin import databases, levels, privileges
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import Account, quoted_account, quoted_identifier, rows, run
from openrdb.engines.transfers import Contents

_CHARSET = """
    SELECT default_character_set_name, default_collation_name FROM information_schema.schemata
    WHERE schema_name = %s
"""
_TABLES = """
    SELECT table_name FROM information_schema.tables
    WHERE table_schema = %s AND table_type = 'BASE TABLE' ORDER BY table_name
"""
_QUOTED = r"`(?:[^`]|``)*`"
_GRANT = re.compile(
    rf"(?P<what>(?:GRANT|REVOKE) (?:{_QUOTED}|[^`])*? ON (?:PROCEDURE |FUNCTION )?)"
    rf"(?P<database>{_QUOTED})(?P<rest>\..*)",
    re.DOTALL,
)


def read(session: Session, database: str) -> Contents:
    """Return the contents of a database, as plain data."""
    ((charset, collation),) = rows(session, _CHARSET, database)
    accounts = levels.read(session).everywhere.keys()
    granted = _grants(session, database, accounts)
    defined = definitions.read(session, database)
    needed = {str(one["definer"]) for one in defined} | {"@".join(one) for one, _ in granted}
    # Not definers who were gone before the dump.
    there = {"@".join(account) for account in accounts}
    return {
        "users": sorted(needed & there),
        "database": database,
        "charset": [charset, collation],
        "tables": tables(session, database),
        "definitions": defined,
        "grants": [[list(account), statement] for account, statement in granted],
    }


def tables(session: Session, database: str) -> list[str]:
    """Return a database's tables, without its views."""
    return [str(name) for (name,) in rows(session, _TABLES, database)]


def _grants(session: Session, database: str, accounts: Set[Account]) -> list[tuple[Account, str]]:
    """Return what is granted on a database and what is in it, as statements by account."""
    quoted, found = quoted_identifier(database), []
    for account in sorted(accounts - reserved.ACCOUNTS):
        for (statement,) in rows(session, f"SHOW GRANTS FOR {quoted_account(account)}"):
            parts = _GRANT.fullmatch(str(statement))
            if parts and parts["database"] == quoted:
                found.append((account, str(statement)))
    return found


def give_back(
    session: Session, database: str, contents: Contents, *, managed: bool, lenient: bool = False
) -> None:
    """Make a database, whose tables are there, what it was. Repeatable.

    Args:
        session: a session of the superuser's.
        database: where.
        contents: what it was.
        managed: whether the API manages it.
        lenient: leave out what cannot be made.
    """
    charset, collation = contents["charset"]
    quoted = quoted_identifier(database)
    run(session, f"ALTER DATABASE {quoted} CHARACTER SET {charset} COLLATE {collation}")
    definitions.drop(session, database)
    privileges.forget(session, database)
    whole, single = _split([_on(statement, database) for _, statement in contents["grants"]])
    for statement in whole:
        try:
            # A limit of an administrator who is none any more.
            run(session, re.sub(r"^REVOKE ", "REVOKE IF EXISTS ", statement))
        except MySQLError:
            if not lenient:
                raise
    if managed:
        run(session, databases.managing(database))
    # Events at the end: from then on they run.
    definitions.make(session, database, contents["definitions"], single, lenient=lenient)


def _split(grants: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return those on the database as a whole, and those on what is in it."""
    whole: list[str] = []
    single: list[str] = []
    for statement in grants:
        parts = _GRANT.fullmatch(statement)
        assert parts is not None  # noqa: S101
        (whole if parts["rest"].startswith(".*") else single).append(statement)
    return whole, single


def _on(statement: str, database: str) -> str:
    parts = _GRANT.fullmatch(statement)
    assert parts is not None  # noqa: S101
    return f"{parts['what']}{quoted_identifier(database)}{parts['rest']}"
