"""Permission levels: what each grants on a database, and what accounts have there by all grants.

A database's grants also hold for objects made later. What counts is the sum of

- privileges on the whole server, less those that are revoked for the database (partial revokes).
  GRANT OPTION cannot be revoked for one database, so it is not counted here,
- privileges on the database. The server finds them by the user's name and the client's host, so those
  of the anonymous user apply to every user without an account of their own. `_` and `%` in a database's
  name stand for themselves where partial revokes are on,
- the same for every role that the account may take, directly or through others,
- privileges on single tables, columns and routines, which are none of any level.

An account with all privileges on the whole server has `all`, whatever else is granted to it.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass
from typing import Final

from openrdb.engines.mysql import reserved
from openrdb.engines.mysql.admin import definers
from openrdb.engines.mysql.admin.grants import ALL, POSITIONS, READ, SERVER, WRITE
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import Account, quoted_identifier, rows
from openrdb.spec import Permission

Privileges = frozenset[str]

GRANT: Final = "GRANT OPTION"
LEVELS: Final[dict[Permission, Privileges]] = {
    "none": frozenset(),
    "readonly": frozenset(READ),
    "readwrite": frozenset((*READ, *WRITE)),
    "all": frozenset(ALL),
}
"""The levels that can be set."""

_MASTERFUL: Final = frozenset({"CREATE USER", "ROLE_ADMIN"})
"""Privileges on the whole server with each of which one can act as any other user."""

_COLUMNS: Final = {
    "CREATE TEMPORARY TABLES": "Create_tmp_table_priv",
    "SHOW DATABASES": "Show_db_priv",
    POSITIONS: "Repl_client_priv",
    GRANT: "Grant_priv",
}
"""Where a privilege's column in `mysql.user` and `mysql.db` is not named after it."""


def _columns(privileges: Iterable[str]) -> str:
    return ", ".join(_COLUMNS.get(one, one.replace(" ", "_") + "_priv") for one in privileges)


_ON_DATABASE = (*ALL, GRANT)
_ON_SERVER = (*ALL, *SERVER, POSITIONS, GRANT)
# What CREATE ROLE makes: nobody can log in before somebody has given it a password.
IS_ROLE: Final = "account_locked = 'Y' AND password_expired = 'Y' AND authentication_string = ''"
_ACCOUNTS = f"""
    SELECT user, host, {IS_ROLE}, user_attributes->'$.Restrictions', {_columns(_ON_SERVER)}
    FROM mysql.user
"""  # noqa: S608
_DYNAMIC = "SELECT user, host, priv FROM mysql.global_grants"
_ON_DATABASES = f"SELECT user, host, db, {_columns(_ON_DATABASE)} FROM mysql.db"  # noqa: S608
_ON_OBJECTS = """
    SELECT * FROM (
        SELECT user, host, db, 'TABLE' AS kind, table_name FROM mysql.tables_priv
        UNION ALL
        SELECT user, host, db, routine_type, routine_name FROM mysql.procs_priv
    ) AS granted
"""
_WITHIN = " WHERE db IN %s"
_ROLES = "SELECT to_user, to_host, from_user, from_host FROM mysql.role_edges"


@dataclass(frozen=True)
class Grants:
    """All grants of a server, as far as they are about databases."""

    everywhere: dict[Account, Privileges]
    """Privileges on the whole server, of every account there is."""
    only_roles: Set[Account]
    """Accounts by which nobody can log in, and which are the definer of nothing."""
    limits: dict[tuple[Account, str], Privileges]
    """What of it an account has not in a database."""
    on_databases: dict[tuple[Account, str], Privileges]
    on_objects: dict[tuple[Account, str], list[tuple[str, str]]]
    """Kind (TABLE, PROCEDURE …) and name of what in a database something is granted on."""
    roles: dict[Account, set[Account]]
    """What is directly granted to an account; any account may be another's role."""

    def users(self) -> list[str]:
        """Return the names of all users.

        The anonymous user is none, and neither are roles; but one that is an administrator or a definer
        is: what it defined runs with its privileges, although nobody can log in.
        """
        return [
            name
            for name, accounts in self._accounts.items()
            if name
            and any(one not in self.only_roles or self._is_masterful(one) for one in accounts)
        ]

    def accounts(self, user: str) -> list[Account]:
        """Return a user's accounts, one a host."""
        return self._accounts.get(user, [])

    @functools.cached_property
    def _accounts(self) -> dict[str, list[Account]]:
        found: dict[str, list[Account]] = defaultdict(list)
        for account in sorted(self.everywhere.keys() - reserved.ACCOUNTS):
            found[account[0]].append(account)
        return dict(found)

    def is_administrator(self, user: str) -> bool:
        """Return whether the user can make users or act as any other, also by a role."""
        return any(map(self._is_masterful, self.accounts(user)))

    def _is_masterful(self, account: Account) -> bool:
        sources = {account} | self.roles_of(account)
        return any(self.everywhere.get(one, frozenset()) & _MASTERFUL for one in sources)

    def regrantable(self, account: Account) -> list[str]:
        """Return the databases, and the objects with their kind, that have grants to the account which
        it may be able to pass on, as the grammar has them."""
        databases = [
            f"{quoted_identifier(database)}.*"
            for (one, database), privileges in self.on_databases.items()
            if one == account and GRANT in privileges
        ]
        objects = [
            f"{kind} {quoted_identifier(database)}.{quoted_identifier(name)}"
            for (one, database), found in self.on_objects.items()
            if one == account
            for kind, name in found
        ]
        return databases + objects

    def dependents(self, user: str) -> set[str]:
        """Return the users who may act as this one, and the user."""
        own = set(self.accounts(user))
        return {user} | {one[0] for one in self.everywhere if own & self.roles_of(one)}

    def own(self, account: Account, database: str) -> Privileges:
        """Return what the account has on a database without any role."""
        limits = self.limits.get((account, database), frozenset())
        on_database = self.on_databases.get((account, database)) or self.anonymous(database)
        return (self._everywhere(account) - limits) | on_database

    def exceeds(self, account: Account, database: str, level: Privileges) -> bool:
        """Return whether the account has more than a level on a database, without any role."""
        on_objects = self.on_objects.get((account, database))
        return bool(on_objects or self.own(account, database) - level)

    def _everywhere(self, account: Account) -> Privileges:
        return self.everywhere.get(account, frozenset()) & LEVELS["all"]

    def anonymous(self, database: str) -> Privileges:
        """Return what the anonymous user has on a database, from whatever host."""
        found = (self.on_databases.get((one, database), frozenset()) for one in self.accounts(""))
        return frozenset().union(*found)

    def roles_of(self, account: Account) -> set[Account]:
        """Return all that the account can act as, through whatever chain."""
        found = {account}
        waiting = [account]
        while waiting:
            new = self.roles.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found - {account}

    def level(self, user: str, database: str) -> Permission:
        """Return the level that all accounts of a user have.

        An administrator's is the one that was set, `all` if nothing or `none` was: they have everything
        in any case, and Terraform sees what it asked for.
        """
        found = {self._level(account, database) for account in self.accounts(user)}
        return found.pop() if len(found) == 1 else "custom"

    def _level(self, account: Account, database: str) -> Permission:
        if LEVELS["all"] <= self._everywhere(account) - self.limits.get(
            (account, database), frozenset()
        ):
            kept = self.on_databases.get((account, database))
            if not kept or not self._is_masterful(account):
                return "all"
            return next((name for name, wanted in LEVELS.items() if kept == wanted), "all")
        sources = {account} | self.roles_of(account)
        if any(self.on_objects.get((one, database)) for one in sources):
            return "custom"
        has = frozenset().union(*(self.own(one, database) for one in sources))
        return next((name for name, wanted in LEVELS.items() if has == wanted), "custom")


def read(session: Session, databases: Collection[str] | None = None) -> Grants:
    """Return the grants; of those on databases only these databases' (None: all).

    A server with a thousand users in forty databases has forty thousand of them.
    """
    narrow = "" if databases is None else _WITHIN
    within = [] if databases is None else [list(databases) or [""]]
    everywhere: dict[Account, Privileges] = {}
    only_roles: set[Account] = set()
    limits: dict[tuple[Account, str], Privileges] = {}
    for user, host, is_role, limited, *flags in rows(session, _ACCOUNTS):
        account = (str(user), str(host))
        everywhere[account] = _set(_ON_SERVER, flags)
        if is_role:
            only_roles.add(account)
        for one in json.loads(str(limited)) if limited else []:
            limits[account, one["Database"]] = frozenset(one["Privileges"])
    for user, host, privilege in rows(session, _DYNAMIC):
        if (account := (str(user), str(host))) in everywhere:  # made meanwhile otherwise
            everywhere[account] |= {str(privilege)}
    on_databases = {
        ((str(user), str(host)), str(database)): _set(_ON_DATABASE, flags)
        for user, host, database, *flags in rows(session, _ON_DATABASES + narrow, *within)
    }
    on_objects: dict[tuple[Account, str], list[tuple[str, str]]] = defaultdict(list)
    for user, host, database, kind, name in rows(session, _ON_OBJECTS + narrow, *within):
        on_objects[(str(user), str(host)), str(database)].append((str(kind), str(name)))
    roles: dict[Account, set[Account]] = defaultdict(set)
    for user, host, role, role_host in rows(session, _ROLES):
        roles[str(user), str(host)].add((str(role), str(role_host)))
    only_roles -= definers.among(session, only_roles)
    return Grants(everywhere, only_roles, limits, on_databases, dict(on_objects), dict(roles))


def _set(privileges: Iterable[str], flags: Iterable[object]) -> Privileges:
    return frozenset(one for one, flag in zip(privileges, flags, strict=True) if flag == "Y")
