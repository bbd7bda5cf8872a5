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
from openrdb.engines.postgresql.admin import roles
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.postgresql.admin.roles import ADMIN

_NO_MEMBERS = f"""
    SELECT oid, rolname FROM pg_roles r
    WHERE rolcreaterole AND rolcreatedb AND NOT rolsuper AND rolname !~ '^(_rdb|pg_)' AND NOT EXISTS (
        SELECT FROM pg_auth_members WHERE pg_get_userbyid(roleid) = '{ADMIN}' AND member = r.oid
    )
"""  # noqa: S608
_MISSING = f"""
    SELECT oid, rolname FROM pg_roles r
    WHERE NOT rolcreaterole AND NOT rolsuper AND rolname !~ '^pg_' AND rolname <> ALL(%s)
    AND NOT EXISTS (
        SELECT FROM pg_auth_members WHERE roleid = r.oid AND pg_get_userbyid(member) = '{ADMIN}'
            AND grantor = '{SUPERUSER}'::regrole
    )
"""  # noqa: S608
_WITHIN = f"""
    SELECT oid FROM pg_roles r
    WHERE rolname !~ '^(_rdb|pg_)' AND pg_has_role(oid, %s::oid, 'MEMBER') AND EXISTS (
        SELECT FROM pg_auth_members WHERE roleid = r.oid AND pg_get_userbyid(member) = '{ADMIN}'
    )
"""  # noqa: S608
"""Roles through which administrators are members of a role; that one cannot be one of them then."""
_DISMISSED_EARLIER = f"""
    SELECT DISTINCT member FROM pg_auth_members m JOIN pg_roles u ON u.oid = member
    WHERE m.grantor = member AND rolcanlogin AND NOT rolcreaterole AND NOT rolsuper AND NOT EXISTS (
        SELECT FROM pg_auth_members a WHERE pg_get_userbyid(a.roleid) = '{ADMIN}' AND a.member = u.oid
    )
"""  # noqa: S608
"""Users who are no administrators, and have granted themselves a role."""
_HAND_OVER = """
    DECLARE
        one record;
    BEGIN
        FOR one IN
            SELECT pg_get_userbyid(roleid) AS role, pg_get_userbyid(member) AS member,
                pg_get_userbyid(grantor) AS grantor, admin_option, inherit_option, set_option
            FROM pg_auth_members WHERE grantor = <grantor> AND roleid = <role>
        LOOP
            EXECUTE format(
                'GRANT %I TO %I WITH ADMIN %s, INHERIT %s, SET %s', one.role, one.member,
                one.admin_option::text, one.inherit_option::text, one.set_option::text
            );
            EXECUTE format(
                'REVOKE %I FROM %I GRANTED BY %I CASCADE', one.role, one.member, one.grantor
            );
        END LOOP;
    END
"""
"""The server writes the names: they may be no UTF-8."""


def _needs_options(connection: Connection[Row]) -> bool:
    return connection.info.server_version >= 160000


def appoint(connection: Connection[Row]) -> None:
    """Let every administrator be one, and administer all other roles."""
    above = roles.oid(connection, ADMIN)
    assert above is not None  # noqa: S101
    for user_id, name in _writable(connection, _NO_MEMBERS):
        within = [int(str(role)) for (role,) in connection.execute(_WITHIN, [user_id]).fetchall()]
        for role_id in within:
            hand_over(connection, above, role=role_id)
        roles.leave(connection, above, within)
        _grant_if_possible(connection, sql.SQL("GRANT {} TO {}").format(_name(ADMIN), _name(name)))
    options = " WITH ADMIN TRUE, INHERIT TRUE, SET TRUE" if _needs_options(connection) else ""
    for _, role in _writable(connection, _MISSING, list(roles.OWN)):
        statement = sql.SQL("GRANT {} TO {}" + options)
        _grant_if_possible(connection, statement.format(_name(role), _name(ADMIN)))


def _writable(connection: Connection[Row], query: str, *values: object) -> list[Row]:
    """Return the roles found whose names can be written: not those that are no UTF-8."""
    found = connection.execute(query, values).fetchall()
    return [row for row in found if "\ufffd" not in str(row[1])]


def _grant_if_possible(connection: Connection[Row], statement: sql.Composed) -> None:
    """Not where the one is a member of the other, by SQL, nor where it is gone meanwhile."""
    unable = (errors.InvalidGrantOperation, errors.UndefinedObject)
    with suppress(*unable), connection.transaction():
        connection.execute(statement)


def dismiss_earlier(connection: Connection[Row]) -> list[int]:
    """Revoke what administrators had granted themselves whom earlier versions dismissed, up to 15;
    return their OIDs.

    From 16 on those versions had made the superuser its grantor: it cannot be told from what others
    granted, and stays.
    """
    if _needs_options(connection):
        return []
    found = [int(str(user)) for (user,) in connection.execute(_DISMISSED_EARLIER).fetchall()]
    if found:
        roles.leave_own(connection, found)
    return found


def hand_over(connection: Connection[Row], grantor: int, *, role: int | None = None) -> None:
    """Make the superuser the grantor of what an administrator has granted, so that it stays.

    `role`: of this role only.
    """
    if not _needs_options(connection):
        return
    block = _HAND_OVER.replace("<grantor>", str(grantor))
    block = block.replace("<role>", "roleid" if role is None else str(role))
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))


def _name(found: object) -> sql.Identifier:
    return sql.Identifier(str(found))
