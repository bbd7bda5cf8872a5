"""What users own in the current database, and its passing to `pg_database_owner`.

Not counted: temporary tables, which end with their session, and large objects, which anybody who may
connect can make; nor default privileges for what the user will make.
"""

from __future__ import annotations

from psycopg import Connection, sql

from openrdb.engines.postgresql.admin.levels import Row

_OWNED = """
    SELECT refobjid FROM pg_shdepend
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND refclassid = 'pg_authid'::regclass AND deptype = 'o'
        AND classid NOT IN ('pg_largeobject'::regclass, 'pg_default_acl'::regclass)
        AND NOT (
            classid = 'pg_class'::regclass
            AND objid IN (SELECT oid FROM pg_class WHERE relpersistence = 't')
        )
"""

# A column's sequence goes with its table.
_SOME_RELATIONS = """
    SELECT nspname, relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relowner = (SELECT oid FROM pg_roles WHERE rolname = %s)
        AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
        AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = c.oid AND relkind = 'S'
                AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
        )
    LIMIT %s
"""
_BATCH = 100
"""Relations a transaction: each takes locks on itself, its indexes and its TOAST table."""


def owners(connection: Connection[Row]) -> set[int]:
    """Return the OIDs of all who own something."""
    return {int(str(row[0])) for row in connection.execute(_OWNED).fetchall()}


def owns(connection: Connection[Row], user: str) -> bool:
    query = f"SELECT %s IN (SELECT pg_get_userbyid(refobjid) FROM ({_OWNED}) AS owned)"  # noqa: S608
    return connection.execute(query, [user]).fetchone() == (True,)


def give_up_some(connection: Connection[Row], user: str) -> bool:
    """Pass on as many relations as one transaction may lock; whether there may be more."""
    found = connection.execute(_SOME_RELATIONS, [user, _BATCH]).fetchall()
    for schema, name in found:
        relation = sql.Identifier(str(schema), str(name))
        statement = sql.SQL("ALTER TABLE {} OWNER TO pg_database_owner")
        connection.execute(statement.format(relation))
    return len(found) == _BATCH


def give_up(connection: Connection[Row], user: str) -> None:
    """Pass on all in the current database; databases stay the user's."""
    if not owns(connection, user):
        return
    databases = "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s"
    kept = connection.execute(databases, [user]).fetchall()
    role = sql.Identifier(user)
    connection.execute(sql.SQL("REASSIGN OWNED BY {} TO pg_database_owner").format(role))
    for (database,) in kept:  # REASSIGN OWNED takes databases too
        name = sql.Identifier(str(database))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, role))
