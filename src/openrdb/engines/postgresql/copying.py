"""A copy of a running server's files, one after the other: made whole by the WAL of that time.

In backup mode every page that changes is written to the WAL as a whole, so that recovery mends what
was copied while it was being written. `backup_label` says where recovery must begin: without it a
copy starts just as well, and is silently wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg import Connection, Error, errors, sql

from openrdb.engines.base import Copier, EngineNode
from openrdb.engines.postgresql import identity, session, wal
from openrdb.errors import HostError
from openrdb.system import copying, files

_LONGEST = 24 * 3600.0
"""Seconds for the checkpoint at the beginning, and for all the rest."""
_LABEL = "openrdb"
_SLOT = "_rdb_copy"
_RENAMED_FROM = 15
_CONTROL_READS = 100
_METHOD = ("BACKUP METHOD: streamed", "BACKUP METHOD: copied")
"""Whose label says that it is streamed starts only if its first recovery comes to its end: the server
puts the label aside when it begins, and a later start, which replays the same WAL from the same place
to its end, then misses the end of the backup. That the WAL is all there is checked here instead."""
_FIRST = re.compile(r"^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)", re.MULTILINE)
_HISTORY = ".history"
"""Of a timeline: by it a later follower finds out whose continuation the copy is."""
_RUNTIME = ("postmaster.pid", "postmaster.opts")


def copy(node: EngineNode, copier: Copier) -> None:
    """Make a copy of the data directory; writers are not held."""
    with session.answering(), _session(node) as connection:
        _keep_wal(connection)
        _start(connection, node)

        def complete(data: Path) -> None:
            # Before the end: in a copy of a standby it says up to where recovery must go at least.
            _copy_control(node.paths.data / "global", data / "global")
            wanted, label, tablespaces = _stop(connection, node)
            if tablespaces:
                raise HostError("the server has tablespaces, which lie outside of its volume")
            _complete(node.paths.data, data, wanted)
            (data / "backup_label").write_text(label.replace(*_METHOD))
            files.sync_file_system(data)

        copier.copy_files(complete)


def checkpoint(node: EngineNode) -> None:
    """Write all that was changed to disk, as far as the server does what it is asked."""
    with suppress(Error), _session(node) as connection:
        connection.execute("CHECKPOINT")


@contextmanager
def _session(node: EngineNode) -> Iterator[Connection[tuple[object, ...]]]:
    """Yield a session for what may take long. What it has begun ends with it: backup mode does."""
    connection = session.connect(node, "postgres")
    connection.autocommit = True
    connection.patience = _LONGEST
    with connection:
        connection.execute("SET statement_timeout = 0")
        yield connection


def _keep_wal(connection: Connection[tuple[object, ...]]) -> None:
    """Keep the WAL from here on until the session ends, up to `max_slot_wal_keep_size`.

    Where tenants have all slots it goes without: then only long copies miss some, and fail.
    """
    name = f"{_SLOT}_{connection.info.backend_pid}"
    query = (
        "SELECT pg_create_physical_replication_slot(%s, immediately_reserve => true, "
        "temporary => true)"
    )
    with suppress(errors.ConfigurationLimitExceeded):
        connection.execute(query, [name])


def _start(connection: Connection[tuple[object, ...]], node: EngineNode) -> None:
    """Begin backup mode with a checkpoint."""
    renamed = session.major(node.spec) >= _RENAMED_FROM
    start = "pg_backup_start(%s, true)" if renamed else "pg_start_backup(%s, true, false)"
    _row(connection, sql.SQL(f"SELECT {start}"), _LABEL)


def _stop(
    connection: Connection[tuple[object, ...]], node: EngineNode
) -> tuple[set[str], str, str]:
    """End backup mode; return the segments of WAL that recovery needs, and what is to be in
    `backup_label` and `tablespace_map`."""
    renamed = session.major(node.spec) >= _RENAMED_FROM
    stop = "pg_backup_stop(false)" if renamed else "pg_stop_backup(false, false)"
    query = sql.SQL(f"SELECT lsn, labelfile, spcmapfile FROM {stop}")  # noqa: S608
    position, label, tablespaces = _row(connection, query)
    size = int(_row(connection, sql.SQL(_SEGMENT_SIZE))[0])
    # A standby does not name segments of positions.
    found = _FIRST.search(label)
    assert found is not None  # noqa: S101
    last = wal.segment_of(int(found[1][:8], 16), position, size, ends=True)
    return wal.segments(found[1], last, size), label, tablespaces


def _row(
    connection: Connection[tuple[object, ...]], query: sql.SQL, *arguments: object
) -> tuple[str, ...]:
    row = connection.execute(query, arguments or None).fetchone()
    assert row is not None  # noqa: S101
    return tuple(str(value or "") for value in row)


def _complete(source: Path, data: Path, wanted: set[str]) -> None:
    """Put into a copy the WAL of the time of copying, which recovery needs."""
    for name in _RUNTIME:
        (data / name).unlink(missing_ok=True)
    target = data / "pg_wal"
    for path in target.iterdir():  # what was copied in the middle of being written
        if not path.is_dir() and path.suffix != _HISTORY:
            path.unlink()
    try:
        copying.copy_files(source / "pg_wal", wanted, target)
    except FileNotFoundError:
        raise _too_much() from None
    # A segment that was taken for other content meanwhile has another name by now.
    if wanted - {entry.name for entry in os.scandir(source / "pg_wal")}:
        raise _too_much()


_SEGMENT_SIZE = "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'"


def _too_much() -> HostError:
    return HostError(
        "more was written to the databases than the server keeps while it is copied: try again at a "
        "quieter time"
    )


def _copy_control(source: Path, target: Path) -> None:
    """Copy `pg_control` again while it is not just being written."""
    path = target / "pg_control"
    for _ in range(_CONTROL_READS):
        path.unlink(missing_ok=True)
        copying.copy_files(source, [path.name], target)
        try:
            identity.find_crc(path.read_bytes())
        except ValueError:
            continue
        return
    raise HostError("pg_control is damaged")
