"""What is known of PostgreSQL without a host."""

from __future__ import annotations

import re
import shlex
from typing import ClassVar, Final

from openrdb.catalog.node_types import NodeType
from openrdb.engines.base import Login
from openrdb.engines.postgresql import config, scram
from openrdb.engines.postgresql.admin import databases, users

_ENTRY: Final = re.compile(rb"(\d{4}-\d\d-\d\d) \d\d:\d\d:\d\d")
"""As `log_line_prefix` says; further lines of an entry begin with a tab."""
_PLAIN: Final = re.compile(r"[\w.:/-]+")


class PostgreSQLRules:
    name: ClassVar[str] = "PostgreSQL"
    port: ClassVar[int] = 5432
    dump_suffix: ClassVar[str] = ".custom"
    upgrades_majors: ClassVar[bool] = True

    def check_user_name(self, argument: str, name: str) -> None:
        users.check_name(argument, name)

    def check_database_name(self, argument: str, name: str) -> None:
        databases.check_name(argument, name)

    def verifier(self, password: str) -> str:
        return scram.verifier(password)

    def log_day(self, line: bytes) -> bytes | None:
        found = _ENTRY.match(line)
        return found[1] if found else None

    def can_be_paired(self, version: str) -> bool:
        return True

    def client_command(self, login: Login) -> str:
        words = {
            "host": login.host,
            "port": str(login.port),
            "dbname": login.database,
            "user": login.user,
            "sslmode": "verify-full",
            "sslrootcert": login.certificate,
        }
        said = " ".join(f"{name}={_quoted(value)}" for name, value in words.items())
        return f"psql {shlex.quote(said)}"

    def url(self, login: Login) -> str:
        return login.url("postgresql", sslmode="verify-full", sslrootcert=login.certificate)

    def default_settings(self, node_type: NodeType) -> dict[str, str]:
        return config.default_settings(node_type)


def _quoted(value: str) -> str:
    """Return a value as libpq's connection strings have it."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
