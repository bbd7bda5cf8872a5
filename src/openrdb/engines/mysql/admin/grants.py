"""The privileges of a tenant's administrators on the whole server: granted and revoked here.

None that leads out of the server or above the tenant: SUPER, SYSTEM_USER, FILE, SHUTDOWN, RELOAD
(RESET BINARY LOGS), REPLICATION SLAVE (reads all rows and verifiers, and confirms commits in a
standby's place), SYSTEM_VARIABLES_ADMIN, SET_ANY_DEFINER, CONNECTION_ADMIN (writes to a read-only
server), BACKUP_ADMIN (stops all DDL), CREATE TABLESPACE; nothing of `mysql`, which holds everybody's
verifiers and grants. Administrators cannot grant what they do not have.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from openrdb.engines.mysql import releases
from openrdb.engines.mysql.reserved import MODEL
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import Account, quoted_account, run

READ: Final = ("SELECT", "SHOW VIEW")
WRITE: Final = (
    *("INSERT", "UPDATE", "DELETE"),
    *("CREATE TEMPORARY TABLES", "LOCK TABLES", "EXECUTE"),
)
DEFINE: Final = (
    *("CREATE", "DROP", "ALTER", "INDEX", "REFERENCES", "CREATE VIEW"),
    *("CREATE ROUTINE", "ALTER ROUTINE", "EVENT", "TRIGGER"),
)
ALL: Final = (*READ, *WRITE, *DEFINE)
"""All that can be granted on a database, but the right to grant it on."""

SERVER: Final = (
    *("CREATE USER", "CREATE ROLE", "DROP ROLE"),
    *("SHOW DATABASES", "PROCESS"),
)
POSITIONS: Final = "REPLICATION CLIENT"
"""Shows how far the binary log and replication have come (mysqldump --source-data, monitoring), and
nothing of what is in them."""
_DYNAMIC = (
    "ROLE_ADMIN",
    "FLUSH_TABLES",  # mysqldump --single-transaction
    "FLUSH_STATUS",
    "XA_RECOVER_ADMIN",  # else nobody could end what a lost client has prepared
)

SYSTEM: Final = frozenset({"mysql", "sys", "information_schema", "performance_schema"})
"""Databases that are the server's own."""

_LIMITS: Final = {
    "mysql": ALL,
    "sys": tuple(privilege for privilege in ALL if privilege not in {*READ, "EXECUTE"}),
    "performance_schema": ("INSERT", "UPDATE", "DELETE", "DROP"),
}


def making_model(version: str) -> list[str]:
    """Return statements that make the model of an administrator, before there is any user."""
    account = quoted_account(MODEL)
    return [
        f"CREATE USER {account} ACCOUNT LOCK",
        # Who lacks it can neither change the account, nor have it as a role.
        f"GRANT SYSTEM_USER ON *.* TO {account}",
        f"GRANT {_privileges(version)} ON *.* TO {account} WITH GRANT OPTION",
        *(
            f"REVOKE {', '.join(privileges)} ON {database}.* FROM {account}"
            for database, privileges in _LIMITS.items()
        ),
    ]


def renew_model(session: Session) -> None:
    """Give the model what a newer version or newer code gives to administrators in addition.

    Nothing that can be granted on a database: granted on the whole server it would lift the limits.
    """
    privileges = ", ".join(renewed(session.get_server_info()))
    run(session, f"GRANT {privileges} ON *.* TO {quoted_account(MODEL)} WITH GRANT OPTION")


def make_administrator(session: Session, account: Account) -> None:
    """Give an account what administrators have; also to one whose privileges had been limited."""
    model, quoted = quoted_account(MODEL), quoted_account(account)
    privileges = _privileges(session.get_server_info())
    run(session, f"GRANT {privileges} ON *.* TO {quoted} WITH GRANT OPTION AS {model}")


def unmake_administrator(
    session: Session, account: Account, roles: Iterable[Account], regrantable: Iterable[str]
) -> None:
    """Take all that an account has on the whole server, and its roles.

    What it has in single databases stays, but not the right to pass it on: administrators can give
    themselves both that and any user as a role.
    """
    quoted = quoted_account(account)
    for on in regrantable:
        run(session, f"REVOKE IF EXISTS GRANT OPTION ON {on} FROM {quoted} IGNORE UNKNOWN USER")
    for role in roles:
        run(session, f"REVOKE IF EXISTS {quoted_account(role)} FROM {quoted} IGNORE UNKNOWN USER")
    # Dynamic ones in a statement of their own: among others they are left.
    dynamic = ", ".join(_dynamic_privileges(session.get_server_info()))
    for privileges in (dynamic, "GRANT OPTION", ", ".join((*ALL, *SERVER, POSITIONS))):
        run(session, f"REVOKE IF EXISTS {privileges} ON *.* FROM {quoted} IGNORE UNKNOWN USER")


def _privileges(version: str) -> str:
    return ", ".join((*ALL, *SERVER, *renewed(version)))


def renewed(version: str) -> tuple[str, ...]:
    """Return what a server's version knows of what administrators of earlier versions may lack."""
    return (POSITIONS, *_dynamic_privileges(version))


def _dynamic_privileges(version: str) -> tuple[str, ...]:
    newer = ("FLUSH_PRIVILEGES",) if releases.is_at_least(version, 8, 4) else ()
    return (*_DYNAMIC, *newer)
