"""Bringing a server that older code made to what instances are born with."""

from __future__ import annotations

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import reserved, session, sql
from openrdb.engines.mysql.admin import grants, levels, user_sessions, users
from openrdb.engines.mysql.admin.grants import SYSTEM
from openrdb.engines.mysql.admin.levels import LEVELS, Grants
from openrdb.engines.mysql.sql import Account


def renew(node: EngineNode) -> None:
    """Give administrators what they have now, drop what no tenant may have any more; repeatable."""
    with session.connect(node) as connection:
        user_sessions.finish(connection)
        granted = levels.read(connection)
        wanted = frozenset(grants.renewed(connection.get_server_info()))
        if not wanted <= granted.everywhere[reserved.MODEL]:
            grants.renew_model(connection)
        for account in sorted(granted.everywhere.keys() - reserved.ACCOUNTS):
            if _is_outdated(granted, account, wanted):
                grants.make_administrator(connection, account)
        users.drop_anonymous(connection)
        taken = granted.everywhere.get(reserved.REPLICATION)
        if taken is not None and "SYSTEM_USER" not in taken:  # by a tenant, before it was reserved
            sql.run(connection, f"DROP USER {sql.quoted_account(reserved.REPLICATION)}")


def _is_outdated(granted: Grants, account: Account, wanted: frozenset[str]) -> bool:
    """Return whether an account has all that administrators had, but not what they have now.

    Earlier, a level that was put for an administrator limited them in that database.
    """
    held = granted.everywhere[account]
    limited = any(of == account and name not in SYSTEM for of, name in granted.limits)
    return LEVELS["all"] | {*grants.SERVER, "ROLE_ADMIN"} <= held and (
        limited or not wanted <= held
    )
