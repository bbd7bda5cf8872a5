"""A fresh copy of the template becomes an instance's: its administrator, and secrets of its own."""

from __future__ import annotations

import pymysql
from pymysql.constants import ER

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import (
    accounts,
    caching_sha2,
    channel,
    copying,
    definitions,
    identity,
    replication,
    reserved,
    session,
    sql,
    writes,
)
from openrdb.engines.mysql.admin import levels, privileges, users
from openrdb.engines.mysql.session import Session
from openrdb.engines.names import FIRST_DATABASE
from openrdb.spec import Administrator


def run(
    node: EngineNode,
    template_secret: str,
    replication_secret: str,
    administrator: Administrator | None,
) -> None:
    """Create the instance's first administrator and, last, set both secrets at once."""
    with _first_session(node, template_secret) as connection:
        if administrator is not None:
            users.ensure(connection, administrator.name, administrator.verifier, is_admin=True)
            granted = levels.read(connection)
            privileges.apply(connection, granted, FIRST_DATABASE, administrator.name, "all")
        superuser = _superuser(node)
        sql.run(connection, f"ALTER USER {superuser}, {replication.unlocked(replication_secret)}")
        writes.run_events(connection)
    identity.forget_copied(node.paths.data)


def take_over(node: EngineNode, former_secret: str) -> None:
    """Set the superuser's secret in a copy of another node's data, and let it run its events.

    One-time events whose moment has passed are left to the source.
    """
    with _first_session(node, former_secret) as connection:
        copying.unload(connection)  # which older code has left in copies
        sql.run(connection, f"ALTER USER {_superuser(node)}")
        definitions.disable_missed(connection)
        channel.leave(node, connection)
    identity.forget_copied(node.paths.data)


def _superuser(node: EngineNode) -> str:
    own = accounts.identified(caching_sha2.verifier(node.secret))
    return f"{sql.quoted_account(reserved.SUPERUSER)} {own}"


def _first_session(node: EngineNode, former_secret: str) -> Session:
    try:
        return session.connect(node, secret=former_secret)
    except pymysql.err.OperationalError as error:
        # Done before, and its end not recorded.
        if error.args[0] != ER.ACCESS_DENIED_ERROR:
            raise
        return session.connect(node)
