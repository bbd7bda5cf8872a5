"""Roles: names, verifiers, and the first administrator."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from psycopg import Connection, sql

from openrdb.engines import names
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.admin import (
    administrators,
    databases,
    former,
    ownership,
    privileges,
    record,
    roles,
)
from openrdb.engines.postgresql.admin.levels import Level, Row
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed
from openrdb.spec import User

_LONGEST_NAME = 63
_RESERVED = {"public", "none", "current_user", "current_role", "session_user"}
_LISTED = f"""
    SELECT oid, rolname, rolcreaterole OR EXISTS (
        SELECT FROM pg_auth_members
        WHERE pg_get_userbyid(roleid) = '{roles.ADMIN}' AND member = r.oid
    )
    FROM pg_roles r
    WHERE rolcanlogin AND NOT rolsuper AND rolname <> ALL(%s) ORDER BY rolname
"""  # noqa: S608
"""All who may log in, whoever made them and whatever they are called: nobody is hidden."""
_ENDED = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
_RUNNING = f"""
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = ANY(%s) AND xact_start < now() AND pid <> pg_backend_pid()
        AND backend_type IN ('client backend', 'autovacuum worker', 'pg_cron')
        AND usename IS DISTINCT FROM '{SUPERUSER}'
"""  # noqa: S608
_RUNS = """
    SELECT EXISTS (
        SELECT FROM pg_proc WHERE proowner = %(user)s AND prosecdef OR proowner = %(former)s
    ) OR EXISTS (
        SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
        WHERE relowner = %(user)s AND NOT tgisinternal
            AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f')
    ) OR EXISTS (
        SELECT FROM pg_depend JOIN pg_class c ON c.oid = objid
        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_proc'::regclass
            AND relowner = %(user)s AND relkind IN ('i', 'I')
    )
"""
"""Whether a user owns what runs as its owner: functions, triggers that a foreign key may fire, and
functions in indexes.

Functions that were left do not tell whether they ran so before: an attempt that was interrupted may
have left them, and not ended what runs. Tables are not left while something runs that locks them.
"""
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
    WHERE rolname = %s
    GROUP BY d.oid, datname, datdba, r.oid, datallowconn, datconnlimit
    ORDER BY datname
"""  # noqa: S608
"""Databases in which something is, or once was, the user's or is granted to them; whether something in
another user's database is theirs; whether one can come in."""


def check_name(argument: str, name: str) -> None:
    """Raise InvalidArguments unless a user may have this name."""
    check_not_reserved(argument, name)
    names.check_new_user_name(argument, name, _LONGEST_NAME)


def check_not_reserved(argument: str, name: str) -> None:
    """Raise InvalidArguments for the name of a role that is no user's."""
    names.check_not_reserved_user(argument, name, names=_RESERVED, prefixes=("pg_",))


def listed(connection: Connection[Row]) -> list[User]:
    return [User(str(name), bool(admin)) for _, name, admin in _all(connection)]


def ids(connection: Connection[Row]) -> dict[int, str]:
    """Return the names of all users by their OIDs."""
    return {int(str(oid)): str(name) for oid, name, _ in _all(connection)}


def _all(connection: Connection[Row]) -> list[Row]:
    return connection.execute(_LISTED, [list(roles.OWN)]).fetchall()


def find(connection: Connection[Row], name: str) -> User:
    """Return a user, who may have a reserved name if SQL made them.

    Raises:
        InvalidArguments: the name is reserved, and no user has it.
        NotFound: there is no such user.
    """
    for user in listed(connection):
        # What is no UTF-8 is listed with marks in its name, which are not in the name itself.
        if user.name == name and exists(connection, name):
            return user
    check_not_reserved("name", name)
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
    dismissed = is_admin is False and find(connection, name).is_admin
    if verifier is not None:
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
        connection.execute(statement.format(role, sql.Literal(verifier)))
    if is_admin is not None:
        statement = sql.SQL(f"ALTER ROLE {{}} {_attributes(is_admin)}")
        connection.execute(statement.format(role))
    if dismissed and (user_id := roles.oid(connection, name)) is not None:
        administrators.hand_over(connection, user_id)
        roles.leave(connection, user_id)  # also what they granted themselves
        roles.close(connection, user_id)


def _attributes(is_admin: bool) -> str:
    return "CREATEDB CREATEROLE" if is_admin else "NOCREATEDB NOCREATEROLE"


def check_delete(connection: Connection[Row], name: str) -> None:
    """Raise PreconditionFailed where the user owns what only its owner may end."""
    find(connection, name)
    what = [f"the database {row[0]}" for row in connection.execute(_OWN_DATABASES, [name])]
    found = _depending(connection, name)
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
    end_sessions(connection, name)
    return int(str(row[0]))


def end_sessions(connection: Connection[Row], name: str) -> None:
    connection.execute(_ENDED, [name])


def end_running(connection: Connection[Row], found: Collection[str]) -> None:
    """End what runs in some databases, but for our own: it may run a function as a former user.

    A function that runs as its owner goes on with the power that it began with.
    """
    connection.execute(_RUNNING, [list(found)])


def runs_as(connection: Connection[Row], user_id: int) -> bool:
    """Return whether others may be running code as this user in the current database."""
    wanted = {"user": user_id, "former": former.find(connection, user_id)}
    return connection.execute(_RUNS, wanted).fetchone() == (True,)


def limit(connection: Connection[Row], name: str, connections: int) -> None:
    statement = sql.SQL(f"ALTER ROLE {{}} CONNECTION LIMIT {connections}")
    connection.execute(statement.format(sql.Identifier(name)))


def leave(connection: Connection[Row], name: str) -> list[str]:
    """Let what a user granted stay without them; return the databases to `strip` them in."""
    if (user_id := roles.oid(connection, name)) is not None:
        administrators.hand_over(connection, user_id)
    return databases_of(connection, name)


def databases_of(connection: Connection[Row], name: str) -> list[str]:
    """Return the databases in which the user owns something or has been granted something.

    Raises:
        PreconditionFailed: a tenant has closed one, or its name is not UTF-8.
    """
    found = _depending(connection, name)
    for database, _, open_ in found:
        if not open_ or "\ufffd" in str(database):
            why = f"{name} has privileges in the database {database}, which cannot be entered"
            raise PreconditionFailed("database_accepts_connections", why)
    return sorted({str(database) for database, _, _ in found})


def owning(connection: Connection[Row], user_id: int) -> list[str]:
    """Return the databases that can be entered and in which the user owns something, or has left
    something before."""
    query = f"""
        SELECT DISTINCT datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
        WHERE refclassid = 'pg_authid'::regclass AND refobjid = ANY(%s) AND deptype = 'o'
            AND datallowconn AND datconnlimit <> {databases.INVALID}
    """  # noqa: S608
    owners = [user_id, former.find(connection, user_id)]
    found = [str(row[0]) for row in connection.execute(query, [owners]).fetchall()]
    return [database for database in found if "\ufffd" not in database]


def _depending(connection: Connection[Row], name: str) -> list[Row]:
    return connection.execute(_DEPENDING, [name]).fetchall()


def strip(connection: Connection[Row], role: int) -> None:
    """Pass on a role's objects in the current database, and revoke all its privileges.

    The database may have another encoding, in which the role's name is not what it is elsewhere.
    Commits.
    """
    if ownership.owns(connection, role):
        ownership.disarm(connection, role)
        heir = former.ensure(connection, role)
        ownership.pass_on_most(connection, role, heir)
        ownership.pass_on(connection, role, heir)
    record.remove(connection, role)
    row = connection.execute("SELECT pg_get_userbyid(%s)", [role]).fetchone()
    assert row is not None  # noqa: S101
    with suppress(NotFound):  # its name cannot be written in this encoding
        privileges.grant(connection, str(row[0]), Level())
    block = f"BEGIN EXECUTE format('DROP OWNED BY %I', pg_get_userbyid({role})); END"
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))
    roles.revoke_of_extensions(connection, role)


def exists(connection: Connection[Row], name: str) -> bool:
    query = "SELECT 1 FROM pg_roles WHERE rolname = %s AND NOT rolsuper"
    return connection.execute(query, [name]).fetchone() is not None


def drop(connection: Connection[Row], name: str) -> None:
    connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    former.settle(connection)
