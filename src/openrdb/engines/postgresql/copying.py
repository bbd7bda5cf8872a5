"""A copy of a running server's files, one after the other: made whole by the WAL of that time.

In backup mode every page that changes is written to the WAL as a whole, so that recovery mends what
was copied while it was being written. `backup_label` says where recovery must begin: without it a
copy starts just as well, and is silently wrong.
"""

from __future__ import annotations

import os
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
_RUNTIME = ("postmaster.pid", "postmaster.opts")


def copy(node: EngineNode, copier: Copier) -> None:
    """Make a copy of the data directory; writers are not held."""
    with _session(node) as connection:
        _keep_wal(connection)
        start = _start(connection, node)

        def complete(data: Path) -> None:
            stop, label, tablespaces = _stop(connection, node)
            if tablespaces:
                raise HostError("the server has tablespaces, which lie outside of its volume")
            _complete(connection, node.paths.data, data, start, stop)
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


def _start(connection: Connection[tuple[object, ...]], node: EngineNode) -> str:
    """Begin backup mode with a checkpoint; return the segment of WAL that recovery begins in."""
    renamed = session.major(node.spec) >= _RENAMED_FROM
    start = "pg_backup_start(%s, true)" if renamed else "pg_start_backup(%s, true, false)"
    query = sql.SQL(f"SELECT pg_walfile_name({start})")
    return _row(connection, query, _LABEL)[0]


def _stop(connection: Connection[tuple[object, ...]], node: EngineNode) -> tuple[str, str, str]:
    """End backup mode; return the last segment of WAL that recovery needs, and what is to be in
    `backup_label` and `tablespace_map`."""
    renamed = session.major(node.spec) >= _RENAMED_FROM
    stop = "pg_backup_stop(false)" if renamed else "pg_stop_backup(false, false)"
    query = sql.SQL(f"SELECT pg_walfile_name(lsn), labelfile, spcmapfile FROM {stop}")  # noqa: S608
    segment, label, tablespaces = _row(connection, query)
    return segment, label, tablespaces


def _row(
    connection: Connection[tuple[object, ...]], query: sql.SQL, *arguments: object
) -> tuple[str, ...]:
    row = connection.execute(query, arguments or None).fetchone()
    assert row is not None  # noqa: S101
    return tuple(str(value or "") for value in row)


def _complete(
    connection: Connection[tuple[object, ...]], source: Path, data: Path, start: str, stop: str
) -> None:
    """Put into a copy what recovery needs: the WAL of the time of copying, and a whole `pg_control`.

    With it goes the history of the server's timelines, without which no standby could follow the copy.
    """
    for name in _RUNTIME:
        (data / name).unlink(missing_ok=True)
    target = data / "pg_wal"
    for path in target.iterdir():  # what was copied in the middle of being written
        if not path.is_dir():
            path.unlink()
    size = int(_row(connection, sql.SQL(_SEGMENT_SIZE))[0])
    wanted = wal.segments(start, stop, size)
    histories = {path.name for path in (source / "pg_wal").glob("*.history")}
    try:
        copying.copy_files(source / "pg_wal", wanted | histories, target)
    except FileNotFoundError:
        raise _too_much() from None
    # A segment that was taken for other content meanwhile has another name by now.
    if wanted - {entry.name for entry in os.scandir(source / "pg_wal")}:
        raise _too_much()
    _copy_control(source / "global", data / "global")


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
