"""Settings of databases and roles, kept from the sessions of a major upgrade and carried over.

They are in force for the superuser's sessions, too: with another role in them nothing can be dumped,
and one that the new version does not know keeps its database from being defined. As rows of the
catalogue they are what they were: one that means nothing is a warning at the login.

Databases are known by the bytes of their names, which may be in any encoding; roles by their OIDs,
which pg_upgrade keeps. What is no UTF-8 cannot be read from a file again: it goes the usual way.

Each statement is a line, for a server without sessions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from openrdb.engines.postgresql.clusters import one_line

_SAVE = """
    DECLARE
        one record;
    BEGIN
        CREATE TEMPORARY TABLE settings (database bytea, role oid, config text[]);
        FOR one IN SELECT s.ctid, datname, setrole, setconfig FROM pg_db_role_setting s
            LEFT JOIN pg_database d ON d.oid = setdatabase LOOP
            BEGIN
                PERFORM convert_from(textsend(one.setconfig::text), 'UTF8');
                INSERT INTO settings VALUES (namesend(one.datname), one.setrole, one.setconfig);
                DELETE FROM pg_db_role_setting WHERE ctid = one.ctid;
            EXCEPTION WHEN character_not_in_repertoire THEN
                NULL;
            END;
        END LOOP;
        COPY settings TO '{}';
        DROP TABLE settings;
    END
"""
_LOAD = """
    BEGIN
        CREATE TEMPORARY TABLE settings (database bytea, role oid, config text[]);
        COPY settings FROM '{}';
        INSERT INTO pg_db_role_setting (setdatabase, setrole, setconfig)
            SELECT coalesce(oid, 0), role, config FROM settings
            LEFT JOIN pg_database ON namesend(datname) = database
            WHERE database IS NULL OR oid IS NOT NULL;
        DROP TABLE settings;
    END
"""

OVERRIDDEN: Final = (
    "SET ROLE none",
    "SET search_path = pg_catalog",
    "SET row_security = off",
    "SET statement_timeout = 0",
    "SET lock_timeout = 0",
    "SET default_transaction_isolation = 'read committed'",
)
"""What a session begins with that comes before: nothing may be changed yet."""


def take(path: Path) -> list[str]:
    """Return what writes the settings into a file, and lets the old version forget them."""
    return [one_line(f"DO $do${_SAVE.format(path)}$do$")]


def give(path: Path) -> list[str]:
    """Return what gives the new version the settings that `take` has written."""
    return [one_line(f"DO $do${_LOAD.format(path)}$do$")]
