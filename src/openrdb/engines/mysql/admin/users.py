"""Users: a name is one, with an account for each host that it may come from; ours are for any, `%`.

What is changed is changed for each of a user's accounts. Roles are accounts too, but no users. Neither
is the anonymous user: whoever comes with a name that nobody has is let in as it, so it has no place in
the API, and each change of users drops it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines.mysql import reserved
from openrdb.engines.mysql.accounts import check_name, check_not_reserved, identified
from openrdb.engines.mysql.admin import definers, grants, levels, user_sessions
from openrdb.engines.mysql.admin.levels import IS_ROLE
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import (
    Account,
    quoted_account,
    rows,
    run,
)
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import User

_ANY_HOST = "%"
_ACCOUNTS = f"""
    SELECT user, host, {IS_ROLE}, user_attributes->'$.additional_password' IS NOT NULL
    FROM mysql.user WHERE CAST(user AS BINARY) = CAST(%s AS BINARY)
"""  # noqa: S608
"""By bytes: else spaces at the end would not count, and some characters would be an error."""
_UNRECORDED = (
    "SET SESSION sql_log_off = ON, long_query_time = 31536000",
    "UPDATE performance_schema.threads SET instrumented = 'NO' "
    "WHERE processlist_id = CONNECTION_ID()",
)


def listed(session: Session) -> list[User]:
    granted = levels.read(session, databases=())
    return [User(name, granted.is_administrator(name)) for name in granted.users()]


def find(session: Session, name: str) -> None:
    """Raise NotFound if there is no such user."""
    found = _accounts(session, name) if name else []
    if any(not one.is_role for one in found):
        return
    if not found or name not in levels.read(session).users():
        raise NotFound("user", name)


def check_known(session: Session, name: str) -> None:
    """Raise NotFound if there is no such user; InvalidArguments if the name is ours and nobody's."""
    try:
        find(session, name)
    except NotFound:
        check_not_reserved("name", name)
        raise


@dataclass(frozen=True)
class _Found:
    account: Account
    is_role: bool
    has_old_password: bool
    """Which still lets them in, next to the password."""


def _accounts(session: Session, name: str) -> list[_Found]:
    """Return a user's accounts, one a host."""
    found = [
        _Found((str(user), str(host)), bool(is_role), bool(old))
        for user, host, is_role, old in rows(session, _ACCOUNTS, name)
    ]
    return [one for one in found if one.account not in reserved.ACCOUNTS]


def check_create(session: Session, name: str) -> None:
    """Raise PreconditionFailed if something would run as the new user that they have not made."""
    check_name("name", name)
    if _accounts(session, name):
        raise InvalidArguments(("name", "constraint", f"the user {name} exists already"))
    if found := definers.defined(session, [(name, _ANY_HOST)]):
        help_message = f"a former user {name} is the definer of {found}: drop or recreate them"
        raise PreconditionFailed("user_owns_objects", help_message)


def ensure(session: Session, name: str, verifier: str, *, is_admin: bool) -> None:
    """Make the user exist with this password, as an administrator or not."""
    if not _make(session, name, verifier):
        change(session, name, verifier, is_admin)
        return
    drop_anonymous(session)
    if is_admin:
        grants.make_administrator(session, (name, _ANY_HOST))


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
    """Change what is not None; end the sessions of those who are not to be administrators.

    Also of those who were none: an earlier attempt may have failed before it ended them.
    """
    drop_anonymous(session)
    if verifier is not None:
        _set_password(session, name, verifier)
    if is_admin is None:
        return
    granted = levels.read(session)
    stops = not is_admin and granted.is_administrator(name)
    for account in granted.accounts(name):
        if is_admin:
            grants.make_administrator(session, account)
        elif stops:
            grants.unmake_administrator(
                session, account, granted.roles.get(account, ()), granted.regrantable(account)
            )
    if not is_admin:
        # A session keeps what it had on the whole server when it began.
        user_sessions.end(session, granted.dependents(name))


def _set_password(session: Session, name: str, verifier: str) -> None:
    """Make it the only one: by SQL an account may have got a second password, which would stay."""
    _unrecorded(session)
    for one in _accounts(session, name):
        quoted = quoted_account(one.account)
        run(session, f"ALTER USER {quoted} {identified(verifier)}")
        if one.has_old_password:
            run(session, f"ALTER USER {quoted} DISCARD OLD PASSWORD")


def drop_anonymous(session: Session) -> None:
    """Drop the anonymous user; end all sessions, as it may have come with anybody's name."""
    found = _accounts(session, "")
    if not found:
        return
    with user_sessions.ending(session, None):
        for one in found:
            run(session, f"DROP USER IF EXISTS {quoted_account(one.account)}")


def check_delete(session: Session, name: str) -> None:
    """Raise PreconditionFailed if the user is the definer of views, routines, triggers or events.

    These objects would stop working, and a later user of that name would own them.
    """
    check_known(session, name)
    if found := definers.defined(session, [one.account for one in _accounts(session, name)]):
        help_message = (
            f"{name} is the definer of {found}: drop what is not needed, "
            "and recreate the others with a different definer"
        )
        raise PreconditionFailed("user_owns_objects", help_message)


def ensure_none(session: Session, name: str) -> None:
    """Drop the user's accounts, then end the sessions: nobody can begin another one in between."""
    granted = levels.read(session)
    drop_anonymous(session)
    # Who could act as the user by a role is known only as long as there is the user.
    others = granted.dependents(name) - {name}
    with user_sessions.ending(session, others) if others else nullcontext():
        for account in granted.accounts(name):
            run(session, f"DROP USER IF EXISTS {quoted_account(account)}")
    user_sessions.end(session, {name})
