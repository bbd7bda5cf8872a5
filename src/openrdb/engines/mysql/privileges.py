"""Who may do what in a managed database: read off the server's grants, and set to a level."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pymysql.connections import Connection

from openrdb.engines.base import Permission, Privilege
from openrdb.engines.mysql import levels, sessions
from openrdb.engines.mysql.grants import SYSTEM
from openrdb.engines.mysql.levels import GRANT, LEVELS, Grants
from openrdb.engines.mysql.sql import Account, quoted_account, quoted_identifier, run

_GONE = " IGNORE UNKNOWN USER"
"""A tenant may take the same at the same time."""


def listed(
    connection: Connection, databases: Collection[str], users: Collection[str]
) -> list[Privilege]:
    grants = levels.read(connection)
    return [
        Privilege(database, user, grants.level(user, database))
        for database in databases
        for user in users
    ]


def apply(connection: Connection, database: str, user: str, permission: Permission) -> None:
    """Give a user exactly a level in a database, whatever was there before.

    Rights are taken before others are given, so that nobody has more than before or after; those of
    both levels are kept throughout.
    """
    grants = levels.read(connection)
    taken = list(_taken_from_all(connection, grants, database, user, permission))
    for statement in taken:
        run(connection, statement)
    for account in grants.accounts(user):
        limits = grants.limits.get((account, database), frozenset())
        held = grants.on_databases.get((account, database), frozenset())
        # Where there is a limit, the first GRANT lifts it and does nothing else.
        for given in (limits & LEVELS[permission], LEVELS[permission] - held):
            if given:
                run(connection, _granted(connection, account, database, given))
    if taken:
        # Sessions keep what they have in their current database; and what they have everywhere.
        everywhere = any(grants.everywhere[account] for account in grants.accounts(user))
        sessions.end(connection, user, None if everywhere else database)


def forget(connection: Connection, database: str) -> None:
    """Take all that anybody has on a database, and all that is taken back there.

    The server keeps grants when a database is dropped, for whoever makes one of that name.
    """
    if database in SYSTEM:
        return  # the limits of administrators are there
    grants = levels.read(connection)
    for account in grants.everywhere:
        for statement in _taken_objects(connection, grants, account, database):
            run(connection, statement)
        held = grants.on_databases.get((account, database))
        if held:
            run(connection, _revoked(connection, account, database, held))
    for (account, limited), limits in grants.limits.items():
        if limited == database:
            run(connection, _granted(connection, account, database, limits))


def _taken_from_all(
    connection: Connection, grants: Grants, database: str, user: str, permission: Permission
) -> Iterator[str]:
    wanted = LEVELS[permission]
    for account in grants.accounts(user):
        yield from _taken_objects(connection, grants, account, database)
        yield from _taken_roles(connection, grants, account, database, permission)
        kept = wanted | {GRANT} if grants.is_administrator(user) else wanted
        held = grants.on_databases.get((account, database), frozenset())
        if held - kept:
            yield _revoked(connection, account, database, held - kept)
        limited = grants.limits.get((account, database), frozenset())
        # What is held everywhere is taken back here, by a statement of its own: as long as it is
        # also held on the database, a REVOKE takes only that.
        everywhere = (grants.everywhere[account] & levels.ON_DATABASE) - limited - kept
        if everywhere:
            yield _revoked(connection, account, database, everywhere)
    for account in grants.accounts(""):
        held = grants.on_databases.get((account, database))
        if held:
            yield _revoked(connection, account, database, held)


def _taken_objects(
    connection: Connection, grants: Grants, account: Account, database: str
) -> Iterator[str]:
    """What is granted on single tables, columns and routines."""
    quoted = quoted_account(connection, account)
    for kind, name in grants.on_objects.get((account, database), []):
        on = f"{kind} {quoted_identifier(database)}.{quoted_identifier(name)}"
        for privileges in ("ALL PRIVILEGES", GRANT):
            yield f"REVOKE IF EXISTS {privileges} ON {on} FROM {quoted}{_GONE}"


def _taken_roles(
    connection: Connection, grants: Grants, account: Account, database: str, permission: Permission
) -> Iterator[str]:
    """Roles by which the account would have anything beyond the level."""
    for role in grants.roles.get(account, set()):
        sources = {role} | grants.roles_of(role)
        beyond = any(
            grants.on_objects.get((one, database))
            or grants.own(one, database) - LEVELS[permission]
            for one in sources
        )
        if beyond:
            quoted = quoted_account(connection, account)
            yield f"REVOKE IF EXISTS {quoted_account(connection, role)} FROM {quoted}{_GONE}"


def _granted(
    connection: Connection, account: Account, database: str, privileges: Collection[str]
) -> str:
    on, quoted = quoted_identifier(database), quoted_account(connection, account)
    return f"GRANT {', '.join(sorted(privileges))} ON {on}.* TO {quoted}"


def _revoked(
    connection: Connection, account: Account, database: str, privileges: Collection[str]
) -> str:
    on, quoted = quoted_identifier(database), quoted_account(connection, account)
    return f"REVOKE IF EXISTS {', '.join(sorted(privileges))} ON {on}.* FROM {quoted}{_GONE}"
