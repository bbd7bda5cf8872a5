"""Dumps in SQL, taken by the superuser, in three parts: tables with their rows; triggers, routines and
events; views. A restore reads the first, and the others from the contents; people read it as one file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pymysql import MySQLError

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import contents, definitions, failures, session
from openrdb.engines.mysql.admin import databases
from openrdb.engines.names import SUPERUSER
from openrdb.engines.transfers import OF_RESTORES, Child, Dump, TransferFailed

_LOCK_WAIT = 60
"""Seconds for a lock of the tenant's; the server's own default is a year."""
_LAST_WORDS = b"-- Dump completed"
_OPTIONS = (
    *("--no-defaults", "--protocol=socket", f"--user={SUPERUSER}", "--single-transaction"),
    *("--hex-blob", "--set-gtid-purged=OFF", "--no-tablespaces", "--column-statistics=0"),
    *("--default-character-set=utf8mb4", "--max-allowed-packet=1G"),
)
_ERROR = re.compile(
    r"(?:ERROR \d+ \(\w+\)(?: at line \d+)?|mysqldump: (?:Got error: \d+|Error)): (.+)"
)
_SAID = re.compile(r"^mysqldump: (.+)", re.MULTILINE)
_PATH = re.compile(r"'?(?<![\w`.])/[^\s']+'?")
_LOADED = re.compile(rf"`?{OF_RESTORES.pattern}`?\.")


@contextmanager
def begin(node: EngineNode, database: str) -> Iterator[Dump]:
    """Yield a dump of a database.

    Raises:
        TransferFailed: there is no such database.
    """
    try:
        with session.connect(node) as connection:
            found = databases.find(connection, database)
            if found is None:
                raise TransferFailed("missing", f"there is no database {database}")
            kept = found[0]
            described = contents.read(connection, kept)
            views = definitions.names(connection, kept, "VIEW")
    except MySQLError as error:
        raise failed(error) from error
    yield Dump(
        list(_children(node, kept, described["tables"], views)), described, True, _LAST_WORDS
    )


def _children(
    node: EngineNode, database: str, tables: list[str], views: list[str]
) -> Iterator[Child]:
    # By name: what is made meanwhile is not in the contents, and what is dropped is an error.
    without = [f"--ignore-table={database}.{view}" for view in views]
    which = ["--", database, *tables] if tables else [*without, "--", database]
    yield _child(node, ["--skip-triggers", *which])
    coded = ["--no-create-info", "--no-data", "--triggers", "--routines", "--events"]
    yield _child(node, [*coded, *which])
    if views:
        yield _child(node, ["--no-data", "--skip-triggers", "--", database, *views])


def _child(node: EngineNode, arguments: list[str]) -> Child:
    # MySQL 8 knows the option from 8.0.36 on; earlier clients warn and go on without.
    patience = f"--loose-init-command=SET SESSION lock_wait_timeout = {_LOCK_WAIT}"
    options = [*_OPTIONS, patience, f"--socket={session.socket(node.paths)}"]
    command = [*node.bundle.command("mysqldump"), *options, *arguments]
    return Child(command, node.bundle.environment | {"MYSQL_PWD": node.secret})


def failed(error: MySQLError) -> TransferFailed:
    """Return a refusal of the server's as one for the user."""
    number, *said = error.args if error.args else (0,)
    reason = str(said[0]) if said else "the database server does not answer"
    unreachable = not isinstance(number, int) or 2000 <= number < 3000
    if unreachable:
        return TransferFailed("not_ready", "the database server does not answer")
    return failure(f"ERROR {number} (HY000): {reason}")


def failure(stderr: str) -> TransferFailed:
    """Return why mysqldump or mysql failed."""
    found = _ERROR.search(stderr) or _SAID.search(stderr)
    reason = found[1].strip().rstrip(".") if found else "the program was ended"
    if failures.is_full(stderr):
        return TransferFailed("no_space", "there is no space left on the instance's volume")
    # A restore's own databases mean nothing to the user: it is `t` that has no column, not theirs.
    return TransferFailed("", _PATH.sub("a file", _LOADED.sub("", reason)))
