"""What is known of MySQL without a host."""

from __future__ import annotations

import re
import shlex
from typing import ClassVar, Final

from openrdb.catalog.node_types import NodeType
from openrdb.engines.base import Login
from openrdb.engines.mysql import accounts, config, releases
from openrdb.engines.mysql.admin import databases

_ENTRY: Final = re.compile(rb"(?:# Time: )?(\d{4}-\d\d-\d\d)T\d\d:\d\d:\d\d")
"""Of the log of errors, and of slow statements."""
_HEADER: Final = re.compile(rb"\S+, Version: .* started with:$")
"""Of a log of statements, at each start; it has paths of the host."""


class MySQLRules:
    name: ClassVar[str] = "MySQL"
    port: ClassVar[int] = 3306
    dump_suffix: ClassVar[str] = ".sql.zst"
    upgrades_majors: ClassVar[bool] = False

    def check_user_name(self, argument: str, name: str) -> None:
        accounts.check_name(argument, name)

    def check_database_name(self, argument: str, name: str) -> None:
        databases.check_name(argument, name)

    def verifier(self, password: str) -> str:
        return accounts.verifier(password)

    def log_day(self, line: bytes) -> bytes | None:
        if _HEADER.match(line.rstrip()):
            return b""
        found = _ENTRY.match(line)
        return found[1] if found else None

    def can_be_paired(self, version: str) -> bool:
        # Some of those before lack the plugins that standbys and read replicas are made and kept by.
        return releases.is_at_least(version, 8, 4)

    def client_command(self, login: Login) -> str:
        return shlex.join(
            [
                "mysql",
                f"--host={login.host}",
                f"--port={login.port}",
                f"--user={login.user}",
                "--password",
                "--ssl-mode=VERIFY_IDENTITY",
                f"--ssl-ca={login.certificate}",
                login.database,
            ]
        )

    def url(self, login: Login) -> str:
        options = {"ssl-mode": "VERIFY_IDENTITY", "ssl-ca": login.certificate}
        return login.url("mysql", **options)

    def default_settings(self, node_type: NodeType) -> dict[str, str]:
        return config.default_settings(node_type)
