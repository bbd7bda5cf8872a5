"""The roles that own what former users left, one for each: see `roles`."""

from __future__ import annotations

from typing import Final

from psycopg import Connection, sql

from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.admin import roles
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.postgresql.admin.roles import ADMIN, FORMER

NAMES: Final = f"^{FORMER}_([1-9][0-9]*|0_[0-9a-f]{{8}})$"
"""The pattern of these roles' names, for existing users and for deleted ones."""
_OURS: Final = f"""EXISTS (
    SELECT FROM pg_auth_members
    WHERE pg_get_userbyid(roleid) = '{FORMER}' AND member = r.oid AND grantor = '{SUPERUSER}'::regrole
)"""
"""The mark of a role that SQL did not make: only we grant `_rdb_former` as the superuser."""
_FOUND = f"SELECT oid FROM pg_roles r WHERE rolname = %s AND {_OURS}"  # noqa: S608
_EMPTY = f"""
    SELECT rolname FROM pg_roles r
    WHERE rolname ~ '{NAMES}' AND NOT EXISTS (
        SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = r.oid
    )
"""  # noqa: S608
_WITHOUT_USER = f"""
    SELECT rolname FROM pg_roles r
    WHERE rolname ~ '^{FORMER}_[1-9][0-9]*$' AND {_OURS}
        AND NOT EXISTS (SELECT FROM pg_roles u WHERE r.rolname = '{FORMER}_' || u.oid)
"""  # noqa: S608
_NEW_NAME = f"SELECT '{FORMER}_0_' || left(gen_random_uuid()::text, 8)"
"""At random, so that SQL cannot have taken it."""


def name(user_id: int) -> str:
    """Return the name of the role that owns what a user left."""
    return f"{FORMER}_{user_id}"


def find(connection: Connection[Row], user_id: int) -> int | None:
    """Return the OID of the role that owns what a user left; None if there is none.

    Not that of a role which SQL made: it may own traps for the user who gets things back.
    """
    row = connection.execute(_FOUND, [name(user_id)]).fetchone()
    return int(str(row[0])) if row else None


def ensure(connection: Connection[Row], user_id: int) -> str:
    """Make the role exist that owns what a user leaves; return its name."""
    role = name(user_id)
    if find(connection, user_id) is None and (made := roles.oid(connection, role)) is not None:
        _set_aside(connection, role, made)
    roles.ensure_role(connection, role)
    if (role_id := roles.oid(connection, role)) is not None:  # up to 15 SQL can give it members
        roles.part(connection, role_id)
    _grant(connection, role)
    return role


def make(connection: Connection[Row]) -> str:
    """Make a role for what a user left who is not known here; return its name.

    Give it something in the same transaction: an empty one is dropped.
    """
    role = _new_name(connection)
    roles.ensure_role(connection, role)
    _grant(connection, role)
    return role


def _grant(connection: Connection[Row], role: str) -> None:
    connection.execute(f"GRANT {FORMER} TO {role}")
    connection.execute(f"GRANT {role} TO {ADMIN}")


def _set_aside(connection: Connection[Row], role: str, role_id: int) -> None:
    """Rename a role that SQL made; the administrators have what it owns."""
    renamed = _rename(connection, role)
    roles.ensure_role(connection, renamed)
    roles.part(connection, role_id)
    connection.execute(f"GRANT {renamed} TO {ADMIN}")


def _rename(connection: Connection[Row], role: str) -> str:
    renamed = _new_name(connection)
    statement = sql.SQL("ALTER ROLE {} RENAME TO {}")
    connection.execute(statement.format(sql.Identifier(role), sql.Identifier(renamed)))
    return renamed


def _new_name(connection: Connection[Row]) -> str:
    row = connection.execute(_NEW_NAME).fetchone()
    assert row is not None  # noqa: S101
    return str(row[0])


def settle(connection: Connection[Row]) -> None:
    """Drop the roles that own nothing any more, and rename those whose users were deleted."""
    for (role,) in connection.execute(_EMPTY).fetchall():
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(str(role))))
    for (role,) in connection.execute(_WITHOUT_USER).fetchall():
        _rename(connection, str(role))
