"""What pg_restore does with parts of a dump's table of contents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from openrdb.engines.base import EngineNode
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.nested import REFUSAL
from openrdb.engines.transfers import TransferFailed
from openrdb.system import accounts

OPTIONS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "search_path": "pg_catalog",
        "backslash_quote": "safe_encoding",
        "datestyle": "ISO,MDY",
        "intervalstyle": "postgres",
        "array_nulls": "on",
        "transform_null_equals": "off",
        "default_tablespace": "",
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "read\\ committed",
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
    }.items()
)
"""Of a session that loads a dump and is no superuser's."""
_ENTRY = re.compile(r"\d+; \d+ \d+ (.*)")
_GRANTS = ("ACL ", "DEFAULT ACL ", "COMMENT - EXTENSION ")
"""Entries that only the superuser can restore, and that run no code."""
_OF_ALL_TABLES = re.compile(rf"PUBLICATION - .* {SUPERUSER}")
"""The superuser owns no other publications: see `catalog/rdb_logical--1.0.sql`."""
_REFRESHES = ("MATERIALIZED VIEW DATA ",)
_MADE_BEFORE = ("EXTENSION - ",)
_ERROR = re.compile(r"(?:ERROR|FATAL): +(.+)|: error: (.+)")
_PATH = re.compile(r'(?<!\w)"?/[^\s"]+"?')
_FULL = ("No space left on device", "could not extend file", "Disk quota exceeded")
_CUT = ("could not read from input file", "unexpected end of file", "did not find magic string")


def listed(node: EngineNode, path: Path, section: str | None = None) -> list[str]:
    """Return the entries of a dump's table of contents, or of one of its three sections."""
    only = [f"--section={section}"] if section else []
    command = [str(node.bundle.program("pg_restore")), "--list", *only]
    with path.open("rb") as file:
        done = accounts.run(node.spec.uid, command, node.bundle.environment, file=file)
    if done.returncode != 0:
        raise failure(done.stderr)
    return [line for line in done.stdout.splitlines() if _ENTRY.match(line)]


def of_tenant(entries: Iterable[str], public: str | None, schemas: Iterable[int] = ()) -> list[str]:
    """Return the entries that the role which loads the dump restores.

    Args:
        public: who owned the schema `public`; None if there was none.
        schemas: the OIDs of schemas that are there already.
    """
    there = tuple(f"2615 {oid}" for oid in schemas)
    apart = (*_GRANTS, *_REFRESHES, *_MADE_BEFORE)
    of_public = _of_public(public, "SCHEMA -", "COMMENT - SCHEMA")
    return [
        line
        for line in entries
        if not what(line).startswith(apart)
        and not _OF_ALL_TABLES.fullmatch(what(line))
        and what(line) not in of_public
        and not (what(line).startswith("SCHEMA - ") and line.partition("; ")[2].startswith(there))
    ]


def granting(entries: Iterable[str], public: str | None) -> list[str]:
    """Return the entries that the superuser restores at the end; `public` as of `of_tenant`."""
    grant, comment = _of_public(public, "ACL - SCHEMA", "COMMENT - SCHEMA")
    return [
        line
        for line in entries
        if (what(line).startswith(_GRANTS) and what(line) != grant)
        or what(line) == comment
        or _OF_ALL_TABLES.fullmatch(what(line))
    ]


def _of_public(owner: str | None, *kinds: str) -> list[str]:
    """Return entries of the schema `public`; other schemas may have names that begin so."""
    return [f"{kind} public {owner}" for kind in kinds]


def refreshing(entries: Iterable[str]) -> list[str]:
    """Return the entries that fill materialized views."""
    return [line for line in entries if what(line).startswith(_REFRESHES)]


def what(entry: str) -> str:
    """Return an entry without its numbers: its kind, schema, name and owner."""
    found = _ENTRY.match(entry)
    return found[1] if found else ""


def restore(
    node: EngineNode,
    path: Path,
    entries: list[str],
    environment: dict[str, str],
    *options: str,
) -> None:
    """Restore some entries of a dump, until the first error.

    Raises:
        TransferFailed: there was one.
    """
    if not entries:
        return
    uid, names = node.spec.uid, path.with_name("entries")
    accounts.write_file(names, "\n".join(entries) + "\n", uid)
    command = [
        *(str(node.bundle.program("pg_restore")), "--exit-on-error", "--no-owner"),
        *(f"--use-list={names}", f"--dbname={environment['PGDATABASE']}"),
        *options,
    ]
    with path.open("rb") as file:
        done = accounts.run(uid, command, environment, file=file, timeout=None)
    if done.returncode != 0:
        raise failure(done.stderr)


def failure(stderr: str) -> TransferFailed:
    """Return why pg_dump or pg_restore failed."""
    found = _ERROR.findall(stderr)
    said = next((server for server, _ in found if server), "")
    said = said or next((client for _, client in found if client), "the program was ended")
    reason = without_paths(said.strip().rstrip("."))
    if any(text in stderr for text in _FULL):
        return TransferFailed("no_space", "there is no space left on the instance's volume")
    if REFUSAL in stderr:
        return TransferFailed("altered", reason)
    if any(text in stderr for text in _CUT):
        return TransferFailed("corrupt", f"the backup cannot be read: {reason}")
    return TransferFailed("", reason)


def without_paths(text: str) -> str:
    """Return what a program said, without the host's paths."""
    return _PATH.sub("a file", text)
