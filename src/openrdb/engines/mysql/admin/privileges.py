"""Who may do what in a managed database: read off the server's grants, and set to a level."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain

from openrdb.engines.mysql.admin import levels, user_sessions
from openrdb.engines.mysql.admin.grants import SYSTEM
from openrdb.engines.mysql.admin.levels import GRANT, LEVELS, Grants, Privileges
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import Account, quoted_account, quoted_identifier, run
from openrdb.spec import Permission

_GONE = " IGNORE UNKNOWN USER"
"""A tenant may take the same at the same time."""


def apply(
    session: Session, grants: Grants, database: str, user: str, permission: Permission
) -> None:
    """Give a user exactly a level in a database, whatever was there before.

    An administrator has access to all databases in any case: theirs is what they are left with when
    they stop being one.

    Rights are taken before others are given, so that nobody has more than before or after.
    """
    if grants.is_administrator(user):
        _keep(session, grants, database, user, LEVELS[permission])
    else:
        _set(session, grants, database, user, LEVELS[permission])


def _set(session: Session, grants: Grants, database: str, user: str, level: Privileges) -> None:
    accounts = grants.accounts(user)
    taken = [
        *_anonymous(grants, database),
        *_beyond(grants, accounts, database, level),
    ]
    lifted = _without_limits(grants, accounts, database, level)
    limited = _limited(grants, accounts, database, level)
    with _ending(session, grants, database, user, level):
        for statement in (*taken, *lifted, *limited):
            run(session, statement)
        _grant(session, accounts, database, level)


def _ending(
    session: Session, grants: Grants, database: str, user: str, level: Privileges
) -> AbstractContextManager[None]:
    """End the user's sessions in the database after the level is set, if it takes anything.

    They keep what they had in their current database, and what they had everywhere.
    """
    accounts = grants.accounts(user)
    sources = {one for account in accounts for one in (account, *grants.roles_of(account))}
    if not any(grants.exceeds(one, database, level) for one in sources):
        return nullcontext()
    everywhere = any(grants.everywhere[account] & LEVELS["all"] for account in accounts)
    within = None if everywhere else database
    return user_sessions.ending(session, grants.dependents(user), within)


def _keep(session: Session, grants: Grants, database: str, user: str, level: Privileges) -> None:
    """Set what an administrator has been granted in a database; no roles.

    Limits there, which SQL may have set, are lifted.
    """
    accounts = grants.accounts(user)
    statements = list(_without_limits(grants, accounts, database, LEVELS["all"]))
    for account in accounts:
        held = grants.on_databases.get((account, database), frozenset())
        statements += _objects(grants, account, database)
        if held - level:
            statements.append(_revoked(account, database, held - level))
    for statement in statements:
        run(session, statement)
    _grant(session, accounts, database, level)


def _grant(session: Session, accounts: Sequence[Account], database: str, level: Privileges) -> None:
    if level:
        for account in accounts:
            run(session, _granted(account, database, level))


def forget(session: Session, database: str) -> None:
    """Take all that anybody has on a database, and all limits there.

    The server keeps grants when a database is dropped, for whoever makes one of that name.
    """
    if database in SYSTEM:
        return  # the limits of administrators are there
    grants = levels.read(session)
    everybody = sorted(grants.everywhere, key=_generality)
    taken = _anonymous(grants, database)
    objects = (_objects(grants, account, database) for account in everybody)
    rights = (
        _revoked(account, database, grants.on_databases[account, database])
        for account in everybody
        if grants.on_databases.get((account, database))
    )
    lifted = _without_limits(grants, everybody, database, LEVELS["all"])
    for statement in chain(taken, *objects, rights, lifted):
        run(session, statement)


def _generality(account: Account) -> tuple[int, str]:
    """Return a sort key that puts accounts for any host first.

    While those have a privilege, the server takes a partial revoke of a more exact account (or, with
    the anonymous user, of any account) for a contradiction, and refuses to change it.
    """
    return len(account[1]), account[1]


def _anonymous(grants: Grants, database: str) -> Iterator[str]:
    """Yield revokes of what the anonymous user, and so every user without an account, has."""
    for account in sorted(grants.accounts(""), key=_generality):
        held = grants.on_databases.get((account, database))
        if held:
            yield _revoked(account, database, held)


def _beyond(
    grants: Grants,
    accounts: Sequence[Account],
    database: str,
    level: Privileges,
) -> Iterator[str]:
    """Yield revokes of what accounts have in a database beyond the level, also through roles."""
    contradicting = any(grants.limits.get((account, database)) for account in accounts)
    for account in sorted(accounts, key=_generality):
        yield from _objects(grants, account, database)
        yield from _roles(grants, account, database, level)
        held = grants.on_databases.get((account, database), frozenset())
        unwanted = held if contradicting else held - level
        if unwanted:
            yield _revoked(account, database, unwanted)


def _without_limits(
    grants: Grants,
    accounts: Sequence[Account],
    database: str,
    level: Privileges,
) -> Iterator[str]:
    """Yield grants that lift partial revokes; where there is one, a GRANT does nothing else."""
    for account in accounts:
        lifted = grants.limits.get((account, database), frozenset()) & level
        if lifted:
            yield _granted(account, database, lifted)


def _limited(
    grants: Grants,
    accounts: Sequence[Account],
    database: str,
    level: Privileges,
) -> Iterator[str]:
    """Yield partial revokes of what accounts hold on the whole server beyond the level."""
    for account in accounts:
        limits = grants.limits.get((account, database), frozenset())
        unwanted = (grants.everywhere[account] & LEVELS["all"]) - limits - level
        if unwanted:
            yield _revoked(account, database, unwanted)


def _objects(grants: Grants, account: Account, database: str) -> Iterator[str]:
    """Yield revokes of grants on single tables, columns and routines."""
    quoted = quoted_account(account)
    for kind, name in grants.on_objects.get((account, database), []):
        on = f"{kind} {quoted_identifier(database)}.{quoted_identifier(name)}"
        for privileges in ("ALL PRIVILEGES", GRANT):
            yield f"REVOKE IF EXISTS {privileges} ON {on} FROM {quoted}{_GONE}"


def _roles(grants: Grants, account: Account, database: str, level: Privileges) -> Iterator[str]:
    """Yield revokes of roles by which the account would have more than the level."""
    for role in grants.roles.get(account, set()):
        sources = {role} | grants.roles_of(role)
        if any(grants.exceeds(one, database, level) for one in sources):
            quoted = quoted_account(account)
            yield f"REVOKE IF EXISTS {quoted_account(role)} FROM {quoted}{_GONE}"


def _granted(account: Account, database: str, privileges: Collection[str]) -> str:
    on, quoted = quoted_identifier(database), quoted_account(account)
    return f"GRANT {', '.join(sorted(privileges))} ON {on}.* TO {quoted}"


def _revoked(account: Account, database: str, privileges: Collection[str]) -> str:
    on, quoted = quoted_identifier(database), quoted_account(account)
    return f"REVOKE IF EXISTS {', '.join(sorted(privileges))} ON {on}.* FROM {quoted}{_GONE}"
