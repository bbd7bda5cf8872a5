"""Bringing extensions to the versions that newer binaries have, which tenants may not do for all."""

from __future__ import annotations

import logging
from collections.abc import Collection

from psycopg import Connection, Error, sql

from openrdb.catalog.extensions import definers
from openrdb.engines.postgresql import aside
from openrdb.engines.postgresql.clusters import one_line

log = logging.getLogger(__name__)

Row = tuple[object, ...]

# Scripts that are to run with their owner's rights may call what the owner has changed.
_OUTDATED = """
    SELECT name FROM pg_available_extensions JOIN pg_available_extension_versions USING (name)
    WHERE installed_version IS NOT NULL AND installed_version <> default_version
        AND version = default_version AND superuser
"""
# One whose script fails is tried again in the first start, which tells why.
_ALONE = """
    DECLARE
        one name;
    BEGIN
        FOR one IN {outdated} LOOP
            BEGIN
                {away}
                EXECUTE format('ALTER EXTENSION %I UPDATE', one);
                {back}
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
    END
"""


def alone() -> list[str]:
    """Return what brings the extensions of a database to their newest versions, for a server without
    other sessions: what users have in their schemas is out of the way of their scripts."""
    block = _ALONE.format(outdated=_OUTDATED, away=aside.AWAY, back=aside.BACK)
    return [one_line(f"DO $do${block}$do$")]


def update(connection: Connection[Row], only: Collection[str] | None = None) -> None:
    """Bring the extensions of a database to their newest versions, and let no function of theirs run as
    the superuser what a tenant has made; of a session that commits each statement.

    One whose script fails stays at its version: its guard finds what it does not like, there is no
    script from that version, or it names what bundles or tenants have removed. Those that run with
    their owners' rights are the owners' to update.

    Args:
        only: the names of those that are wanted; None: all.
    """
    for (name,) in connection.execute(_OUTDATED).fetchall():
        if only is not None and name not in only:
            continue
        try:
            statement = sql.SQL("ALTER EXTENSION {} UPDATE")
            connection.execute(statement.format(sql.Identifier(str(name))))
        except Error as error:
            if connection.closed:
                raise
            database = connection.info.dbname
            log.warning("%s of the database %s stays as it is: %s", name, database, error)
    # Those that were created by earlier code, that stay, or that scripts of updates have just made.
    connection.execute(definers())
