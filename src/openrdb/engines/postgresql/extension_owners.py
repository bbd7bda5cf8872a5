"""Whose extensions are: pg_upgrade makes all of them the superuser's.

Their owners may drop them and move them to another schema. Users are known by their OIDs, which
pg_upgrade keeps. What is the superuser's own has no record of that in pg_shdepend.

Each statement is a line, for a server without sessions.
"""

from __future__ import annotations

from pathlib import Path

from openrdb.engines.postgresql.clusters import one_line

_OWNERS = "SELECT extname, extowner FROM pg_extension WHERE extowner <> 10"
_LOAD = """
    BEGIN
        CREATE TEMPORARY TABLE owned (name name, owner oid);
        COPY owned FROM '{}';
        DELETE FROM owned USING pg_extension WHERE extname = name AND extowner <> 10;
        INSERT INTO pg_shdepend (dbid, classid, objid, objsubid, refclassid, refobjid, deptype)
            SELECT d.oid, 'pg_extension'::regclass, e.oid, 0, 'pg_authid'::regclass, owner, 'o'
            FROM owned JOIN pg_extension e ON extname = name, pg_database d
            WHERE datname = current_database();
        UPDATE pg_extension SET extowner = owner FROM owned WHERE extname = name;
        DROP TABLE owned;
    END
"""


def save(path: Path) -> list[str]:
    """Return what writes the owners of a database's extensions into a file."""
    return [one_line(f"COPY ({_OWNERS}) TO '{path}'")]


def load(path: Path) -> list[str]:
    """Return what gives the newer server's extensions the owners that `save` has written, but for
    those that were created there."""
    return [one_line(f"DO $do${_LOAD.format(path)}$do$")]
