"""What makes an administrator one, in addition to the attributes CREATEROLE and CREATEDB.

All of it is granted to the role of administrators, whose members they are. That one is a member of
all other roles: so they can dump and restore what others own, and pass it on. Two roles cannot be
members of one another, so not of each other's.

Up to 15 CREATEROLE is enough to administer roles. From 16 on it also takes the ADMIN OPTION on each,
which the creator of a role gets by itself, and all administrators by the role of theirs.
"""

from __future__ import annotations

from contextlib import suppress

from psycopg import Connection, errors, sql

from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.postgresql.admin.roles import ADMIN

_NO_MEMBERS = f"""
    SELECT rolname FROM pg_roles r
    WHERE rolcreaterole AND rolcreatedb AND NOT rolsuper AND rolname !~ '^(_rdb|pg_)' AND NOT EXISTS (
        SELECT FROM pg_auth_members WHERE pg_get_userbyid(roleid) = '{ADMIN}' AND member = r.oid
    )
"""  # noqa: S608
_MISSING = f"""
    SELECT rolname FROM pg_roles r
    WHERE NOT rolcreaterole AND NOT rolsuper AND rolname !~ '^(_rdb|pg_)' AND NOT EXISTS (
        SELECT FROM pg_auth_members WHERE roleid = r.oid AND pg_get_userbyid(member) = '{ADMIN}'
            AND grantor = '{SUPERUSER}'::regrole
    )
"""  # noqa: S608
_WITHIN = f"""
    SELECT rolname FROM pg_roles r
    WHERE rolname !~ '^(_rdb|pg_)' AND pg_has_role(oid, %s::name, 'MEMBER') AND EXISTS (
        SELECT FROM pg_auth_members WHERE roleid = r.oid AND pg_get_userbyid(member) = '{ADMIN}'
    )
"""  # noqa: S608
"""Roles through which administrators are members of a role; that one cannot be one of them then."""
_GRANTED = """
    SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), admin_option, inherit_option, set_option
    FROM pg_auth_members
    WHERE pg_get_userbyid(grantor) = %(grantor)s
        AND (%(role)s::text IS NULL OR pg_get_userbyid(roleid) = %(role)s)
"""
_OPTIONS = """
    SELECT pg_get_userbyid(roleid), pg_get_userbyid(grantor), {acting} FROM pg_auth_members
    WHERE pg_get_userbyid(member) = %s AND admin_option
"""
"""The roles that an administrator may grant, by whom, and whether they can act as them too."""


def _needs_options(connection: Connection[Row]) -> bool:
    return connection.info.server_version >= 160000


def appoint(connection: Connection[Row]) -> None:
    """Let every administrator be one, and administer all other roles."""
    for (name,) in connection.execute(_NO_MEMBERS).fetchall():
        for (role,) in connection.execute(_WITHIN, [name]).fetchall():
            hand_over(connection, ADMIN, role=str(role))
            statement = sql.SQL("REVOKE {} FROM {}")
            connection.execute(statement.format(_name(role), _name(ADMIN)))
        _grant_if_possible(connection, sql.SQL("GRANT {} TO {}").format(_name(ADMIN), _name(name)))
    options = " WITH ADMIN TRUE, INHERIT TRUE, SET TRUE" if _needs_options(connection) else ""
    for (role,) in connection.execute(_MISSING).fetchall():
        statement = sql.SQL("GRANT {} TO {}" + options)
        _grant_if_possible(connection, statement.format(_name(role), _name(ADMIN)))


def _grant_if_possible(connection: Connection[Row], statement: sql.Composed) -> None:
    """Not where the one is a member of the other, by SQL, nor where a name is no UTF-8."""
    unable = (errors.InvalidGrantOperation, errors.UndefinedObject)
    with suppress(*unable), connection.transaction():
        connection.execute(statement)


def hand_over(connection: Connection[Row], name: str, *, role: str | None = None) -> None:
    """Make the superuser the grantor of what an administrator has granted, so that it stays.

    `role`: of this role only.
    """
    if not _needs_options(connection):
        return
    granted = {"grantor": name, "role": role}
    for given, member, *options in connection.execute(_GRANTED, granted).fetchall():
        admin, inherit, set_ = (sql.SQL(str(option).upper()) for option in options)
        connection.execute(
            sql.SQL("GRANT {} TO {} WITH ADMIN {}, INHERIT {}, SET {}").format(
                _name(given), _name(member), admin, inherit, set_
            )
        )
        revoke = sql.SQL("REVOKE {} FROM {} GRANTED BY {} CASCADE")
        connection.execute(revoke.format(_name(given), _name(member), _name(name)))


def dismiss(connection: Connection[Row], name: str) -> None:
    """Revoke what makes an administrator one, also what they granted themselves."""
    connection.execute(sql.SQL("REVOKE {} FROM {}").format(_name(ADMIN), _name(name)))
    hand_over(connection, name)
    by_grantor = _needs_options(connection)
    query = _OPTIONS.format(acting="inherit_option OR set_option" if by_grantor else "true")
    for role, grantor, acting in connection.execute(query, [name]).fetchall():
        option = sql.SQL("ADMIN OPTION FOR " if acting else "")
        statement = sql.SQL("REVOKE {}{} FROM {}").format(option, _name(role), _name(name))
        if by_grantor:
            statement += sql.SQL(" GRANTED BY {}").format(_name(grantor))
        connection.execute(statement + sql.SQL(" CASCADE"))


def _name(found: object) -> sql.Identifier:
    return sql.Identifier(str(found))
