"""What runs with the privileges of its definer: views, routines, triggers and events."""

from __future__ import annotations

from collections.abc import Collection

from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import Account, quoted_identifier, rows

_NAMED = 10
"""So many objects are named in a refusal."""
_DEFINED = """
    SELECT 'view', table_schema, table_name, definer
    FROM information_schema.views WHERE definer IN %s
    UNION ALL
    SELECT LOWER(routine_type), routine_schema, routine_name, definer
    FROM information_schema.routines WHERE definer IN %s
    UNION ALL
    SELECT 'trigger', trigger_schema, trigger_name, definer
    FROM information_schema.triggers WHERE definer IN %s
    UNION ALL
    SELECT 'event', event_schema, event_name, definer
    FROM information_schema.events WHERE definer IN %s
"""
_ALL = """
    SELECT definer FROM information_schema.routines
    UNION SELECT definer FROM information_schema.views
    UNION SELECT definer FROM information_schema.triggers
    UNION SELECT definer FROM information_schema.events
"""


def everyone(session: Session) -> set[str]:
    """Return the accounts that are the definer of anything, as `user@host`."""
    return {str(definer) for (definer,) in rows(session, _ALL)}


def among(session: Session, accounts: Collection[Account]) -> set[Account]:
    """Return those accounts that are the definer of anything."""
    by_name = {"@".join(account): account for account in accounts}
    found = rows(session, _DEFINED, *[list(by_name)] * 4) if by_name else []
    return {by_name[str(definer)] for *_, definer in found}


def defined(session: Session, accounts: Collection[Account]) -> str:
    """Return what runs as one of these accounts, in words; empty if nothing does."""
    definers = ["@".join(account) for account in accounts]
    named = [
        f"the {kind} {quoted_identifier(str(database))}.{quoted_identifier(str(one))}"
        for kind, database, one, _ in rows(session, _DEFINED, *[definers] * 4)
    ]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more
