"""Recovery to a point in time: base backups, the stream of WAL, and replaying both.

The stream is what `pg_receivewal` receives by a slot: files of WAL as the server names them, the last
one with the suffix `.partial`. A base is a compressed `pg_basebackup` without WAL, and its manifest.
Replaying is the work of a server for a single user: no other process, no session, no code of tenants'.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import inert, replication, session, slots, wal
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.postgresql.basebackup import Manifest, extract
from openrdb.engines.recovery import Command, Mark, Replay, Span, StreamState
from openrdb.errors import HostError
from openrdb.system import accounts, files

NAME = "_rdb_recovery"
"""Of the slot and of the receiver's sessions: `synchronous_standby_names` must never name it."""
_LABEL = "openrdb recovery"
_COMPRESSION = {14: ["--gzip", "--compress=1"]}
_COMPRESSION_FROM_15 = ["--compress=client-zstd:1"]
_WRITTEN = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
# The message is in the WAL at once, its transaction's commit after it: that has a later time.
_MARK = "SELECT clock_timestamp(), pg_logical_emit_message(true, %s, '')"
_POSITION = "SELECT pg_current_wal_insert_lsn()::text"
_RECEIVED = "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication WHERE application_name = %s"
_GONE = ("has already been removed", f'replication slot "{NAME}" does not exist')
_SCRIPT = 'IFS= read -r PGPASSWORD && export PGPASSWORD && exec "$@"'
_SIGNAL = "recovery.signal"
_LEFT_OVER = ("backup_label.old", "tablespace_map.old", "postmaster.opts", "postmaster.pid")
_MIB = 2**20
_BUFFERS_SHARE = 8
_FATAL = re.compile(r"(?:FATAL|PANIC): +(.+)")


class PostgreSQLRecovery:
    """See `Recovery`."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    @session.answering()
    def identity(self) -> str:
        return self._value("SELECT system_identifier::text FROM pg_control_system()")

    @session.answering()
    def stream_state(self, stream: Path) -> StreamState:
        del stream  # the slot knows
        is_lost = slots.is_lost(self._node, NAME)
        if is_lost is None:
            return "none"
        return "lost" if is_lost else "kept"

    @session.answering()
    def begin_stream(self) -> None:
        self.end_stream()
        slots.create_physical(self._node, NAME)

    @session.answering()
    def end_stream(self) -> None:
        slots.drop(self._node, NAME)

    @session.answering()
    def leave_stream(self) -> None:
        with session.use(self._node, "postgres") as connection:
            (is_follower,) = connection.execute("SELECT pg_is_in_recovery()").fetchone() or (False,)
        if is_follower:
            slots.drop(self._node, NAME)

    def receiver(self, stream: Path) -> Command:
        program = str(self._node.bundle.program("pg_receivewal"))
        options = ["--synchronous", "--no-loop", "--no-password", f"--slot={NAME}"]
        line = make_conninfo("", **self._parameters())
        secret = {"PGPASSWORD": self._node.spec.replication_secret}
        return Command(
            [program, f"--directory={stream}", *options, f"--dbname={line}"],
            self._environment() | secret,
        )

    def has_lost(self, complaint: str) -> bool:
        return any(text in complaint for text in _GONE)

    @session.answering()
    def is_received(self, mark: Mark, stream: Path) -> bool:
        del stream
        with session.use(self._node, "postgres") as connection:
            rows = connection.execute(_RECEIVED, [mark.position, NAME]).fetchall()
        return (True,) in rows

    @session.answering()
    def mark(self, since: str | None) -> Mark | None:
        with session.use(self._node, "postgres") as connection:
            before = _first(connection, _WRITTEN)
            connection.commit()
            if before == since:
                return None
            row = connection.execute(_MARK, [NAME]).fetchone()
            connection.commit()
            position, written = _first(connection, _POSITION), _first(connection, _WRITTEN)
        assert row is not None  # noqa: S101
        assert isinstance(row[0], datetime)  # noqa: S101
        at = row[0].astimezone(UTC)
        # Whole milliseconds, as people write them.
        return Mark(at.replace(microsecond=at.microsecond // 1000 * 1000), position, written)

    def base(self, directory: Path) -> Command:
        program = str(self._node.bundle.program("pg_basebackup"))
        compression = _COMPRESSION.get(session.major(self._node.spec), _COMPRESSION_FROM_15)
        options = [
            *("--format=tar", "--wal-method=none", "--checkpoint=fast", "--no-password"),
            *(f"--label={_LABEL}", *compression),
        ]
        line = make_conninfo("", **self._parameters())
        whole = [program, f"--pgdata={directory}", *options, f"--dbname={line}"]
        script = ["/bin/sh", "-c", _SCRIPT, "sh"]
        secret = self._node.spec.replication_secret
        return Command([*script, *whole], self._environment(), secret)

    def _parameters(self) -> dict[str, str]:
        spec, paths = self._node.spec, self._node.paths
        return replication.parameters(spec.address, spec.port, NAME, paths.authority)

    def _environment(self) -> dict[str, str]:
        return {**self._node.bundle.environment, "PGPASSFILE": os.devnull, "LC_ALL": "C.UTF-8"}

    def _value(self, query: str) -> str:
        with session.use(self._node, "postgres") as connection:
            return _first(connection, query)


def _first(connection: Connection[Row], query: str) -> str:
    row = connection.execute(sql.SQL(query)).fetchone()
    assert row is not None  # noqa: S101
    return str(row[0])


class PostgreSQLStream:
    """See `Stream`."""

    def serves(self, version: str) -> bool:
        return bool(version)

    def span(self, base: Path) -> Span:
        return Manifest.read(base).span()

    def covers(self, stream: Path, span: Span) -> bool:
        there = _whole(stream)
        return wal.segments(span.first, span.last, span.file_size) <= there

    def superfluous(self, stream: Path, spans: Collection[Span]) -> list[Path]:
        if not spans:
            return []
        # Timelines are left out of account: a later one begins in a later segment.
        oldest = min(span.first[8:] for span in spans)
        return [stream / name for name in _whole(stream) if name[8:] < oldest]

    def replay(self, work: Replay) -> None:
        # The server would take the gap for the end, and the data would lack what came after it.
        if wal.has_gap(_whole(work.stream), work.span.first, work.span.file_size):
            raise HostError("a part of what was written since the base backup is missing")
        extract(work.base, work.data)
        inert.end(work.data)  # of a node of a pair; no server for a single user is a standby
        (work.data / _SIGNAL).touch(0o600)
        # From here on it is the account's, in a directory that no other one can enter.
        accounts.ensure_passage(work.data.parent, work.account)
        files.give_tree(work.data, work.account)
        Manifest.verify(work.bundle, work.base, work.data, work.account)
        _recover(work)
        for name in _LEFT_OVER:
            (work.data / name).unlink(missing_ok=True)
        if (work.data / _SIGNAL).exists():
            raise HostError("the server did not recover: it found no need to")
        files.sync_file_system(work.data)


def _whole(stream: Path) -> set[str]:
    return {path.name for path in stream.iterdir() if wal.is_segment(path.name)}


def _recover(work: Replay) -> None:
    """Let a server for a single user replay the WAL; it ends itself, as it is told nothing."""
    buffers = max(work.memory // _BUFFERS_SHARE // _MIB, 32)
    settings = {
        "config_file": "/dev/null",
        "restore_command": restore_command(work.stream),
        "recovery_target_timeline": "latest",
        "shared_buffers": f"{buffers}MB",
        "hot_standby": "off",
        "fsync": "off",  # all is written to disk at once in the end
        "logging_collector": "off",
        "lc_messages": "C",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }
    if work.until is not None:
        settings["recovery_target_time"] = f"{work.until.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"
        settings["recovery_target_action"] = "promote"
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    program = str(work.bundle.program("postgres"))
    command = [program, "--single", "-D", str(work.data), *options, "template1"]
    # Named, as the server looks for its account's name.
    done = accounts.run(
        work.account,
        command,
        work.bundle.environment,
        timeout=None,
        named=True,
        lock=work.lock,
    )
    if done.returncode != 0:
        said = (
            _FATAL.findall(done.stderr) or done.stderr.strip().splitlines() or ["no reason given"]
        )
        raise HostError(f"the data cannot be recovered: {said[-1]}")


def restore_command(stream: Path) -> str:
    """Return the shell command by which a server gets a file of WAL, the last one as it is so far.

    That there is none ends the recovery, as at the end of the WAL. Whatever else is wrong must not be
    taken for that: from 126 on an exit status stops the server.
    """
    whole, partial = (_quoted(f"{stream}/") + name for name in ("%f", "%f.partial"))
    copies = [f'cp {name} "%p"' for name in (whole, partial)]
    return (
        f"if [ -f {whole} ]; then {copies[0]} || exit 255; "
        # It may get its own name at this moment.
        f"elif [ -f {partial} ]; then {copies[1]} || {copies[0]} || exit 255; else exit 1; fi"
    )


def _quoted(text: str) -> str:
    """Return a text as a word of the shell's, in which the server replaces nothing."""
    return shlex.quote(text).replace("%", "%%")
