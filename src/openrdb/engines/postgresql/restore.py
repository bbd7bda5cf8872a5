"""Restores: a database is loaded next to the old one and takes its name in one transaction.

What a dump has of the tenant's is loaded by `RESTORE_ROLE`, logged in as itself and no superuser:
constraints, generated columns, index expressions, and literals of domains run the tenant's functions,
before, with and after the rows; see `loading` for what they reach. The superuser does what runs none of
their code: extensions before, owners and grants between definitions and rows.
Materialized views are filled when all is there.

In addition to what `nested` refuses, what is there afterwards, and what is granted on it before the
grants of the dump, is compared with what was there at the dump.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import Connection, errors, sql

from openrdb.engines.base import EngineNode
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import (
    archive,
    aside,
    dump,
    grants,
    initial_privileges,
    jobs,
    nested,
    session,
    swap,
)
from openrdb.engines.postgresql import contents as read_contents
from openrdb.engines.postgresql.admin import databases, privileges, record, roles
from openrdb.engines.postgresql.admin.levels import OBJECTS, Row
from openrdb.engines.postgresql.loading import UNLENT, Loading
from openrdb.engines.postgresql.restoring import Restoring, failed
from openrdb.engines.transfers import RESTORE_ROLE, Contents, TransferFailed
from openrdb.errors import InvalidArguments

_BATCH = 100
"""Objects a transaction whose owner changes: each takes locks."""
_KEYWORDS = {"statistics object": "STATISTICS", "foreign-data wrapper": "FOREIGN DATA WRAPPER"}
_GRANTED = f"""
    SELECT name, grantee, privilege_type FROM ({OBJECTS}) AS object, aclexplode(acl)
    WHERE grantee <> owner AND NOT (grantee = 0 AND kind IN ('f', 'p', 'T'))
        AND kind NOT IN ('d', 'l') AND oid >= 16384 AND NOT EXISTS (
        SELECT FROM pg_depend WHERE objid = oid AND deptype = 'e'
    )
    UNION ALL
    SELECT attrelid::regclass::text, 0, '' FROM pg_attribute WHERE attacl IS NOT NULL
        AND attrelid >= 16384 AND NOT EXISTS (
            SELECT FROM pg_depend WHERE objid = attrelid AND deptype = 'e'
        )
    UNION ALL SELECT 'default privileges', 0, '' FROM pg_default_acl
"""  # noqa: S608
_FILLED = frozenset({"table", "sequence", "materialized view", "large object"})
_LENT = """
    SELECT format('%s %I.%I', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, nspname, relname)
    FROM pg_extension e JOIN pg_class c ON c.oid = ANY(extconfig)
    JOIN pg_namespace n ON n.oid = relnamespace
    UNION ALL SELECT format('FOREIGN DATA WRAPPER %I', fdwname) FROM pg_foreign_data_wrapper
    UNION ALL SELECT format('SCHEMA %I', nspname) FROM pg_namespace n JOIN pg_depend ON objid = n.oid
    WHERE classid = 'pg_namespace'::regclass AND deptype = 'e'
"""
"""What extensions own and dumps fill or refer to."""
_SCHEMAS_OF_LENT = """
    SELECT DISTINCT format('SCHEMA %I', nspname)
    FROM pg_extension e JOIN pg_class c ON c.oid = ANY(extconfig)
    JOIN pg_namespace n ON n.oid = relnamespace
"""
# Its hooks make parts of tables by themselves, which are in the dump.
_HOOKS = """
    SELECT format('SELECT %I.timescaledb_{}_restore()', nspname)
    FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'timescaledb'
"""


def check(node: EngineNode, database: str, contents: Contents) -> None:
    """Raise TransferFailed if a dump cannot be restored here, with all users who are missing."""
    with dump.connected(node, "postgres") as connection:
        if not read_contents.exists(connection, database):
            try:
                databases.check_name("database_name", database)
            except InvalidArguments as error:
                raise TransferFailed("database_name", error.explanation) from error
        there = {str(row[0]) for row in connection.execute("SELECT rolname FROM pg_roles")}
        if missing := [name for name in contents["users"] if name not in there]:
            names, they = ", ".join(missing), "this user" if len(missing) == 1 else "these users"
            why = f"the backup needs {they}, whom the instance does not have: {names}"
            raise TransferFailed("missing_users", why)
        available = {
            str(row[0]) for row in connection.execute("SELECT name FROM pg_available_extensions")
        }
        if lacking := [one[0] for one in contents["extensions"] if one[0] not in available]:
            why = f"the instance does not offer extensions of the backup: {', '.join(lacking)}"
            raise TransferFailed("missing_extensions", why)


def run(node: EngineNode, job_id: UUID, database: str, contents: Contents, path: Path) -> None:
    """Make a database what it was at the dump, or leave it as it is."""
    job = Restoring(node, job_id)
    check(node, database, contents)
    contents = contents | {"same_instance": contents["instance"] == str(node.spec.instance_id)}
    try:
        swap.sweep(node)
        with job.session("postgres", autocommit=True) as connection:
            roles.close_restore(connection)  # it exists from the first restore on
            _create(connection, job.loaded, contents)
        with job.session(job.loaded) as connection:
            _make_extensions(connection, job.loaded, contents)
            granted = connection.execute(_GRANTED).fetchall()
            _call_hooks(connection, "pre")
            _lend(connection, contents)
            nested.refuse_commands(connection)
        load, heirs = Loading(job, path, contents), dict[str, str]()
        load.definitions()
        with job.session(job.loaded) as connection:
            nested.refuse_rows(connection)
            _take_back_public(connection, contents)
            _hand_over(connection, contents, heirs, all_there=False)
            _check_grants(connection, granted)
            _lend_schemas(connection)
            _grant(job, connection, load.entries, contents, path)
            load.rows_and_rest(connection, heirs)
            nested.allow(connection)
            _take_back(connection)
            _hand_over(connection, contents, heirs)
            _check_counts(connection, contents)
            _call_hooks(connection, "post")
            jobs.put(connection, contents.get("jobs", []))
        load.views()
        _record_levels(job, database, contents)
        swap.swap(job, database, contents)
    except psycopg.Error as error:
        raise failed(error) from error
    finally:
        with suppress(psycopg.Error, TransferFailed):  # the next restore, or the agent, does it
            swap.settle(node, job_id)


# -- before the dump ---------------------------------------------------------------------------------


def _create(connection: Connection[Row], name: str, contents: Contents) -> None:
    """Create the database, into which nobody comes but the role that loads it."""
    locale, identifier = contents["locale"], sql.Identifier(name)
    options = sql.SQL(" ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(
        locale["encoding"], locale["collate"], locale["ctype"]
    )
    if locale["provider"] == "i":
        options += sql.SQL(" LOCALE_PROVIDER icu ICU_LOCALE {}").format(locale["locale"])
        if locale["rules"]:
            options += sql.SQL(" ICU_RULES {}").format(locale["rules"])
    elif locale["provider"] == "b":
        options += sql.SQL(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(locale["locale"])
    create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 CONNECTION LIMIT 0")
    connection.execute(create.format(identifier, sql.Identifier(SUPERUSER)) + options)
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(identifier))
    connection.execute(
        sql.SQL("GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {} TO {}").format(
            identifier, sql.Identifier(RESTORE_ROLE)
        )
    )
    connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(identifier))


def _make_extensions(connection: Connection[Row], database: str, contents: Contents) -> None:
    """Create the extensions as who owned them, while there is nothing of the tenant's to be run."""
    for name, schema, owner_then, _, _ in contents["extensions"]:
        owner = grants.owner_here(connection, owner_then, contents)
        there = "SELECT FROM pg_namespace WHERE nspname = %s"
        if connection.execute(there, [schema]).fetchone() is None:
            statement = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}")
            connection.execute(
                statement.format(sql.Identifier(schema), sql.Identifier(RESTORE_ROLE))
            )
        create = sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}").format(
            sql.Identifier(name), sql.Identifier(schema)
        )
        try:
            with connection.transaction(), _acting_as(connection, owner, database, schema):
                connection.execute(create)
        except errors.InsufficientPrivilege:  # it was not the tenant who created it
            connection.execute(create)
    if contents["public"] is None:
        connection.execute("DROP SCHEMA public")


@contextmanager
def _acting_as(
    connection: Connection[Row], owner: str, database: str, schema: str
) -> Iterator[None]:
    """Act as who owned an extension, who is lent what it takes to create it."""
    if owner == SUPERUSER:
        yield
        return
    role, both = sql.Identifier(owner), (("DATABASE", database), ("SCHEMA", schema))
    for kind, name in both:
        statement = sql.SQL(f"GRANT ALL ON {kind} {{}} TO {{}}")
        connection.execute(statement.format(sql.Identifier(name), role))
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(role))
    yield
    connection.execute("RESET ROLE")
    for kind, name in both:
        statement = sql.SQL(f"REVOKE ALL ON {kind} {{}} FROM {{}}")
        connection.execute(statement.format(sql.Identifier(name), role))


def _call_hooks(connection: Connection[Row], when: str) -> None:
    """Let an extension know that a dump is about to be loaded ("pre"), or was ("post"). What users have
    by the same name is out of the way meanwhile."""
    for (statement,) in connection.execute(_HOOKS.format(when)).fetchall():
        with connection.transaction():
            connection.execute("SET LOCAL allow_system_table_mods = on")
            connection.execute(aside.AWAY)
            connection.execute(str(statement))
            connection.execute(aside.BACK)


def _lend(connection: Connection[Row], contents: Contents) -> None:
    """Let the role that loads the dump use what it does not own."""
    role = sql.Identifier(RESTORE_ROLE)
    if contents["public"] is not None:
        connection.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(role))
    for (what,) in connection.execute(_LENT).fetchall():
        connection.execute(sql.SQL(f"GRANT ALL ON {what} TO ") + role)


# -- between definitions and rows, and at the end ----------------------------------------------------


def _lend_schemas(connection: Connection[Row]) -> None:
    """Let the role that loads the dump find extensions' tables, in schemas that have got owners."""
    for (schema,) in connection.execute(_SCHEMAS_OF_LENT).fetchall():
        connection.execute(sql.SQL(f"GRANT USAGE ON {schema} TO ") + sql.Identifier(RESTORE_ROLE))
    connection.commit()


def _take_back_public(connection: Connection[Row], contents: Contents) -> None:
    if contents["public"] is not None:
        role = sql.Identifier(RESTORE_ROLE)
        connection.execute(sql.SQL("REVOKE ALL ON SCHEMA public FROM {} CASCADE").format(role))
    connection.commit()


def _take_back(connection: Connection[Row]) -> None:
    role = sql.Identifier(RESTORE_ROLE)
    for (what,) in connection.execute(f"{_LENT} UNION {_SCHEMAS_OF_LENT}").fetchall():
        with suppress(errors.UndefinedObject), connection.transaction():
            connection.execute(sql.SQL(f"REVOKE ALL ON {what} FROM ") + role + sql.SQL(" CASCADE"))
    if connection.execute(initial_privileges.RESTORED).fetchone():
        connection.execute("SET LOCAL allow_system_table_mods = on")
        for statement in initial_privileges.FORGET_RESTORED:
            connection.execute(statement)
    connection.commit()


def _hand_over(
    connection: Connection[Row],
    contents: Contents,
    heirs: dict[str, str],
    *,
    all_there: bool = True,
) -> None:
    """Give each object the owner that it had at the dump.

    Args:
        connection: the superuser's.
        contents: whose objects there should be.
        heirs: owners at the dump, and who they are here; those who are found are added.
        all_there: whether all are loaded; what is not yet stays with who loads it if nobody can be
            lent its owner's rights.

    Raises:
        TransferFailed: there are other objects than at the dump.
    """
    wanted = {_key(kind, names, args): owner for kind, names, args, owner in contents["objects"]}
    made = {
        _key(kind, names, args): (str(owner), str(kind), str(identity))
        for _, _, owner, kind, names, args, identity in read_contents.objects(connection)
    }
    differing = wanted.keys() ^ made.keys() if all_there else made.keys() - wanted.keys()
    if differing:
        raise _altered([".".join(names) for _, names, _ in differing])
    for number, (key, (owner, kind, identity)) in enumerate(made.items(), 1):
        then = wanted[key]
        if then not in heirs:
            heirs[then] = grants.owner_here(connection, then, contents)
        is_later = not all_there and heirs[then] in UNLENT and kind in _FILLED
        if owner != heirs[then] and not is_later:
            word = _KEYWORDS.get(kind, kind.upper())
            head = sql.SQL(f"ALTER {word} {identity} OWNER TO ")
            connection.execute(head + sql.Identifier(heirs[then]))
        if number % _BATCH == 0:
            connection.commit()
    connection.commit()


def _check_counts(connection: Connection[Row], contents: Contents) -> None:
    """Raise TransferFailed if code in the dump has made or removed what has no owner of its own."""
    counted = read_contents.counts(connection)
    if others := [kind for kind, count in contents["counts"].items() if counted[kind] != count]:
        raise _altered([f"the number of {kind}" for kind in others])


def _check_grants(connection: Connection[Row], before: list[Row]) -> None:
    """Raise TransferFailed if code in the dump has granted anything: nothing else has since `before`,
    when there were extensions only, which grant the use of their schemas."""
    if found := set(connection.execute(_GRANTED).fetchall()) - set(before):
        raise _altered([str(row[0]) for row in found])


def _grant(
    job: Restoring,
    connection: Connection[Row],
    entries: list[str],
    contents: Contents,
    path: Path,
) -> None:
    options = session.options_of(job.node.spec, statement_timeout="0")
    environment = job.environment(SUPERUSER, job.node.secret, options)
    with grants.named(connection, contents):
        wanted = archive.granting(entries, grants.owner_of_public(contents))
        archive.restore(job.node, path, wanted, environment)
    if contents["public"] is not None:
        grants.on_public(connection, contents)


def _record_levels(job: Restoring, database: str, contents: Contents) -> None:
    """Record the levels, where there are levels."""
    with job.session("postgres", autocommit=True) as connection:
        # From now on administrators may come in, who have to wait for its name.
        limit = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0")
        connection.execute(limit.format(sql.Identifier(job.loaded)))
    with job.session(job.loaded) as connection:
        if swap.will_be_managed(connection, database):
            privileges.prepare(connection)
            for user, level in contents["levels"].items():
                if (user_id := roles.oid(connection, user)) is not None:
                    record.put(connection, user_id, level)


def _key(kind: object, names: object, args: object) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    assert isinstance(names, list) and isinstance(args, list)  # noqa: S101
    return str(kind), tuple(names), tuple(args)


def _altered(names: list[str]) -> TransferFailed:
    some = ", ".join(sorted(names)[:3])
    return TransferFailed(
        "altered", f"what was loaded is not what was backed up: code in it has changed {some}"
    )
