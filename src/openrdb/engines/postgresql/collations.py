"""Collations that a server's binaries bring, and what depends on those that have changed.

An index on text is in the order of its collation: where the library of the new binaries sorts
otherwise, it finds no longer what it has.
"""

from __future__ import annotations

import logging
from pathlib import Path

from psycopg import Connection, Error, sql

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import session
from openrdb.engines.postgresql.clusters import major, one_line
from openrdb.system.bundle import LOCALES, Bundle

log = logging.getLogger(__name__)

Row = tuple[object, ...]

_LATER = "allow_system_table_mods = on"
# Some have no version, as that of bytes; those of other encodings are not for this database.
_OUTDATED = """
    SELECT oid, oid::regcollation::text FROM pg_collation
    WHERE collversion <> pg_collation_actual_version(oid)
        AND collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding()))
"""
_DATABASE_IS_OUTDATED = """
    SELECT datcollversion <> pg_database_collation_actual_version(oid)
    FROM pg_database WHERE datname = current_database()
"""
_VERSIONS = """
    SELECT collname, collprovider, collencoding, collversion FROM pg_collation
    WHERE collnamespace = 'pg_catalog'::regnamespace AND collversion IS NOT NULL
"""
_OWN_OF_EARLIER = """
    SELECT NULL, NULL, NULL, collversion FROM pg_collation JOIN pg_database
        ON replace(lower(collcollate), '-', '') = replace(lower(datcollate), '-', '')
    WHERE datname = current_database() AND collprovider = 'c' AND collversion IS NOT NULL LIMIT 1
"""
_LOAD = """
    BEGIN
        CREATE TEMPORARY TABLE ordered (name name, provider "char", encoding int, version text);
        COPY ordered FROM '{}';
        UPDATE pg_collation SET collversion = version FROM ordered
        WHERE collnamespace = 'pg_catalog'::regnamespace AND collversion IS NOT NULL
            AND (collname, collprovider, collencoding) = (name, provider, encoding);
        UPDATE pg_database SET datcollversion = version FROM ordered
        WHERE name IS NULL AND datname = current_database() AND datcollversion IS NOT NULL;
        DROP TABLE ordered;
    END
"""
_DATABASES_OWN = 100
"""The number of a database's own collation in its indexes."""
_FIRST_WITH_VERSION = 15
"""Which records that of a database's own collation."""
# An index of a table without pages has nothing in it, and cannot be rebuilt where it is a hypertable's.
_INDEXES = """
    SELECT i.oid, format('%%I.%%I', nspname, i.relname) FROM pg_index
    JOIN pg_class AS i ON i.oid = indexrelid JOIN pg_namespace AS n ON n.oid = i.relnamespace
    WHERE i.relkind = 'i' AND nspname <> 'pg_toast' AND pg_relation_size(indrelid) > 0
        AND EXISTS (SELECT FROM unnest(indcollation) AS c WHERE c = ANY (%s))
    ORDER BY pg_relation_size(i.oid)
"""


def statements(bundle: Bundle) -> list[str]:
    """Return what makes the locales of a bundle's own C library known in a database in UTF-8, which all
    of them are.

    The server finds those of the host's by itself.
    """
    directory = bundle.path / LOCALES
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    return [
        f"CREATE COLLATION IF NOT EXISTS pg_catalog.\"{known}\" (provider = libc, locale = '{name}')"
        for name in names
        for known in (name, name.partition(".")[0])
        if known != "C"
    ]


def save(path: Path, bundle: Bundle) -> list[str]:
    """Return what writes the versions of a database's collations into a file: pg_upgrade does not take
    over those that come with the server, nor that of a database's own up to 14."""
    own = "" if major(bundle) >= _FIRST_WITH_VERSION else f" UNION ALL ({_OWN_OF_EARLIER})"
    return [one_line(f"COPY ({_VERSIONS}{own}) TO '{path}'")]


def load(path: Path) -> list[str]:
    """Return what gives the collations of a newer server's database the versions that `save` has
    written: its indexes are in their order until `renew`."""
    return [one_line(f"DO $do${_LOAD.format(path)}$do$")]


def renew(connection: Connection[Row], node: EngineNode) -> None:
    """Let a database have the collations of its server's binaries, and indexes in their order.

    Others read and write meanwhile. Repeatable; what cannot be rebuilt is tried again by the next call.

    Args:
        connection: one that commits each statement, and waits for as long as indexes take.
        node: of the server.

    Raises:
        psycopg.Error: an index cannot be rebuilt, as one whose values are the same now.
    """
    connection.execute(f"SET {_LATER}")
    connection.execute("SELECT pg_import_system_collations('pg_catalog')")
    if connection.execute("SELECT getdatabaseencoding()").fetchone() == ("UTF8",):
        for statement in statements(node.bundle):
            connection.execute(statement)
    _rebuild(connection, session.major(node.spec) >= _FIRST_WITH_VERSION)


def _rebuild(connection: Connection[Row], knows_own: bool) -> None:
    outdated = connection.execute(_OUTDATED).fetchall()
    own = knows_own and connection.execute(_DATABASE_IS_OUTDATED).fetchone() == (True,)
    changed = [oid for oid, _ in outdated] + [_DATABASES_OWN] * own
    failed = list[Error]()
    for _, index in connection.execute(_INDEXES, [changed]).fetchall():
        log.info("rebuilding %s, whose collation has changed", index)
        try:
            # As its owner, whose functions it may call.
            connection.execute(f"REINDEX INDEX CONCURRENTLY {index}")
        except Error as error:
            if connection.closed:
                raise
            failed.append(error)
    if failed:
        raise failed[0]
    for _, collation in outdated:
        connection.execute(f"ALTER COLLATION {collation} REFRESH VERSION")
    if own:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} REFRESH COLLATION VERSION").format(name))
