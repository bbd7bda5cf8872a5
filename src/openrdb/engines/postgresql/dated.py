"""When columns were defined last, which a newer major version may not know.

Minor versions from 2026-11 on write it among a column's options, and into each row that is a value.
Versions without that refuse a definition that has it, and read such values as any others. Those that
know it compare both: values whose type has forgotten cannot be read any more. So composite types, of
which dumps name no options, keep it for the day when the new version's binaries know.

Each statement is a line, for a server without sessions.
"""

from __future__ import annotations

from pathlib import Path

from openrdb.engines.postgresql.clusters import one_line

_DATED = "^pg_attver="
_ONES = f"SELECT one FROM unnest(attoptions) one WHERE one ~ '{_DATED}'"  # noqa: S608
_OTHERS = f"SELECT one FROM unnest(attoptions) one WHERE one !~ '{_DATED}'"  # noqa: S608
_IS_DATED = f"EXISTS ({_ONES})"
_OF_TYPES = f"""
    SELECT attrelid, attnum, ARRAY({_ONES}) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    WHERE relkind = 'c' AND {_IS_DATED}
"""  # noqa: S608
_FORGET = f"""
    UPDATE pg_attribute SET attoptions = nullif(ARRAY({_OTHERS}), '{{}}') WHERE {_IS_DATED}
"""  # noqa: S608
# Values among the statistics could not be read in the old version any more.
_FORGET_ROWS = """
    WITH RECURSIVE made_of_rows AS (
        SELECT oid FROM pg_type WHERE typtype = 'c'
        UNION
        SELECT t.oid FROM made_of_rows m, pg_type t
            LEFT JOIN pg_range r ON t.oid IN (rngtypid, rngmultitypid)
        WHERE m.oid IN (typelem, typbasetype, rngsubtype)
    )
    DELETE FROM pg_statistic USING pg_attribute
    WHERE attrelid = starelid AND attnum = staattnum AND atttypid IN (SELECT oid FROM made_of_rows)
"""
_REMEMBER = """
    BEGIN
        CREATE TEMPORARY TABLE dated (type oid, number int2, options text[]);
        COPY dated FROM '{}';
        UPDATE pg_attribute SET attoptions = attoptions || options FROM dated
        WHERE (attrelid, attnum) = (type, number);
        DROP TABLE dated;
    END
"""


def knows(path: Path) -> list[str]:
    """Return what writes a file about a version; it is empty if the version does not know this."""
    known = f"SELECT 1 FROM pg_attribute WHERE {_IS_DATED} LIMIT 1"  # noqa: S608
    return [one_line(f"COPY ({known}) TO '{path}'")]


def forget(path: Path) -> list[str]:
    """Return what lets the columns of a database forget it, and writes a file of composite types."""
    return [one_line(f"COPY ({_OF_TYPES}) TO '{path}'"), one_line(_FORGET), one_line(_FORGET_ROWS)]


def remember(path: Path) -> list[str]:
    """Return what gives composite types back what `forget` has written: pg_upgrade keeps their OIDs."""
    return [one_line(f"DO $do${_REMEMBER.format(path)}$do$")]
