"""The privileges of a tenant's administrators on the whole server: granted and revoked here.

None that leads out of the server or above the tenant: SUPER, SYSTEM_USER, FILE, SHUTDOWN, RELOAD
(RESET BINARY LOGS), any REPLICATION, SYSTEM_VARIABLES_ADMIN, SET_ANY_DEFINER, CONNECTION_ADMIN (writes
to a read-only server), BACKUP_ADMIN (stops all DDL), CREATE TABLESPACE; nothing of `mysql`, which holds
everybody's verifiers and grants. Administrators cannot grant what they do not have.
"""

from __future__ import annotations

from typing import Final

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

_SERVER = (
    *("CREATE USER", "CREATE ROLE", "DROP ROLE"),
    *("SHOW DATABASES", "PROCESS"),
)
_DYNAMIC = (
    "ROLE_ADMIN",
    "FLUSH_TABLES",  # mysqldump --single-transaction
    "FLUSH_STATUS",
    "XA_RECOVER_ADMIN",  # else nobody could end what a lost client has prepared
)

SYSTEM: Final = frozenset({"mysql", "sys", "information_schema", "performance_schema"})
"""Databases that are the server's own."""

MODEL: Final[Account] = ("_rdb_administrator", "localhost")
"""A locked account that has just what administrators get. They get it in its name, so that its limits
hold from the same moment: a session never sees the privileges without them."""

_LIMITS: Final = {
    "mysql": ALL,
    "sys": tuple(privilege for privilege in ALL if privilege not in {*READ, "EXECUTE"}),
    "performance_schema": ("INSERT", "UPDATE", "DELETE", "DROP"),
}


def making_model() -> list[str]:
    """Return statements that make the model of an administrator, before there is any user."""
    account = quoted_account(MODEL)
    return [
        f"CREATE USER {account} ACCOUNT LOCK",
        # Who lacks it can neither change the account, nor have it as a role.
        f"GRANT SYSTEM_USER ON *.* TO {account}",
        f"GRANT {_privileges()} ON *.* TO {account} WITH GRANT OPTION",
        *(
            f"REVOKE {', '.join(privileges)} ON {database}.* FROM {account}"
            for database, privileges in _LIMITS.items()
        ),
    ]


def make_administrator(session: Session, account: Account) -> None:
    """Give an account what administrators have; also to one whose privileges had been limited."""
    model, quoted = quoted_account(MODEL), quoted_account(account)
    run(session, f"GRANT {_privileges()} ON *.* TO {quoted} WITH GRANT OPTION AS {model}")


def unmake_administrator(session: Session, account: Account) -> None:
    """Take it back; what the account has in single databases stays."""
    quoted = quoted_account(account)
    # What makes an administrator last, so that this can be repeated; dynamic ones in a statement of
    # their own: among others they are left.
    for privileges in (", ".join(_DYNAMIC), "GRANT OPTION", ", ".join((*ALL, *_SERVER))):
        run(session, f"REVOKE IF EXISTS {privileges} ON *.* FROM {quoted}")


def _privileges() -> str:
    return ", ".join((*ALL, *_SERVER, *_DYNAMIC))
