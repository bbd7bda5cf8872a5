"""What makes a node ready for standbys before it has any: the role that they stream by.

Nobody but this role may open a replication connection, and it opens nothing else: `config` says so
in the access file.
"""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

from psycopg import Connection, sql

from openrdb.engines.names import OWN_PREFIX, REPLICATION
from openrdb.engines.postgresql import scram
from openrdb.engines.postgresql.admin.levels import Row

_SLOT = re.compile(f"{OWN_PREFIX}_([0-9a-f]{{32}})")


def ensure_role(connection: Connection[Row], secret: str) -> None:
    """Create the role, or give it this secret.

    It is a superuser, as tenants reach all other roles: up to 15 CREATEROLE drops, renames and grants
    them, and from 16 on members of `pg_signal_backend` end their sessions, those of standbys too.
    """
    query = "SELECT 1 FROM pg_roles WHERE rolname = %s"
    verb = "ALTER" if connection.execute(query, [REPLICATION]).fetchone() else "CREATE"
    statement = sql.SQL(f"{verb} ROLE {{}} LOGIN REPLICATION SUPERUSER PASSWORD {{}}")
    verifier = sql.Literal(scram.secret_verifier(secret))
    connection.execute(statement.format(sql.Identifier(REPLICATION), verifier))


def parameters(address: str, port: int, application: str, authority: Path) -> dict[str, str]:
    """Return what libpq needs to stream from a node, but for the secret.

    Args:
        authority: the certificate of the instance's authority.
    """
    return {
        "host": address,
        "port": str(port),
        "user": REPLICATION,
        "application_name": application,
        "sslmode": "verify-ca",
        "sslrootcert": str(authority),
        "gssencmode": "disable",
        "connect_timeout": "10",
    }


def slot_of(follower: UUID) -> str:
    """Return the name of the slot by which a follower's upstream keeps what it has not received."""
    return f"{OWN_PREFIX}_{follower.hex}"


def follower_of(slot: str) -> UUID | None:
    """Return whose slot it is; None if it is no follower's."""
    match = _SLOT.fullmatch(slot)
    return UUID(match[1]) if match is not None else None
