"""Users: a name is one, with an account for each host that it may come from; ours are for any, `%`.

What is changed is changed for each of a user's accounts. Roles are accounts too, but no users.
"""

from __future__ import annotations

from pymysql.connections import Connection

from openrdb.engines.base import User
from openrdb.engines.mysql import grants, levels, sessions
from openrdb.engines.mysql.accounts import check_name, check_not_reserved, is_reserved
from openrdb.engines.mysql.sql import Account, quoted_account, quoted_identifier, rows, run
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed

_ANY_HOST = "%"

# What CREATE ROLE makes: nobody can log in before somebody has given it a password.
_LISTED = """
    SELECT DISTINCT user FROM mysql.user
    WHERE NOT (account_locked = 'Y' AND password_expired = 'Y' AND authentication_string = '')
"""
_ACCOUNTS = "SELECT user, host FROM mysql.user"
_DEFINED = """
    SELECT 'view', table_schema, table_name FROM information_schema.views WHERE definer IN %s
    UNION ALL
    SELECT LOWER(routine_type), routine_schema, routine_name
    FROM information_schema.routines WHERE definer IN %s
    UNION ALL
    SELECT 'trigger', trigger_schema, trigger_name
    FROM information_schema.triggers WHERE definer IN %s
    UNION ALL
    SELECT 'event', event_schema, event_name FROM information_schema.events WHERE definer IN %s
"""


def names(connection: Connection) -> list[str]:
    found = [str(name) for (name,) in rows(connection, _LISTED)]
    return sorted(name for name in found if name and not is_reserved(name))


def listed(connection: Connection) -> list[User]:
    granted = levels.read(connection)
    return [User(name, granted.is_administrator(name)) for name in names(connection)]


def find(connection: Connection, name: str) -> None:
    """Raises NotFound."""
    if name not in names(connection):
        raise NotFound("user", name)


def accounts(connection: Connection, name: str) -> list[Account]:
    """A user's accounts, one a host."""
    found = [(str(user), str(host)) for user, host in rows(connection, _ACCOUNTS)]
    return [account for account in found if account[0] == name]


def check_create(connection: Connection, name: str) -> None:
    check_name("name", name)
    if accounts(connection, name):
        raise InvalidArguments(("name", "constraint", f"the user {name} exists already"))


def ensure(connection: Connection, name: str, verifier: str, *, is_admin: bool) -> None:
    """Have a user with this password, and what administrators have or nothing of it."""
    account = quoted_account(connection, (name, _ANY_HOST))
    run(connection, f"CREATE USER IF NOT EXISTS {account} {_identified(connection, verifier)}")
    change(connection, name, verifier, is_admin)


def _identified(connection: Connection, verifier: str) -> str:
    return f"IDENTIFIED WITH caching_sha2_password AS {connection.escape(verifier)}"


def change(
    connection: Connection, name: str, verifier: str | None, is_admin: bool | None
) -> None:
    """Change what is not None; who is no administrator any more loses the sessions."""
    was_admin = levels.read(connection).is_administrator(name)
    for account in accounts(connection, name):
        if verifier is not None:
            quoted = quoted_account(connection, account)
            run(connection, f"ALTER USER {quoted} {_identified(connection, verifier)}")
        if is_admin:
            grants.make_administrator(connection, account)
        elif is_admin is not None:
            grants.unmake_administrator(connection, account)
    if was_admin and is_admin is False:
        # A session keeps what it had on the whole server when it began.
        sessions.end(connection, name, None)


def check_delete(connection: Connection, name: str) -> None:
    """Raise PreconditionFailed where views or programs run as the user.

    They would end to work, a trigger's table to be written to; and be the next one's of that name.
    """
    check_not_reserved("name", name)
    find(connection, name)
    definers = ["@".join(account) for account in accounts(connection, name)]
    defined = rows(connection, _DEFINED, *[definers] * 4)
    if defined:
        what = [
            f"the {kind} {quoted_identifier(str(database))}.{quoted_identifier(str(one))}"
            for kind, database, one in defined
        ]
        help_message = f"{name} is the definer of {', '.join(what)}"
        raise PreconditionFailed("user_owns_objects", help_message)


def ensure_none(connection: Connection, name: str) -> None:
    """End the user's accounts, then the sessions: nobody can begin another."""
    for account in accounts(connection, name):
        run(connection, f"DROP USER IF EXISTS {quoted_account(connection, account)}")
    sessions.end(connection, name, None)
