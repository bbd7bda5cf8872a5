"""Accounts at birth: names, verifiers, and the first administrator."""

from __future__ import annotations

import re

import pymysql
from pymysql.constants import ER
from pymysql.converters import escape_string

from openrdb.engines.base import Administrator, NodeSpec
from openrdb.engines.mysql import caching_sha2, server
from openrdb.engines.mysql.server import SUPERUSER, Session
from openrdb.errors import InvalidArguments
from openrdb.host.layout import NodePaths

_LONGEST_NAME = 32
_LONGEST_PASSWORD = 255
_RESERVED = {"postgres", "root"}
_RESERVED_PREFIXES = ("_rdb", "mysql.", "pg_")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff\U00010000-\U0010ffff]+")

STATIC_PRIVILEGES = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, PROCESS, REFERENCES, INDEX, ALTER, "
    "SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION SLAVE, "
    "REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, "
    "EVENT, TRIGGER, CREATE ROLE, DROP ROLE"
)
DYNAMIC_PRIVILEGES = (
    "APPLICATION_PASSWORD_ADMIN, FLUSH_OPTIMIZER_COSTS, FLUSH_STATUS, FLUSH_TABLES, "
    "FLUSH_USER_RESOURCES, ROLE_ADMIN, XA_RECOVER_ADMIN"
)
"""What an administrator has of all there is (DESIGN section 7). Left out is what reaches the host
(FILE, SHUTDOWN, the SYSTEM_ and _ADMIN ones) and what would cut backups and replicas off: RELOAD may
reset the binary logs."""


def check_name(argument: str, name: str) -> None:
    """Raise InvalidArguments unless a user may have this name (DESIGN section 7)."""
    if not 1 <= len(name) <= _LONGEST_NAME:
        help_message = f"must have 1 to {_LONGEST_NAME} characters"
        raise InvalidArguments((argument, "constraint", help_message))
    if not _PLAIN.fullmatch(name) or name[0].isdigit() or name != name.strip():
        help_message = (
            "must not start with a digit, nor start or end with a space, nor contain control "
            "characters or characters beyond the Basic Multilingual Plane"
        )
        raise InvalidArguments((argument, "format", help_message))
    check_not_reserved(argument, name)


def check_not_reserved(argument: str, name: str) -> None:
    """Raise InvalidArguments for the name of an account that is no user's."""
    if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIXES):
        raise InvalidArguments((argument, "constraint", f"{name} is a reserved name"))


def verifier(password: str) -> str:
    """What `caching_sha2_password` stores.

    Raises:
        InvalidArguments: the password is longer than the engine takes.
    """
    if len(password.encode()) > _LONGEST_PASSWORD:
        help_message = f"must have at most {_LONGEST_PASSWORD} bytes in UTF-8"
        raise InvalidArguments(("password", "constraint", help_message))
    return caching_sha2.verifier(password)


def account(name: str, host: str = "%") -> str:
    """An account as statements name it."""
    return f"{literal(name)}@{literal(host)}"


def literal(text: str) -> str:
    return f"'{escape_string(text)}'"


def identified(verifier: str) -> str:
    """The clause that gives an account a password by its verifier."""
    return f"IDENTIFIED WITH caching_sha2_password AS 0x{verifier.encode().hex()}"


def bootstrap(
    spec: NodeSpec,
    paths: NodePaths,
    secrets: tuple[str, str],
    administrator: Administrator | None,
) -> None:
    """The instance's first administrator and, last, its own superuser secret."""
    with _first_session(spec, paths, secrets) as session, session.cursor() as cursor:
        if administrator is not None:
            ensure_administrator(session, administrator.name, administrator.verifier)
        own = identified(caching_sha2.verifier(secrets[1]))
        cursor.execute(f"ALTER USER {account(SUPERUSER, 'localhost')} {own}")


def _first_session(spec: NodeSpec, paths: NodePaths, secrets: tuple[str, str]) -> Session:
    template, own = secrets
    try:
        return server.connect(spec, paths, template)
    except pymysql.err.OperationalError as error:
        # Done before, and its end not recorded.
        if error.args[0] != ER.ACCESS_DENIED_ERROR:
            raise
        return server.connect(spec, paths, own)


def ensure_administrator(session: Session, name: str, verifier: str) -> None:
    """An account with all that administrators may, nothing of it in the system's own schema."""
    who = account(name)
    with session.cursor() as cursor:
        for statement in (
            f"CREATE USER IF NOT EXISTS {who} {identified(verifier)}",
            f"ALTER USER {who} {identified(verifier)}",
            f"GRANT {STATIC_PRIVILEGES} ON *.* TO {who} WITH GRANT OPTION",
            f"GRANT {DYNAMIC_PRIVILEGES} ON *.* TO {who} WITH GRANT OPTION",
            f"REVOKE ALL ON mysql.* FROM {who}",
        ):
            cursor.execute(statement)
