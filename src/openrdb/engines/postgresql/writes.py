"""What users may write, brought into force in a running server."""

from __future__ import annotations

import time
from typing import Final

from psycopg import Connection, sql

from openrdb.engines.base import EngineNode
from openrdb.engines.names import REPLICATION, SUPERUSER
from openrdb.engines.postgresql import config, session, settings
from openrdb.engines.postgresql.admin.levels import Row

_PATIENCE = 3.0
"""Seconds in which sessions that are told to end have ended."""
_PAUSE = 0.02
_OWN: Final = [SUPERUSER, REPLICATION]

_OVERRIDES: Final = """
    SELECT databases.datname, roles.rolname
    FROM pg_db_role_setting AS settings
    CROSS JOIN unnest(settings.setconfig) AS one
    LEFT JOIN pg_database AS databases ON databases.oid = settings.setdatabase
    LEFT JOIN pg_roles AS roles ON roles.oid = settings.setrole
    WHERE split_part(one, '=', 1) = %s AND split_part(one, '=', 2) <> 'on'
"""
# A transaction that began before the reload writes on, whatever the default has become.
_END_WRITERS: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM %s
    AND backend_xid IS NOT NULL AND coalesce(xact_start < pg_conf_load_time(), true)
"""
_END_USERS: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE usename <> ALL (%s) AND backend_type NOT LIKE 'autovacuum%%'
"""


def enforce(node: EngineNode, *, changed: bool) -> None:
    """Reload the files, and end what may do more than they say."""
    with session.connect(node, "postgres") as connection:
        connection.autocommit = True
        if changed:
            settings.reload(node)
        if node.writes == "closed":
            _end_users(connection)
        elif node.writes == "read_only":
            connection.execute(_END_WRITERS, [SUPERUSER])
            # Last, as this itself may find no room. Sessions keep what they began with.
            if changed and _reset_overrides(connection):
                connection.execute(_END_USERS, [_OWN])


def _reset_overrides(connection: Connection[Row]) -> bool:
    """Take back what lets users' sessions write by default, settings of roles and databases; return
    whether there were any."""
    found = connection.execute(_OVERRIDES, [config.READ_ONLY]).fetchall()
    for database, role in found:
        whose = sql.SQL("ROLE {}").format(sql.Identifier(str(role)) if role else sql.SQL("ALL"))
        if database is not None:
            within = sql.SQL("DATABASE {}").format(sql.Identifier(str(database)))
            whose = sql.SQL("{} IN {}").format(whose, within) if role else within
        name = sql.Identifier(config.READ_ONLY)
        connection.execute(sql.SQL("ALTER {} RESET {}").format(whose, name))
    return bool(found)


def end_users(node: EngineNode) -> None:
    """End the sessions of users; others may begin."""
    with session.connect(node, "postgres") as connection:
        connection.autocommit = True
        _end_users(connection)


def _end_users(connection: Connection[Row]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while connection.execute(_END_USERS, [_OWN]).fetchone() != (0,):
        if time.monotonic() > deadline:
            return  # who was let in just before the reload, or is slow to end, is ended the next time
        time.sleep(_PAUSE)
