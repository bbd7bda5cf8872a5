"""What makes a node ready for replicas before it has any: the account that they read changes with."""

from __future__ import annotations

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import accounts, caching_sha2, session
from openrdb.engines.mysql.reserved import REPLICATION
from openrdb.engines.mysql.sql import quoted_account, rows, run

_AS_CONFIGURED = "SELECT @@gtid_mode = 'ON' AND @@log_bin AND @@log_replica_updates"

_PRIVILEGES = "REPLICATION SLAVE, REPLICATION CLIENT, BACKUP_ADMIN, SYSTEM_USER, CONNECTION_ADMIN"


def making() -> list[str]:
    """Return the statements that make the account, locked and without a password.

    It reads the binary log and how the server itself follows another one, and copies the whole server
    by the clone plugin. It has SYSTEM_USER because who lacks that can neither change the account nor
    take its place; and CONNECTION_ADMIN because a follower must come in where users do not, as all
    connections are taken or closed.
    """
    quoted = quoted_account(REPLICATION)
    return [
        f"CREATE USER IF NOT EXISTS {quoted} IDENTIFIED WITH caching_sha2_password "
        "REQUIRE SSL ACCOUNT LOCK",
        f"GRANT {_PRIVILEGES} ON *.* TO {quoted}",
    ]


_LONGEST = 32
"""Characters of a password that a replica connects with; what is longer is cut off in silence."""


def password(secret: str) -> str:
    """Return the account's password: as much of the secret as a replica can have."""
    return secret[:_LONGEST]


def unlocked(secret: str) -> str:
    """Return the end of an ALTER USER statement that opens the account to who knows the secret."""
    identified = accounts.identified(caching_sha2.verifier(password(secret)))
    return f"{quoted_account(REPLICATION)} {identified} ACCOUNT UNLOCK"


def ensure_ready(node: EngineNode, secret: str) -> bool:
    """Create the account; whether the rest waits for a restart."""
    with session.connect(node) as connection:
        for statement in making():
            run(connection, statement)
        run(connection, f"ALTER USER {unlocked(secret)}")
        ((configured,),) = rows(connection, _AS_CONFIGURED)
    return not configured
