"""The roles of ours that hold rights and let nobody log in.

`_rdb_admin`: administrators are its members, and have by it all that makes them administrators except
the attributes CREATEROLE and CREATEDB. It owns nothing, so that no code runs as this role.

`_rdb_restore`: loads dumps, and can log in only meanwhile, by the Unix socket: see `restore`.

`_rdb_former_<OID>`: owns what the user of this OID left when their level fell below `all`.
`_rdb_former_0_<8 hexadecimal digits>`: the same role after the user was deleted. Its name has no OID,
so that a later user who is given the same one does not get the objects.
`_rdb_former_0`: owns what users left whom earlier versions deleted, of all of them.
Administrators are members of all of these. They may do nothing but what owners may, and create objects:
whoever passes on a table by SQL, or restores a dump that says who owned it, needs an owner who may
create one there. That right comes from `_rdb_former`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

from psycopg import Connection, errors, sql

from openrdb.engines.names import OWN_PREFIX, REPLICATION, SUPERUSER
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.transfers import RESTORE_ROLE

ADMIN: Final = "_rdb_admin"
FORMER: Final = "_rdb_former"
LEFT: Final = "_rdb_former_0"
OWN: Final = (SUPERUSER, REPLICATION, ADMIN, FORMER, LEFT, RESTORE_ROLE)

_PREDEFINED = {
    "pg_monitor": 14,
    "pg_read_all_settings": 14,
    "pg_read_all_stats": 14,
    "pg_stat_scan_tables": 14,
    "pg_checkpoint": 15,
    "pg_signal_backend": 16,  # up to 15 there is none: see template
    "pg_signal_autovacuum_worker": 18,
}
"""What administrators have and may grant, and the first version that has it."""
_PARAMETER = "session_replication_role"
_PARAMETERS_FROM = 15
_ENTERED: Sequence[str] = ("postgres", "template1")
"""Databases that administrators may only come into: tools connect to them."""
_ENTERED_LATER: Sequence[str] = ("template1",)

_SEARCHED = "search_path=pg_catalog, pg_temp"
"""What the superuser's processes look names up in, whatever a database's owner sets for it."""
_COMPLETE = f"""
    SELECT
        (SELECT count(*) FROM pg_roles WHERE rolname = ANY(%(ours)s) AND rolinherit AND NOT (
            rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
        )) = cardinality(%(ours)s)
        AND (SELECT count(DISTINCT (roleid, member)) FROM pg_auth_members
            WHERE (pg_get_userbyid(roleid)::text, pg_get_userbyid(member)::text, admin_option) IN (
                SELECT * FROM unnest(%(roles)s::text[], %(members)s::text[], %(admin)s::bool[])
            )) = cardinality(%(roles)s)
        AND (SELECT count(*) FROM pg_database, aclexplode(datacl)
            WHERE datname = ANY(%(entered)s) AND pg_get_userbyid(grantee) = '{ADMIN}'
                AND privilege_type = 'CONNECT' AND is_grantable) = cardinality(%(entered)s)
        AND EXISTS (SELECT FROM pg_db_role_setting
            WHERE setrole = 10 AND setdatabase = 0 AND '{_SEARCHED}' = ANY (setconfig))
"""  # noqa: S608
_GRANTS_NO_PARAMETER = f"""
        AND NOT EXISTS (SELECT FROM pg_parameter_acl, aclexplode(paracl)
            WHERE pg_get_userbyid(grantee) = '{ADMIN}' AND is_grantable)
"""


def statements(major: int) -> list[str]:
    """Return what makes the roles in a new server."""
    return [f"CREATE ROLE {role}" for role in (ADMIN, FORMER, LEFT)] + _rights(major)


def _members(major: int) -> list[tuple[str, str, bool]]:
    """Return roles, their members, and whether the member may grant the role."""
    predefined = [(role, ADMIN, True) for role, since in _PREDEFINED.items() if major >= since]
    return [(FORMER, LEFT, False), (LEFT, ADMIN, False), *predefined]


def _rights(major: int, entered: Sequence[str] = _ENTERED) -> list[str]:
    return [
        f"ALTER ROLE {SUPERUSER} SET {_SEARCHED}",
        *(
            f"GRANT {role} TO {member}" + (" WITH ADMIN OPTION" if option else "")
            for role, member, option in _members(major)
        ),
        *(f"GRANT CONNECT ON DATABASE {name} TO {ADMIN} WITH GRANT OPTION" for name in entered),
        *(
            [
                f"GRANT SET ON PARAMETER {_PARAMETER} TO {ADMIN}",
                # Earlier versions gave it. What it grants would keep a user from being deleted.
                f"REVOKE GRANT OPTION FOR SET ON PARAMETER {_PARAMETER} FROM {ADMIN} CASCADE",
            ]
            if major >= _PARAMETERS_FROM
            else []
        ),
    ]


def ensure(connection: Connection[Row]) -> None:
    """Make the roles what they are in a new server: older code made none, and up to 15 CREATEROLE lets
    administrators change them."""
    major = connection.info.server_version // 10000
    roles, members, admin = zip(*_members(major), strict=True)
    # Up to 14 everybody may make objects in `postgres` until that is revoked there.
    closing = major == 14 and connection.info.dbname == "postgres"
    entered = _ENTERED if major > 14 or closing else _ENTERED_LATER
    wanted = {
        "ours": [ADMIN, FORMER, LEFT],
        "roles": list(roles),
        "members": list(members),
        "admin": list(admin),
        "entered": list(entered),
    }
    complete = _COMPLETE + (_GRANTS_NO_PARAMETER if major >= _PARAMETERS_FROM else "")
    if connection.execute(complete, wanted).fetchone() == (True,):
        return
    for role in (ADMIN, FORMER, LEFT):
        ensure_role(connection, role)
    if closing:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    for statement in _rights(major, entered):
        # Not where SQL made the one a member of the other.
        with suppress(errors.InvalidGrantOperation), connection.transaction():
            connection.execute(statement)


def ensure_role(connection: Connection[Row], role: str) -> None:
    """Make one of ours exist, and let nobody log in as it."""
    found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    attributes = "INHERIT NOLOGIN NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD NULL"
    statement = sql.SQL(f"{'ALTER' if found else 'CREATE'} ROLE {{}} {attributes}")
    connection.execute(statement.format(sql.Identifier(role)))


def open_restore(connection: Connection[Row], verifier: str) -> None:
    """Let the role log in that loads dumps, alone and with nothing but what it is given there."""
    ensure_role(connection, RESTORE_ROLE)
    # SQL may have made it before, with members of its own.
    if (role_id := oid(connection, RESTORE_ROLE)) is not None:
        part(connection, role_id)
    if connection.info.server_version >= _PARAMETERS_FROM * 10000:
        # Functions of administrators may set it.
        connection.execute(f"GRANT SET ON PARAMETER {_PARAMETER} TO {RESTORE_ROLE}")
    # Code in a dump may have set some for later restores, as any role can for itself.
    connection.execute(f"ALTER ROLE {RESTORE_ROLE} RESET ALL")
    login = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}")
    connection.execute(login.format(sql.Identifier(RESTORE_ROLE), sql.Literal(verifier)))


def lend_to_restore(connection: Connection[Row], role_id: int | None) -> None:
    """Let the role that loads dumps have the rights of another one, until it is closed.

    The server writes the name: it may be no UTF-8.
    """
    options = " WITH INHERIT TRUE, SET FALSE" if _has_options(connection) else ""
    block = f"""
        BEGIN
            EXECUTE format('GRANT %I TO {RESTORE_ROLE}{options}', pg_get_userbyid({role_id}));
        END
    """
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))


def close_restore(connection: Connection[Row]) -> None:
    """Disable the login of the role that loads dumps, end its sessions, revoke what it was lent and
    whose it was made by SQL: the access file refuses its members."""
    ensure_role(connection, RESTORE_ROLE)
    if (role_id := oid(connection, RESTORE_ROLE)) is not None:
        part(connection, role_id)
    connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s",
        [RESTORE_ROLE],
    )


_RESERVED = f"""
    SELECT oid, rolname FROM pg_roles WHERE rolname ~ '^{OWN_PREFIX}'
        AND rolname NOT IN ('{SUPERUSER}', '{REPLICATION}', '{RESTORE_ROLE}')
        AND (rolcanlogin OR rolcreaterole OR rolcreatedb)
"""  # noqa: S608
_DISABLE = f"""
    DECLARE
        one record;
    BEGIN
        FOR one IN {_RESERVED} LOOP
            EXECUTE format('ALTER ROLE %I NOLOGIN NOCREATEROLE NOCREATEDB', one.rolname);
        END LOOP;
    END
"""


def disable_reserved(connection: Connection[Row]) -> None:
    """Let nobody log in as a role that SQL gave a name of ours, and end its sessions.

    Commits the transaction. The names are put into statements by the server: they may be no UTF-8.
    """
    found = [oid for oid, _ in connection.execute(_RESERVED).fetchall()]
    if found:
        connection.execute(sql.SQL("DO {}").format(sql.Literal(_DISABLE)))
        connection.commit()
        end_sessions(connection, found)


def end_sessions(connection: Connection[Row], found: Collection[object]) -> None:
    """End all sessions of some roles, which their OIDs name."""
    query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usesysid = ANY(%s)"
    connection.execute(query, [list(found)])


def leave(connection: Connection[Row], user_id: int, left: Collection[int] | None = None) -> None:
    """Revoke a role's memberships, whoever granted them; `left`: the roles to leave, if not all."""
    among = (
        f" AND roleid = ANY(ARRAY[{', '.join(map(str, left))}]::oid[])" if left is not None else ""
    )
    _revoke(connection, f"member = {user_id}{among}")


def close(connection: Connection[Row], user_id: int) -> None:
    """Revoke what a role has been granted on the databases that administrators may only come into.

    As whoever granted it: the owner's REVOKE reaches only what the owner granted.
    """
    entered = ", ".join(f"'{name}'" for name in _ENTERED)
    block = f"""
        DECLARE
            one record;
        BEGIN
            FOR one IN
                SELECT DISTINCT datname AS database, pg_get_userbyid(grantee) AS grantee,
                    pg_get_userbyid(grantor) AS grantor
                FROM pg_database, aclexplode(datacl)
                WHERE datname IN ({entered}) AND grantee = {user_id}
            LOOP
                EXECUTE format('SET LOCAL ROLE %I', one.grantor);
                EXECUTE format(
                    'REVOKE ALL ON DATABASE %I FROM %I CASCADE', one.database, one.grantee
                );
                RESET ROLE;
            END LOOP;
        END
    """  # noqa: S608
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))


def revoke_of_extensions(connection: Connection[Row], user_id: int) -> None:
    """Revoke what a role has been granted in the current database on what extensions have made: what
    administrators grant, who may do so by grants of the superuser's, DROP OWNED leaves.
    """
    block = f"""
        DECLARE
            one record;
        BEGIN
            FOR one IN
                SELECT DISTINCT what, pg_get_userbyid(grantor) AS grantor
                FROM (
                    SELECT format('SCHEMA %I', nspname) AS what, nspowner AS owner, nspacl AS acl
                    FROM pg_namespace
                    UNION ALL
                    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END ||
                        c.oid::regclass, relowner, relacl
                    FROM pg_class AS c
                    UNION ALL
                    SELECT 'TABLE ' || attrelid::regclass, relowner, attacl
                    FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
                ) AS object, aclexplode(acl)
                WHERE owner = 10 AND grantor <> 10 AND grantee = {user_id}
            LOOP
                EXECUTE format('SET LOCAL ROLE %I', one.grantor);
                EXECUTE format(
                    'REVOKE ALL ON %s FROM %I CASCADE', one.what, pg_get_userbyid({user_id})
                );
                RESET ROLE;
            END LOOP;
        END
    """  # noqa: S608
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))


def leave_own(connection: Connection[Row], users: Collection[int]) -> None:
    """Revoke the memberships that some roles have granted themselves."""
    _revoke(connection, f"member = grantor AND member IN ({', '.join(map(str, users))})")


def part(connection: Connection[Row], role_id: int) -> None:
    """Revoke a role's memberships and those in it, whoever granted them."""
    _revoke(connection, f"roleid = {role_id} OR member = {role_id}")


def _has_options(connection: Connection[Row]) -> bool:
    """Return whether each membership says what comes with it, and who granted it."""
    return connection.info.server_version >= 160000


def _revoke(connection: Connection[Row], which: str) -> None:
    """Revoke some memberships. The server writes the names: they may be no UTF-8."""
    by_grantor = _has_options(connection)
    granted_by, grantor = (" GRANTED BY %I", ", one.grantor") if by_grantor else ("", "")
    block = f"""
        DECLARE
            one record;
        BEGIN
            FOR one IN
                SELECT pg_get_userbyid(roleid) AS role, pg_get_userbyid(member) AS member,
                    pg_get_userbyid(grantor) AS grantor
                FROM pg_auth_members WHERE {which}
            LOOP
                EXECUTE format(
                    'REVOKE %I FROM %I{granted_by} CASCADE', one.role, one.member{grantor}
                );
            END LOOP;
        END
    """  # noqa: S608
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))


def oid(connection: Connection[Row], role: str) -> int | None:
    row = connection.execute("SELECT oid FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    return int(str(row[0])) if row else None


def has_members(connection: Connection[Row], role_id: int | None) -> bool:
    """Return whether somebody is a member of a role."""
    query = "SELECT 1 FROM pg_auth_members WHERE roleid = %s LIMIT 1"
    return connection.execute(query, [role_id]).fetchone() is not None


_ADMINISTRATORS = f"""
    SELECT member FROM pg_auth_members WHERE pg_get_userbyid(roleid) = '{ADMIN}'
"""  # noqa: S608


def administrators(connection: Connection[Row]) -> set[int]:
    """Return the OIDs of administrators."""
    return {int(str(row[0])) for row in connection.execute(_ADMINISTRATORS).fetchall()}
