"""Keeping code in a dump from changing what is loaded.

While a dump's definitions are loaded everything has one owner, whoever it was taken from. The functions
that this runs (of domains whose constants are parsed) could change another user's tables and functions
then, and what they write into a function would later run as its owner. What pg_restore itself does
comes from no function: whatever does is refused. Nor may settings change that tell what its statements
mean: with another `search_path` a view would call other functions than those it was made with.
"""

from __future__ import annotations

from typing import Final

from psycopg import Connection, sql

from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.transfers import RESTORE_ROLE

REFUSAL: Final = "code in the backup tried to change what is restored"
_NAME = "_rdb_refuse_nested"
_OF_COMMANDS = f"information_schema.{_NAME}"
_OF_ROWS = f"information_schema.{_NAME}_rows"
_BATCH = 100
"""Tables a transaction that get a trigger: each takes locks."""

# They run as whoever is to be refused, with any `search_path`: each name says which one is meant.
# Everything that calls another function, or a statement from within one, adds a line to the context;
# the first line is this function's own.
_BODY = f"""
    DECLARE
        called pg_catalog.text;
    BEGIN
        GET DIAGNOSTICS called = PG_CONTEXT;
        IF pg_catalog.strpos(called, pg_catalog.chr(10)) OPERATOR(pg_catalog.>) 0 {{}} THEN
            RAISE insufficient_privilege USING MESSAGE = '{REFUSAL}';
        END IF;
        {{}}
    END
"""
_SETTINGS = {
    "search_path": "",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "xmloption": "content",
    "check_function_bodies": "off",
    "session_replication_role": "origin",
    "default_tablespace": "",
}
"""What pg_restore's statements depend on, and the values that its sessions have."""
_UNSET = " OR ".join(
    f"pg_catalog.current_setting('{name}') OPERATOR(pg_catalog.<>) '{value}'"
    for name, value in _SETTINGS.items()
)
_OR_UNSET = f"OR session_user OPERATOR(pg_catalog.=) '{RESTORE_ROLE}' AND ({_UNSET})"
_FUNCTION = "CREATE FUNCTION {} RETURNS {} LANGUAGE plpgsql AS $body${}$body$"
# Each row of the one that is left out is written by its own trigger, and tells nothing but versions.
_TABLES = """
    SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
        AND NOT ((nspname, relname) = ('_timescaledb_catalog', 'metadata') AND EXISTS (
            SELECT FROM pg_depend JOIN pg_extension e ON e.oid = refobjid
            WHERE objid = c.oid AND deptype = 'e' AND extname = 'timescaledb'
        ))
"""
# Always: whatever `session_replication_role` is.
_GUARD = """
    CREATE TRIGGER {0} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {1}
        FOR EACH STATEMENT EXECUTE FUNCTION information_schema._rdb_refuse_nested_rows();
    ALTER TABLE {1} ENABLE ALWAYS TRIGGER {0}
"""


def refuse_commands(connection: Connection[Row]) -> None:
    """Refuse commands that code gives to define, change, drop or grant anything in the database."""
    body = _BODY.format(_OR_UNSET, "")
    connection.execute(_FUNCTION.format(f"{_OF_COMMANDS}()", "event_trigger", body))
    connection.execute(
        f"CREATE EVENT TRIGGER {_NAME} ON ddl_command_start EXECUTE FUNCTION {_OF_COMMANDS}()"
    )
    connection.execute(f"ALTER EVENT TRIGGER {_NAME} ENABLE ALWAYS")
    connection.commit()


def refuse_rows(connection: Connection[Row]) -> None:
    """Make the existing tables refuse changes of their rows by functions."""
    body = _BODY.format("", "RETURN NULL;")
    connection.execute(_FUNCTION.format(f"{_OF_ROWS}()", "trigger", body))
    for number, names in enumerate(connection.execute(_TABLES).fetchall(), 1):
        table = sql.Identifier(*map(str, names))
        connection.execute(sql.SQL(_GUARD).format(sql.Identifier(_NAME), table))
        if number % _BATCH == 0:
            connection.commit()
    connection.commit()


def allow(connection: Connection[Row]) -> None:
    """Remove both again."""
    connection.execute(f"DROP EVENT TRIGGER {_NAME}")
    connection.execute(f"DROP FUNCTION {_OF_COMMANDS}()")
    drop = sql.SQL("DROP TRIGGER {} ON {}")
    for number, names in enumerate(connection.execute(_TABLES).fetchall(), 1):
        table = sql.Identifier(*map(str, names))
        connection.execute(drop.format(sql.Identifier(_NAME), table))
        if number % _BATCH == 0:
            connection.commit()
    connection.execute(f"DROP FUNCTION {_OF_ROWS}()")
    connection.commit()
