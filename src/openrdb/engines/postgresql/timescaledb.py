"""Databases whose TimescaleDB was created by earlier bundles, which let it act as the superuser.

It defines parts of hypertables as the owner of the schema `_timescaledb_catalog`, in tenants' sessions:
expressions that the server evaluates meanwhile are theirs. Newer bundles give the schema to the owner
of the extension (`catalog/extensions.toml`); this does the same afterwards.
"""

from __future__ import annotations

from psycopg import Connection

from openrdb.catalog.extensions import known

Row = tuple[object, ...]

_ACTS_AS_SUPERUSER = """
    SELECT EXISTS (
        SELECT FROM pg_namespace n JOIN pg_roles r ON r.oid = nspowner
        JOIN pg_depend d ON d.classid = 'pg_namespace'::regclass AND d.objid = n.oid
        JOIN pg_extension e ON e.oid = d.refobjid AND d.deptype = 'e'
        WHERE nspname = '_timescaledb_catalog' AND rolsuper AND extname = 'timescaledb'
    )
"""
MADE = (
    "FUNCTION _timescaledb_functions.rdb_keep_schemas()",
    "EVENT TRIGGER timescaledb_rdb_keep_schemas",
)
"""What the extension's script makes, and dumps leave out."""
# Each looks up once as whom the extension acts.
_END_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def disarm(connection: Connection[Row]) -> None:
    """Let the extension act as its own owner in a database, and end the sessions that have looked up
    the superuser before; of a session that commits each statement."""
    if connection.execute(_ACTS_AS_SUPERUSER).fetchone() == (True,):
        with connection.transaction():
            connection.execute(known()["after"]["timescaledb"])
            for made in MADE:
                connection.execute(f"ALTER EXTENSION timescaledb ADD {made}")
        connection.execute(_END_OTHERS)
