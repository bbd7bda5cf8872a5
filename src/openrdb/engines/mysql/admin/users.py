"""Users: a name is one, with an account for each host that it may come from; ours are for any, `%`.

What is changed is changed for each of a user's accounts. Roles are accounts too, but no users.
"""

from __future__ import annotations

from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines import names as own_names
from openrdb.engines.mysql.accounts import check_name, check_not_reserved, identified
from openrdb.engines.mysql.admin import grants, levels, user_sessions
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import (
    Account,
    quoted_account,
    quoted_identifier,
    rows,
    run,
)
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import User

_ANY_HOST = "%"
_NAMED = 10
"""So many objects are named in a refusal."""
_NO_USERS = (own_names.OWN_PREFIX, "mysql.")
"""What our own accounts' names begin with, and the server's."""

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
_UNRECORDED = (
    "SET SESSION sql_log_off = ON, long_query_time = 31536000",
    "UPDATE performance_schema.threads SET instrumented = 'NO' "
    "WHERE processlist_id = CONNECTION_ID()",
)


def names(session: Session) -> list[str]:
    found = [str(name) for (name,) in rows(session, _LISTED)]
    return sorted(name for name in found if name and not name.lower().startswith(_NO_USERS))


def listed(session: Session) -> list[User]:
    granted = levels.read(session, databases=())
    return [User(name, granted.is_administrator(name)) for name in names(session)]


def find(session: Session, name: str) -> None:
    """Raise NotFound if there is no such user."""
    if name not in names(session):
        raise NotFound("user", name)


def accounts(session: Session, name: str) -> list[Account]:
    """Return a user's accounts, one a host."""
    found = [(str(user), str(host)) for user, host in rows(session, _ACCOUNTS)]
    return [account for account in found if account[0] == name]


def check_create(session: Session, name: str) -> None:
    check_name("name", name)
    if accounts(session, name):
        raise InvalidArguments(("name", "constraint", f"the user {name} exists already"))


def ensure(session: Session, name: str, verifier: str, *, is_admin: bool) -> None:
    """Make the user exist with this password, as an administrator or not."""
    made = _make(session, name, verifier)
    change(session, name, None if made else verifier, is_admin)


def _make(session: Session, name: str, verifier: str) -> bool:
    """Create the user, in one statement as each is synced to disk; return whether it is new."""
    _unrecorded(session)
    try:
        account = quoted_account((name, _ANY_HOST))
        run(session, f"CREATE USER {account} {identified(verifier)}")
    except MySQLError as error:
        if error.args[0] != ER.CANNOT_USER:
            raise
        return False
    return True


def _unrecorded(session: Session) -> None:
    """Keep the session's statements out of logs and views: the server would show verifiers there."""
    for statement in _UNRECORDED:
        run(session, statement)


def change(session: Session, name: str, verifier: str | None, is_admin: bool | None) -> None:
    """Change what is not None; end the sessions of a user who stops being an administrator."""
    was_admin = levels.read(session).is_administrator(name)
    for account in accounts(session, name):
        if verifier is not None:
            _unrecorded(session)
            quoted = quoted_account(account)
            run(session, f"ALTER USER {quoted} {identified(verifier)}")
        if is_admin:
            grants.make_administrator(session, account)
        elif is_admin is False and was_admin:
            grants.unmake_administrator(session, account)
    if was_admin and is_admin is False:
        # A session keeps what it had on the whole server when it began.
        user_sessions.end(session, name, None)


def check_delete(session: Session, name: str) -> None:
    """Raise PreconditionFailed if the user is the definer of views, routines, triggers or events.

    These objects would stop working, and a later user of that name would own them.
    """
    check_not_reserved("name", name)
    find(session, name)
    definers = ["@".join(account) for account in accounts(session, name)]
    defined = rows(session, _DEFINED, *[definers] * 4)
    if defined:
        what = [
            f"the {kind} {quoted_identifier(str(database))}.{quoted_identifier(str(one))}"
            for kind, database, one in defined
        ]
        more = f" and {len(what) - _NAMED} more" if len(what) > _NAMED else ""
        help_message = (
            f"{name} is the definer of {', '.join(what[:_NAMED])}{more}: drop what is not needed, "
            "and recreate the others with a different definer"
        )
        raise PreconditionFailed("user_owns_objects", help_message)


def ensure_none(session: Session, name: str) -> None:
    """Drop the user's accounts, then end the sessions: nobody can begin another one in between."""
    for account in accounts(session, name):
        run(session, f"DROP USER IF EXISTS {quoted_account(account)}")
    user_sessions.end(session, name, None)
