"""A copy of a running server's data, which the server itself makes by its clone plugin.

Copying the files instead is silently wrong now and then: InnoDB's checkpoint moves on meanwhile. The
plugin is loaded for as long as it is needed; a node of a pair and a replica have it always, as nothing
can be loaded while they are read-only.
"""

from __future__ import annotations

import tempfile
import threading
from collections import defaultdict
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import UUID

import pymysql
from pymysql.constants import ER

from openrdb.engines.base import Copier, EngineNode
from openrdb.engines.mysql import plugins, reserved, session
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import Row, quoted_literal, rows, run
from openrdb.errors import HostError, PreconditionFailed
from openrdb.system import accounts, files

_LONGEST = 24 * 3600.0
_turns: dict[UUID, threading.Lock] = defaultdict(threading.Lock)
"""Of servers, by their nodes: each makes one copy at a time, and another would end it."""
PLUGIN = "clone"
LIBRARY = "mysql_clone.so"
_NO_PLUGIN = (
    "the binaries of this version have no clone plugin, without which an instance on this kind of "
    "volume cannot be copied"
)
# Nothing short of a restart brings back the archiver of pages that has found no room once.
_BROKEN_OFF = (
    "the server broke off copying itself; if it does so again, as after its disk was full, a restart "
    "of the instance helps"
)
_CLONING = (
    "SELECT id FROM information_schema.processlist WHERE user = %s AND id <> CONNECTION_ID() "
    "AND info LIKE 'CLONE LOCAL%%'"
)
OTHERS = (
    "SELECT table_schema, table_name, engine FROM information_schema.tables "
    "WHERE table_type = 'BASE TABLE' AND engine <> 'InnoDB' AND table_schema NOT IN "
    "('mysql', 'sys', 'information_schema', 'performance_schema')"
)


def others(connection: Session, most: int) -> list[Row]:
    """Return the tables of other engines: their databases, names and engines."""
    return rows(connection, f"{OTHERS} LIMIT {most}")


def obstacle(node: EngineNode) -> str | None:
    """Return why a server cannot be copied as it is; None if nothing is known of."""
    with session.connect(node) as connection:
        ((directory,),) = rows(connection, "SELECT @@plugin_dir")
        if not Path(str(directory), LIBRARY).exists():
            return _NO_PLUGIN
        return _not_cloned(connection)


def copy(node: EngineNode, copier: Copier) -> None:
    """Let the server write a copy; writers are not held.

    Raises:
        HostError: the server does not do it, or another copy of it takes very long.
    """
    turn = _turns[node.spec.node_id]
    if not turn.acquire(timeout=_LONGEST):
        raise HostError("another copy of the server takes too long")
    try:
        copier.write(partial(_clone, node))
    except pymysql.err.MySQLError as error:
        if error.args[:1] == (ER.QUERY_INTERRUPTED,):
            raise HostError(_BROKEN_OFF) from error
        raise HostError(f"the server makes no copy: {error.args[-1]}") from error
    finally:
        turn.release()


def _clone(node: EngineNode, data: Path) -> None:
    with tempfile.TemporaryDirectory(dir=data.parent) as place:
        # An account of its own may write only here, below a directory of the control plane's.
        accounts.ensure_directory(Path(place), node.spec.uid)
        work = Path(place) / "data"
        with session.connect(node, patience=_LONGEST) as connection:
            _require_innodb(connection)
            _load(connection)
            try:
                _end_earlier(connection)
                run(connection, f"CLONE LOCAL DATA DIRECTORY = {quoted_literal(str(work))}")
            finally:
                if not node.is_inert:
                    with suppress(pymysql.err.Error):  # whose server ended, or is cloned by another
                        unload(connection)
            _require_innodb(connection)  # also of what was made meanwhile
        files.sync_file_system(work)
        work.rename(data)


def prepare(connection: Session) -> None:
    """Make a server ready to be cloned by a statement of somebody else's.

    Raises:
        PreconditionFailed: it has tables that cannot be cloned, or no plugin.
    """
    _require_innodb(connection)
    _load(connection)


def _require_innodb(connection: Session) -> None:
    """Raise PreconditionFailed if there are tables that the plugin would leave empty."""
    if why := _not_cloned(connection):
        raise PreconditionFailed("resource_not_usable", why)


def _not_cloned(connection: Session) -> str | None:
    """Return what the plugin would leave empty, in words; None if it copies everything."""
    for schema, table, engine in others(connection, 1):
        return (
            f"the table {schema}.{table} is of the engine {engine}: on this kind of volume only "
            "tables of InnoDB can be copied; ALTER TABLE … ENGINE = InnoDB makes it one"
        )
    return None


def _load(connection: Session) -> None:
    try:
        plugins.load(connection, PLUGIN, LIBRARY)
    except pymysql.err.MySQLError as error:
        if error.args[:1] != (ER.CANT_OPEN_LIBRARY,):
            raise
        raise PreconditionFailed("resource_not_usable", _NO_PLUGIN) from None


def unload(connection: Session) -> None:
    """Unload the plugin; a no-op where it is not loaded."""
    plugins.unload(connection, PLUGIN)


def _end_earlier(connection: Session) -> None:
    """End what a process that was killed has begun: the server makes one copy at a time."""
    for (session_id,) in rows(connection, _CLONING, reserved.SUPERUSER[0]):
        try:
            run(connection, f"KILL {session_id}")
        except pymysql.err.MySQLError as error:
            if error.args[:1] != (ER.NO_SUCH_THREAD,):
                raise
