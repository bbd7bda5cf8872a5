"""What lets an administrator administer other roles, in addition to the attribute CREATEROLE.

Up to 15 CREATEROLE is enough. From 16 on it also takes the ADMIN OPTION on each role, which the creator
of a role gets by itself. Here administrators get it on every role but each other: two roles cannot
have it on one another.
"""

from __future__ import annotations

from contextlib import suppress

from psycopg import Connection, errors, sql

from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.admin.levels import Row

_MISSING = f"""
    SELECT role.rolname, administrator.rolname FROM pg_roles role, pg_roles administrator
    WHERE administrator.rolcreaterole AND administrator.rolcreatedb
        AND administrator.rolname !~ '^(_rdb|pg_)' AND NOT administrator.rolsuper
        AND NOT role.rolcreaterole AND NOT role.rolsuper AND role.rolname !~ '^(_rdb|pg_)'
        AND NOT EXISTS (
            SELECT FROM pg_auth_members WHERE roleid = role.oid AND member = administrator.oid
                AND grantor = '{SUPERUSER}'::regrole AND admin_option
        )
"""  # noqa: S608
_GRANTED = """
    SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), admin_option, inherit_option, set_option
    FROM pg_auth_members WHERE pg_get_userbyid(grantor) = %s
"""
_IMPLIED = f"""
    SELECT pg_get_userbyid(roleid), inherit_option OR set_option FROM pg_auth_members
    WHERE pg_get_userbyid(member) = %s AND grantor = '{SUPERUSER}'::regrole AND admin_option
"""  # noqa: S608


def _needs_options(connection: Connection[Row]) -> bool:
    return connection.info.server_version >= 160000


def appoint(connection: Connection[Row]) -> None:
    """Let every administrator administer all other roles."""
    if not _needs_options(connection):
        return
    statement = sql.SQL("GRANT {} TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    for role, administrator in connection.execute(_MISSING).fetchall():
        # Not where the role is a member of the administrator's, by SQL, nor where its name is no UTF-8.
        unable = (errors.InvalidGrantOperation, errors.UndefinedObject)
        with suppress(*unable), connection.transaction():
            connection.execute(statement.format(_name(role), _name(administrator)))


def hand_over(connection: Connection[Row], name: str) -> None:
    """Make the superuser the grantor of what an administrator has granted, so that it stays."""
    if not _needs_options(connection):
        return
    for role, member, *options in connection.execute(_GRANTED, [name]).fetchall():
        admin, inherit, set_ = (sql.SQL(str(option).upper()) for option in options)
        connection.execute(
            sql.SQL("GRANT {} TO {} WITH ADMIN {}, INHERIT {}, SET {}").format(
                _name(role), _name(member), admin, inherit, set_
            )
        )
        revoke = sql.SQL("REVOKE {} FROM {} GRANTED BY {} CASCADE")
        connection.execute(revoke.format(_name(role), _name(member), _name(name)))


def dismiss(connection: Connection[Row], name: str) -> None:
    """Revoke the ADMIN OPTION that an administrator has."""
    if not _needs_options(connection):
        return
    hand_over(connection, name)
    for role, acting in connection.execute(_IMPLIED, [name]).fetchall():
        option = sql.SQL("ADMIN OPTION FOR " if acting else "")
        statement = sql.SQL("REVOKE {}{} FROM {} CASCADE")
        connection.execute(statement.format(option, _name(role), _name(name)))


def _name(found: object) -> sql.Identifier:
    return sql.Identifier(str(found))
