"""What each managed database has of ours: the record of its levels, and the event trigger that applies
them.

Both belong to the extension plpgsql, so that pg_dump leaves them out: only a superuser could restore
them. The table is in `information_schema`, where only a superuser may create anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, cast

from psycopg import Connection, sql

from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.admin.levels import (
    FORMER_USERS,
    Level,
    Row,
    administrators,
    levels,
)
from openrdb.engines.postgresql.admin.roles import ADMIN, FORMER
from openrdb.spec import Permission

LEVELS: Final = "information_schema._rdb_levels"
LOCK: Final = f"LOCK TABLE {LEVELS} IN EXCLUSIVE MODE"
"""Nothing is made in the current database until the transaction ends."""

_TRIGGER = "_rdb_apply_levels"

# It runs as superuser in tenants' sessions: everything it names is in pg_catalog, and what it puts
# into statements is quoted. An event trigger's function cannot be called in any other way.
# By the lock, who sets a level waits for all that is being made, and what is made then for the level.
_BODY = """
DECLARE
    made record;
    grants record;
BEGIN
    FOR made IN
        WITH command AS (
            SELECT classid, objid FROM pg_event_trigger_ddl_commands()
            WHERE command_tag <> 'ALTER TABLE'
        )
        SELECT CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END AS letter,
            CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
            format('%I.%I', n.nspname, c.relname) AS name
        FROM command JOIN pg_class c ON c.oid = objid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE classid = 'pg_class'::regclass AND c.relowner <> 10
            AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_'
        UNION
        SELECT 'n', 'SCHEMA', quote_ident(nspname) FROM command JOIN pg_namespace n ON n.oid = objid
        WHERE classid = 'pg_namespace'::regclass AND nspowner <> 10
    LOOP
        LOCK TABLE <levels> IN ROW SHARE MODE;
        FOR grants IN
            SELECT r.rolname AS name, given.privileges
            FROM (
                SELECT role, level FROM <levels>
                UNION ALL SELECT oid, rolname::text FROM pg_roles WHERE rolname IN (<own>)
            ) AS has
            JOIN pg_roles r ON r.oid = has.role
            JOIN (VALUES <values>) AS given (level, letter, privileges) USING (level)
            WHERE given.letter = made.letter
        LOOP
            EXECUTE format(
                'GRANT %s ON %s %s TO %I', grants.privileges, made.kind, made.name, grants.name
            );
        END LOOP;
    END LOOP;
<resets>
END
"""

# In the extension's initial privileges it is in no dump, which nobody could restore.
_RESETS = f"""
    FOR made IN
        SELECT p.oid, p.oid::regprocedure::text AS name
        FROM pg_extension e
        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
        JOIN pg_roles r ON r.rolname = '{ADMIN}'
        WHERE extname = 'pg_stat_statements' AND d.deptype = 'e' AND p.proowner = 10
            AND proname = 'pg_stat_statements_reset'
            AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {ADMIN}', made.name);
        UPDATE pg_init_privs SET initprivs = (SELECT proacl FROM pg_proc WHERE oid = made.oid)
        WHERE classoid = 'pg_proc'::regclass AND objoid = made.oid;
    END LOOP;
"""  # noqa: S608
"""Lets administrators reset the statistics of statements, which the extension lets nobody do."""

_TAGS = (
    *("CREATE TABLE", "CREATE TABLE AS", "SELECT INTO", "CREATE VIEW", "CREATE MATERIALIZED VIEW"),
    *("CREATE FOREIGN TABLE", "IMPORT FOREIGN SCHEMA", "CREATE SEQUENCE", "CREATE SCHEMA"),
    *("ALTER TABLE", "CREATE EXTENSION", "ALTER EXTENSION"),
)

# "A": also where a session's triggers are off, as administrators may set from 15 on.
_INSTALLED = f"""
    SELECT 1 FROM pg_event_trigger t JOIN pg_proc p ON p.oid = t.evtfoid
    WHERE t.evtname = '{_TRIGGER}' AND t.evtenabled = 'A' AND p.prosrc = %s
"""  # noqa: S608


# One of an older version; as the extension's nobody could drop it.
_IS_MEMBER = f"""
    SELECT 1 FROM pg_event_trigger t
    JOIN pg_depend d ON d.classid = 'pg_event_trigger'::regclass AND d.objid = t.oid
    WHERE t.evtname = '{_TRIGGER}' AND d.deptype = 'e'
"""  # noqa: S608


def install(connection: Connection[Row]) -> bool:
    """Install both in the current database; return whether something was missing."""
    body = _body(connection.info.server_version // 10000)
    if connection.execute(_INSTALLED, [body]).fetchone():
        return False
    # One at a time; tenants cannot lock it.
    connection.execute("LOCK TABLE pg_event_trigger IN SHARE ROW EXCLUSIVE MODE")
    if connection.execute("SELECT to_regclass(%s) IS NULL", [LEVELS]).fetchone() == (True,):
        connection.execute(f"CREATE TABLE {LEVELS} (role oid PRIMARY KEY, level text NOT NULL)")
        connection.execute(f"ALTER EXTENSION plpgsql ADD TABLE {LEVELS}")
    if connection.execute(_IS_MEMBER).fetchone():
        connection.execute(f"ALTER EXTENSION plpgsql DROP EVENT TRIGGER {_TRIGGER}")
    tags = ", ".join(f"'{tag}'" for tag in _TAGS)
    for statement in (
        f"DROP EVENT TRIGGER IF EXISTS {_TRIGGER}",
        f"DROP FUNCTION IF EXISTS pg_catalog.{_TRIGGER}()",
        f"CREATE FUNCTION pg_catalog.{_TRIGGER}() RETURNS event_trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body${body}$body$",
        f"CREATE EVENT TRIGGER {_TRIGGER} ON ddl_command_end WHEN TAG IN ({tags}) "
        f"EXECUTE FUNCTION pg_catalog.{_TRIGGER}()",
        f"ALTER EVENT TRIGGER {_TRIGGER} ENABLE ALWAYS",
        f"ALTER EXTENSION plpgsql ADD EVENT TRIGGER {_TRIGGER}",
    ):
        connection.execute(statement)
    _take_over_defaults(connection)
    block = f"DECLARE made record; BEGIN {_RESETS} END"
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))
    return True


def _body(major: int) -> str:
    given = [*levels(major).items(), (ADMIN, administrators(major)), (FORMER, FORMER_USERS)]
    values = ", ".join(_values(given))
    own = f"'{ADMIN}', '{FORMER}'"
    named = {"<levels>": LEVELS, "<values>": values, "<own>": own, "<resets>": _RESETS.rstrip()}
    body = _BODY
    for name, text in named.items():
        body = body.replace(name, text)
    return body


def _values(given: Iterable[tuple[str, Level]]) -> Iterator[str]:
    for name, level in given:
        for letter in ("n", "r", "S"):
            if privileges := ", ".join(sorted(level.of(letter))):
                yield f"('{name}', '{letter}', '{privileges}')"


def recorded(connection: Connection[Row]) -> dict[int, Permission]:
    """Return the levels that were set in the current database, by the users' OIDs."""
    found = connection.execute(f"SELECT role, level FROM {LEVELS}").fetchall()  # noqa: S608
    return dict(cast(list[tuple[int, Permission]], found))


def put(connection: Connection[Row], user_id: int, level: Permission) -> None:
    """Record a level; `none` as nothing."""
    if level == "none":
        connection.execute(f"DELETE FROM {LEVELS} WHERE role = %s", [user_id])  # noqa: S608
        return
    statement = f"""
        INSERT INTO {LEVELS} VALUES (%s, %s)
        ON CONFLICT (role) DO UPDATE SET level = EXCLUDED.level
    """  # noqa: S608
    connection.execute(statement, [user_id, level])


def remove(connection: Connection[Row], user_id: int) -> None:
    """Remove a user's level, if the database has a record."""
    if connection.execute("SELECT to_regclass(%s) IS NULL", [LEVELS]).fetchone() == (False,):
        put(connection, user_id, "none")


# -- earlier versions --------------------------------------------------------------------------------

_DEFAULTS = f"""
    SELECT grantee, CASE
        WHEN bool_or(privilege_type = 'TRIGGER') THEN 'all'
        WHEN bool_or(privilege_type = 'INSERT') THEN 'readwrite'
        ELSE 'readonly' END
    FROM pg_default_acl, aclexplode(defaclacl)
    WHERE defaclrole = '{SUPERUSER}'::regrole AND defaclnamespace = 0
        AND grantee NOT IN (0, '{SUPERUSER}'::regrole::oid)
    GROUP BY grantee
"""  # noqa: S608
# What extensions themselves grant to the role of administrators is theirs to keep.
_GRANTED_ON_EXTENSIONS = f"""
    SELECT DISTINCT c.oid::regclass::text, pg_get_userbyid(grantee)
    FROM pg_class c, aclexplode(relacl)
    WHERE relowner = 10 AND c.oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND relnamespace <> 'information_schema'::regnamespace
        AND grantee NOT IN (0, 10) AND pg_get_userbyid(grantee) !~ '^pg_'
        AND pg_get_userbyid(grantee) <> '{ADMIN}'
"""  # noqa: S608


def _take_over_defaults(connection: Connection[Row]) -> None:
    """Take over the levels of earlier versions, which were default privileges of the superuser's and
    reached extensions' relations: no tenant could restore either from a dump."""
    for user_id, level in connection.execute(_DEFAULTS).fetchall():
        put(connection, int(str(user_id)), cast(Permission, level))
        row = connection.execute("SELECT pg_get_userbyid(%s)", [user_id]).fetchone()
        assert row is not None  # noqa: S101
        for kind in ("SCHEMAS", "TABLES", "SEQUENCES"):
            connection.execute(
                sql.SQL(
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE {SUPERUSER} REVOKE ALL ON {kind} FROM {{}}"
                ).format(sql.Identifier(str(row[0])))
            )
    for relation, grantee in connection.execute(_GRANTED_ON_EXTENSIONS).fetchall():
        statement = f"REVOKE ALL ON TABLE {relation} FROM {{}}"
        connection.execute(sql.SQL(statement).format(sql.Identifier(str(grantee))))
