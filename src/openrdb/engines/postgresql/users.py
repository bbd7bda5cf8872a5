"""Roles: names, verifiers, and the first administrator."""

from __future__ import annotations

import re
from base64 import b64encode

import scramp
from psycopg import Connection, OperationalError, sql

from openrdb.engines.base import Administrator, NodeSpec
from openrdb.engines.postgresql import server
from openrdb.engines.postgresql.server import SUPERUSER
from openrdb.errors import InvalidArguments
from openrdb.host.layout import NodePaths

_LONGEST_NAME = 63
_RESERVED = {"postgres", "root", "public", "none", "current_user", "current_role", "session_user"}
_RESERVED_PREFIXES = ("pg_", "_rdb")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f]+")


def check_name(argument: str, name: str) -> None:
    """Raise InvalidArguments unless a user may have this name (DESIGN section 7)."""
    if not 1 <= len(name.encode()) <= _LONGEST_NAME:
        raise InvalidArguments((argument, "constraint", f"must have 1 to {_LONGEST_NAME} bytes"))
    if not _PLAIN.fullmatch(name) or name[0].isdigit():
        help_message = "must not start with a digit nor contain control characters"
        raise InvalidArguments((argument, "format", help_message))
    if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIXES):
        raise InvalidArguments((argument, "constraint", f"{name} is a reserved name"))


def verifier(password: str) -> str:
    """`SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, as pg_authid holds it.

    Raises:
        InvalidArguments: the password has characters that SASLprep forbids.
    """
    try:
        made = scramp.ScramMechanism("SCRAM-SHA-256").make_auth_info(password)
    except scramp.ScramException:
        help_message = "has characters that cannot be used in passwords"
        raise InvalidArguments(("password", "format", help_message)) from None
    salt, stored_key, server_key = (b64encode(part).decode() for part in made[:3])
    return f"SCRAM-SHA-256${made[3]}:{salt}${stored_key}:{server_key}"


def bootstrap(
    spec: NodeSpec,
    paths: NodePaths,
    secrets: tuple[str, str],
    administrator: Administrator | None,
) -> None:
    """The instance's own superuser secret and its first administrator, in one transaction."""
    with _first_connection(spec, paths, secrets) as connection:
        own = sql.Literal(verifier(secrets[1]))
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(SUPERUSER), own)
        )
        if administrator is not None:
            _ensure_administrator(connection, administrator)


def _first_connection(
    spec: NodeSpec, paths: NodePaths, secrets: tuple[str, str]
) -> Connection[tuple[object, ...]]:
    template, own = secrets
    try:
        return server.connect(spec, paths, template, "rdb")
    except OperationalError as error:
        # Done before: the transaction was committed and its end not recorded.
        if "password authentication failed" not in str(error):
            raise
        return server.connect(spec, paths, own, "rdb")


def _ensure_administrator(
    connection: Connection[tuple[object, ...]], administrator: Administrator
) -> None:
    """LOGIN, CREATEDB and CREATEROLE, everything in `rdb`; never more (DESIGN section 7)."""
    name = sql.Identifier(administrator.name)
    query = "SELECT 1 FROM pg_roles WHERE rolname = %s"
    if connection.execute(query, [administrator.name]).fetchone() is None:
        statement = sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}")
        connection.execute(statement.format(name, sql.Literal(administrator.verifier)))
    for statement in (
        sql.SQL("GRANT ALL ON DATABASE rdb TO {}"),
        sql.SQL("GRANT ALL ON SCHEMA public TO {}"),
    ):
        connection.execute(statement.format(name))
