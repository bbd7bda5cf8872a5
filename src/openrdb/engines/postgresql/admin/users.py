"""Roles: names, verifiers, and the first administrator."""

from __future__ import annotations

from contextlib import suppress

from psycopg import Connection, sql

from openrdb.engines import names
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.admin import administrators, databases, privileges
from openrdb.engines.postgresql.admin.levels import Level, Row
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import User

_LONGEST_NAME = 63
_RESERVED = {"public", "none", "current_user", "current_role", "session_user"}
_LISTED = """
    SELECT oid, rolname, rolcreaterole AND rolcreatedb FROM pg_roles
    WHERE rolcanlogin AND NOT rolsuper AND rolname !~ '^(_rdb|pg_)' ORDER BY rolname
"""
_ENDED = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
_OWN_DATABASES = """
    SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s ORDER BY datname
"""
_DEPENDING = f"""
    SELECT datname, bool_or(deptype = 'o' AND s.dbid = d.oid)
        AND datdba NOT IN (r.oid, '{SUPERUSER}'::regrole::oid),
        datallowconn AND datconnlimit <> {databases.INVALID}
    FROM pg_shdepend s
    JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass
    JOIN pg_database d ON d.oid = s.dbid OR s.classid = 'pg_database'::regclass
        AND s.objid = d.oid
    WHERE rolname = %s GROUP BY d.oid, datname, datdba, r.oid, datallowconn, datconnlimit
    ORDER BY datname
"""  # noqa: S608
"""Databases in which something is the user's or is granted to the user; whether something in another
user's database is the user's; whether one can come in."""


def check_name(argument: str, name: str) -> None:
    """Raise InvalidArguments unless a user may have this name."""
    check_not_reserved(argument, name)
    names.check_new_user_name(argument, name, _LONGEST_NAME)


def check_not_reserved(argument: str, name: str) -> None:
    """Raise InvalidArguments for the name of a role that is no user's."""
    names.check_not_reserved_user(argument, name, names=_RESERVED, prefixes=("pg_",))


def listed(connection: Connection[Row]) -> list[User]:
    return [User(str(name), bool(admin)) for _, name, admin in connection.execute(_LISTED)]


def ids(connection: Connection[Row]) -> dict[int, str]:
    """Return the names of all users by their OIDs."""
    return {int(str(oid)): str(name) for oid, name, _ in connection.execute(_LISTED)}


def find(connection: Connection[Row], name: str) -> User:
    """Raise NotFound if there is no such user."""
    for user in listed(connection):
        # What is no UTF-8 is listed with marks in its name, which are not in the name itself.
        if user.name == name and exists(connection, name):
            return user
    raise NotFound("user", name)


def check_create(connection: Connection[Row], name: str) -> None:
    check_name("name", name)
    query = "SELECT 1 FROM pg_roles WHERE rolname = %s"
    if connection.execute(query, [name]).fetchone():
        raise InvalidArguments(("name", "constraint", f"the user {name} exists already"))


def ensure(connection: Connection[Row], name: str, verifier: str, *, is_admin: bool) -> None:
    """Make the user exist with this password and these attributes."""
    query = "SELECT 1 FROM pg_roles WHERE rolname = %s"
    verb = "ALTER" if connection.execute(query, [name]).fetchone() else "CREATE"
    attributes = "LOGIN " + _attributes(is_admin)
    statement = sql.SQL(f"{verb} ROLE {{}} {attributes} PASSWORD {{}}")
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(verifier)))


def change(
    connection: Connection[Row], name: str, verifier: str | None, is_admin: bool | None
) -> None:
    """Change what is not None."""
    role = sql.Identifier(name)
    if verifier is not None:
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
        connection.execute(statement.format(role, sql.Literal(verifier)))
    if is_admin is not None:
        statement = sql.SQL(f"ALTER ROLE {{}} {_attributes(is_admin)}")
        connection.execute(statement.format(role))
        if not is_admin:
            administrators.dismiss(connection, name)


def _attributes(is_admin: bool) -> str:
    return "CREATEDB CREATEROLE" if is_admin else "NOCREATEDB NOCREATEROLE"


def check_delete(connection: Connection[Row], name: str) -> None:
    """Raise PreconditionFailed where the user owns what only its owner may end."""
    check_not_reserved("name", name)
    find(connection, name)
    what = [f"the database {row[0]}" for row in connection.execute(_OWN_DATABASES, [name])]
    found = connection.execute(_DEPENDING, [name]).fetchall()
    what += [f"objects in the database {database}" for database, owns, _ in found if owns]
    if what:
        raise PreconditionFailed("user_owns_objects", f"{name} owns {', '.join(what)}")
    databases_of(connection, name)


def shut_out(connection: Connection[Row], name: str) -> int:
    """Refuse the user's connections and end their sessions; return the former connection limit."""
    query = "SELECT rolconnlimit FROM pg_roles WHERE rolname = %s"
    row = connection.execute(query, [name]).fetchone()
    assert row is not None  # noqa: S101
    limit(connection, name, 0)
    connection.commit()
    connection.execute(_ENDED, [name])
    return int(str(row[0]))


def limit(connection: Connection[Row], name: str, connections: int) -> None:
    statement = sql.SQL(f"ALTER ROLE {{}} CONNECTION LIMIT {connections}")
    connection.execute(statement.format(sql.Identifier(name)))


def databases_of(connection: Connection[Row], name: str) -> list[str]:
    """Return the databases in which the user owns something or has been granted something.

    Raises:
        PreconditionFailed: a tenant has closed one, or its name is not UTF-8.
    """
    found = connection.execute(_DEPENDING, [name]).fetchall()
    for database, _, open_ in found:
        if not open_ or "\ufffd" in str(database):
            why = f"{name} has privileges in the database {database}, which cannot be entered"
            raise PreconditionFailed("database_accepts_connections", why)
    return [str(database) for database, _, _ in found]


def oid(connection: Connection[Row], name: str) -> int | None:
    row = connection.execute("SELECT oid FROM pg_roles WHERE rolname = %s", [name]).fetchone()
    return int(str(row[0])) if row else None


def strip(connection: Connection[Row], role: int) -> None:
    """Give a role's objects in the current database to the database's owner; revoke all its privileges.

    The database may have another encoding, in which the role's name is not what it is elsewhere.
    """
    _execute_for(connection, "REASSIGN OWNED BY %I TO pg_database_owner", role)
    row = connection.execute("SELECT pg_get_userbyid(%s)", [role]).fetchone()
    assert row is not None  # noqa: S101
    with suppress(NotFound):  # its name cannot be written in this encoding
        privileges.grant(connection, str(row[0]), Level())
    _execute_for(connection, "DROP OWNED BY %I", role)


def _execute_for(connection: Connection[Row], command: str, role: int) -> None:
    block = f"BEGIN EXECUTE format('{command}', pg_get_userbyid({role})); END"
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))


def exists(connection: Connection[Row], name: str) -> bool:
    query = "SELECT 1 FROM pg_roles WHERE rolname = %s AND NOT rolsuper"
    return connection.execute(query, [name]).fetchone() is not None


def drop(connection: Connection[Row], name: str) -> None:
    connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
