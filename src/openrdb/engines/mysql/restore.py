"""Restores: tables are loaded into a database of their own, and all change places by one RENAME.

Rows are loaded by `RESTORE`, which has nothing but that database. Tables run no code of the tenant's:
the server takes no routine in a constraint, default or index. Triggers, views, routines and events,
each with its definer, are made by the superuser afterwards, which runs none of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import zstandard
from pymysql import MySQLError

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import contents as read_contents
from openrdb.engines.mysql import definitions, dump, reserved, session, swap
from openrdb.engines.mysql.accounts import identified
from openrdb.engines.mysql.admin import databases, levels
from openrdb.engines.mysql.caching_sha2 import verifier
from openrdb.engines.mysql.restoring import Restoring, close_account
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import quoted_account, quoted_identifier, rows, run
from openrdb.engines.names import FIRST_DATABASE
from openrdb.engines.transfers import Contents, TransferFailed
from openrdb.errors import InvalidArguments
from openrdb.system import accounts

_CHUNK = 2**20
_FOREIGN_KEYS = """
    SELECT DISTINCT constraint_schema, table_name FROM information_schema.referential_constraints
    WHERE unique_constraint_schema = %s AND constraint_schema <> %s
"""


def check(node: EngineNode, database: str, contents: Contents) -> None:
    """Raise TransferFailed if a dump cannot be restored here, with all users who are missing."""
    with session.connect(node) as connection:
        # An administrator can drop the first database by SQL: nothing else brings it back.
        if database != FIRST_DATABASE and databases.find(connection, database) is None:
            try:
                databases.check_name("database_name", database)
            except InvalidArguments as error:
                raise TransferFailed("database_name", error.explanation) from error
        there = {"@".join(account) for account in levels.read(connection).everywhere}
        if missing := [name.removesuffix("@%") for name in contents["users"] if name not in there]:
            names, they = ", ".join(missing), "this user" if len(missing) == 1 else "these users"
            why = f"the backup needs {they}, whom the instance does not have: {names}"
            raise TransferFailed("missing_users", why)
        _check_foreign_keys(connection, database)


def _check_foreign_keys(connection: Session, database: str) -> None:
    found = [
        f"{schema}.{table}"
        for schema, table in rows(connection, _FOREIGN_KEYS, database, database)
        if not swap.is_ours(str(schema))
    ]
    if found:
        why = f"foreign keys of other databases refer to {database}: {', '.join(found[:3])}"
        raise TransferFailed("database_in_use", why)


def run_restore(
    node: EngineNode, job_id: UUID, database: str, contents: Contents, path: Path
) -> None:
    """Make a database what it was at the dump, or leave it as it is."""
    check(node, database, contents)
    job, password = Restoring(node, job_id), secrets.token_hex(32)
    try:
        swap.sweep(node)
        with job.session() as connection:
            _open(connection, job.loaded, password, contents)
        _load(node, job.loaded, password, path)
        with job.session() as connection:
            if read_contents.tables(connection, job.loaded) != contents["tables"]:
                raise TransferFailed("corrupt", "the backup does not have all tables")
            _try_definitions(connection, job.loaded, contents)
            close_account(connection)
        swap.swap(job, database, contents)
    except MySQLError as error:
        raise dump.failed(error) from error
    finally:
        with suppress(MySQLError, TransferFailed):  # the next restore, or the agent, does it
            swap.settle(node, job_id)


def _open(connection: Session, loaded: str, password: str, contents: Contents) -> None:
    """Create the database, and the account that loads it."""
    charset, collation = contents["charset"]
    quoted, account = quoted_identifier(loaded), quoted_account(reserved.RESTORE)
    close_account(connection)
    run(connection, f"CREATE DATABASE {quoted} CHARACTER SET {charset} COLLATE {collation}")
    run(connection, f"CREATE USER {account} {identified(verifier(password))}")
    run(connection, f"GRANT ALL PRIVILEGES ON {quoted}.* TO {account}")
    # A foreign key may refer to another database.
    run(connection, f"GRANT REFERENCES ON *.* TO {account}")


def _load(node: EngineNode, loaded: str, password: str, path: Path) -> None:
    command = [
        *node.bundle.command("mysql"),
        *("--no-defaults", "--protocol=socket", f"--socket={session.socket(node.paths)}"),
        # It obeys no command of the client's that a name in the dump could be taken for.
        *(f"--user={reserved.RESTORE[0]}", "--binary-mode", "--max-allowed-packet=1G"),
        *("--default-character-set=utf8mb4", "--", loaded),
    ]
    environment = node.bundle.environment | {"MYSQL_PWD": password}
    done = accounts.feed(node.spec.uid, command, environment, _tables(path))
    if done.returncode != 0:
        raise dump.failure(done.stderr)


def _tables(path: Path) -> Iterator[bytes]:
    """Yield the first part of a dump, its first frame."""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    try:
        with path.open("rb") as file:
            while not decompressor.eof and (chunk := file.read(_CHUNK)):
                yield decompressor.decompress(chunk)
    except zstandard.ZstdError as error:
        raise TransferFailed("corrupt", "the backup cannot be decompressed") from error


def _try_definitions(connection: Session, loaded: str, contents: Contents) -> None:
    """Make the definitions once where it does no harm; an event would run.

    Raises:
        MySQLError: one cannot be made.
    """
    tried = [
        definitions.defined_by(one, reserved.RESTORE)
        for one in contents["definitions"]
        if one["kind"] != "EVENT"
    ]
    definitions.make(connection, loaded, tried)
    # A table with triggers cannot change places.
    definitions.drop(connection, loaded)
