"""Databases: names, the list, making and ending them."""

from __future__ import annotations

from psycopg import Connection, sql
from psycopg.errors import Error, ObjectInUse

from openrdb.engines import names
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.postgresql.admin.roles import ADMIN
from openrdb.engines.transfers import OF_RESTORES
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import Database

INVALID = -2
"""The connection limit by which a database is marked whose deletion was interrupted."""
_SYSTEM = {"postgres", "template0", "template1"}
_LONGEST_NAME = 63
_MANAGED = f"datdba = '{SUPERUSER}'::regrole"
_VISIBLE = f"datname !~ '^{OF_RESTORES.pattern}$'"
"""Not what a restore makes, or leaves for some seconds."""
_LISTED = f"""
    SELECT datname, pg_get_userbyid(datdba), {_MANAGED},
        CASE WHEN %s THEN coalesce(pg_database_size(oid), 0) ELSE 0 END
    FROM pg_database WHERE datname <> ALL(%s) AND {_VISIBLE} ORDER BY datname
"""  # noqa: S608


def check_name(argument: str, name: str) -> None:
    """Raise InvalidArguments unless a new database may have this name."""
    if not 1 <= len(name.encode()) <= _LONGEST_NAME:
        raise InvalidArguments((argument, "constraint", f"must have 1 to {_LONGEST_NAME} bytes"))
    if not name.isprintable():
        help_message = "must not contain control characters"
        raise InvalidArguments((argument, "format", help_message))
    names.check_new_database_name(argument, name)
    if name in {*_SYSTEM, names.FIRST_DATABASE}:
        raise InvalidArguments((argument, "constraint", f"{name} is a reserved name"))
    names.check_not_reserved(argument, name, prefixes=("pg_",))


def listed(connection: Connection[Row], *, sizes: bool) -> list[Database]:
    return [
        Database(name=str(name), owner=str(owner), managed=bool(managed), size=int(str(size)))
        for name, owner, managed, size in connection.execute(_LISTED, [sizes, sorted(_SYSTEM)])
    ]


def managed(connection: Connection[Row]) -> list[str]:
    """Return the managed databases; not what an interrupted deletion has left of one."""
    query = f"""
        SELECT datname FROM pg_database
        WHERE {_MANAGED} AND {_VISIBLE} AND datname <> ALL(%s)
            AND datallowconn AND datconnlimit <> {INVALID}
        ORDER BY datname
    """  # noqa: S608
    return [str(row[0]) for row in connection.execute(query, [sorted(_SYSTEM)])]


def unprepared(connection: Connection[Row]) -> list[str]:
    """Return the managed databases that administrators have no access to: those of older code."""
    query = f"""
        SELECT datname FROM pg_database d
        WHERE {_MANAGED} AND {_VISIBLE} AND datname <> ALL(%s)
            AND datallowconn AND datconnlimit <> {INVALID}
            AND NOT EXISTS (
                SELECT FROM aclexplode(datacl) WHERE pg_get_userbyid(grantee) = '{ADMIN}'
                    AND privilege_type = 'CONNECT' AND is_grantable
            )
    """  # noqa: S608
    return [str(row[0]) for row in connection.execute(query, [sorted(_SYSTEM)])]


def is_managed(connection: Connection[Row], name: str) -> bool | None:
    """Return whether a database is managed; None if users see no such database."""
    if name in _SYSTEM:
        return None
    query = f"SELECT {_MANAGED} FROM pg_database WHERE datname = %s AND {_VISIBLE}"  # noqa: S608
    row = connection.execute(query, [name]).fetchone()
    return bool(row[0]) if row else None


def check_create(connection: Connection[Row], name: str) -> None:
    check_name("name", name)
    if is_managed(connection, name) is not None:
        raise InvalidArguments(("name", "constraint", f"the database {name} exists already"))


def ensure(connection: Connection[Row], name: str) -> None:
    """Create the database for nobody but its owner, from the template that nobody can change.

    Until everybody's privileges are revoked, its limit lets nobody but superusers in.
    """
    identifier = sql.Identifier(name)
    if is_managed(connection, name) is None:
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 CONNECTION LIMIT 0")
        connection.execute(statement.format(identifier, sql.Identifier(SUPERUSER)))
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(identifier))
    connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(identifier))


def check_delete(connection: Connection[Row], name: str) -> None:
    if name == names.FIRST_DATABASE or name in _SYSTEM:
        raise InvalidArguments(("name", "constraint", f"the database {name} cannot be deleted"))
    if is_managed(connection, name) is None:
        raise NotFound("database", name)


def ensure_none(connection: Connection[Row], name: str) -> None:
    """End the database's sessions and the database.

    Raises:
        PreconditionFailed: something that a session cannot be ended for is in the way.
    """
    if is_managed(connection, name) is None:
        return
    identifier = sql.Identifier(name)
    template = "SELECT 1 FROM pg_database WHERE datname = %s AND datistemplate"
    if connection.execute(template, [name]).fetchone():
        connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(identifier))
    try:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))
    except ObjectInUse as error:
        raise PreconditionFailed("database_in_use", reason(error)) from None


def reason(error: Error) -> str:
    """Return what the server says of a refusal, for people."""
    said = (error.diag.message_primary, error.diag.message_detail)
    return ": ".join(text.rstrip(".") for text in said if text)
