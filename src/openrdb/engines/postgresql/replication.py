"""What makes a node ready for standbys before it has any: the role that they stream by.

Nobody but this role may open a replication connection, and it opens nothing else: `config` says so
in the access file.
"""

from __future__ import annotations

from psycopg import Connection, sql

from openrdb.engines.names import REPLICATION
from openrdb.engines.postgresql import scram
from openrdb.engines.postgresql.admin.levels import Row

_OWN_PROTECTION = 160000
"""From this version on CREATEROLE reaches only roles that it has the ADMIN OPTION on. Before, it may
drop, rename and grant every role but superusers: there the role is one, so that no tenant can."""


def ensure_role(connection: Connection[Row], secret: str) -> None:
    """Create the role, or give it this secret."""
    query = "SELECT 1 FROM pg_roles WHERE rolname = %s"
    verb = "ALTER" if connection.execute(query, [REPLICATION]).fetchone() else "CREATE"
    protected = connection.info.server_version >= _OWN_PROTECTION
    rank = "NOSUPERUSER" if protected else "SUPERUSER"
    statement = sql.SQL(f"{verb} ROLE {{}} LOGIN REPLICATION {rank} PASSWORD {{}}")
    verifier = sql.Literal(scram.secret_verifier(secret))
    connection.execute(statement.format(sql.Identifier(REPLICATION), verifier))
