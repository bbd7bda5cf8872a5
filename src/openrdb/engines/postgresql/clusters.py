"""Programs that make data directories, and change them without a server."""

from __future__ import annotations

from pathlib import Path

from openrdb.engines.names import SUPERUSER
from openrdb.system.bundle import Bundle

UNGRANTABLE = (
    "pg_execute_server_program",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_signal_backend",
    # They reach the catalogue too: all verifiers, and by the view pg_group the rows of pg_authid.
    "pg_read_all_data",
    "pg_write_all_data",
)
"""Predefined roles that open the host. Up to 15 any role with CREATEROLE could grant them to itself,
and nothing in the server forbids it: so they do not exist there. 16 needs an ADMIN OPTION for it."""


def initdb(bundle: Bundle, data: Path) -> list[str]:
    """Return the argument vector that makes a data directory, into which nobody can log in."""
    return [
        *(str(bundle.program("initdb")), "-D", str(data), "-U", SUPERUSER),
        *("--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync"),
        *("--auth-local=reject", "--auth-host=reject"),
    ]


def single_user(bundle: Bundle, data: Path, database: str = "template1") -> list[str]:
    """Return the argument vector of a server for one database, which does what its input says."""
    options = [
        "-c",
        "allow_system_table_mods=on",
        "-c",
        "fsync=off",
        "-c",
        "search_path=pg_catalog",
    ]
    program = [str(bundle.program("postgres")), "--single", "-D", str(data)]
    return [*program, *options, "--", database]  # its owner may have given it the name of an option


def major(bundle: Bundle) -> int:
    """Return a bundle's major version."""
    return int(bundle.version.split(".")[0])


def one_line(statement: str) -> str:
    """Return a statement as a server for one database reads it."""
    return " ".join(statement.split())


def without_ungrantable(bundle: Bundle) -> list[str]:
    """Return what removes the predefined roles that nothing else keeps tenants from, up to 15."""
    if major(bundle) >= 16:
        return []
    return [f"DELETE FROM pg_authid WHERE rolname = '{role}'" for role in UNGRANTABLE]  # noqa: S608
