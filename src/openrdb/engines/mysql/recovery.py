"""Recovery to a point in time: clones of the server, the stream of its binary log, and replaying both.

The stream is what `mysqlbinlog` receives: the server's files as they are. A base is what the clone
plugin makes. A server of its own replays the stream, as a replica does what it has received: files of
the binary log are given to it as its relay log. What it applies are rows, which start no triggers, and
definitions, which run nothing; no client splits them into statements.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pymysql
from pymysql.cursors import DictCursor

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import (
    binlog,
    config,
    copying,
    failures,
    identity,
    releases,
    replication,
    session,
)
from openrdb.engines.mysql.reserved import REPLICATION, SUPERUSER
from openrdb.engines.mysql.session import Session, connect_once
from openrdb.engines.mysql.sql import quoted_literal, rows, run
from openrdb.engines.recovery import Command, Mark, Replay, Span, StreamState
from openrdb.errors import HostError
from openrdb.system import accounts, files, programs
from openrdb.system import copying as file_copying

_STATUS = "SHOW BINARY LOG STATUS"
# The last file is received again from its beginning; what there was of it stays until that is done.
_RECEIVE = f"""
cd "$1" && first=$2 && shift 2 || exit 1
last=$(ls | sed -n 's/^\\(binlog\\.[0-9]*\\)$/\\1/p; s/^\\(binlog\\.[0-9]*\\){binlog.KEPT}$/\\1/p' \\
    | sort -t . -k 2 -n | tail -n 1)
if [ -n "$last" ] && [ -f "$last" ]; then
    kept=$(stat -c %s "$last{binlog.KEPT}" 2>/dev/null || echo -1)
    [ "$(stat -c %s "$last")" -le "$kept" ] || mv -f "$last" "$last{binlog.KEPT}" || exit 1
fi
exec "$@" "${{last:-$first}}"
"""
_BASE = """
IFS= read -r MYSQL_PWD && export MYSQL_PWD && cd "$1" || exit 1
status=$2 clone=$3 others=$4; shift 4
"$@" --execute="$status" >status && "$@" --execute="$clone" || exit 1
"$@" --execute="$others" >others && cd clone || exit 1
find . -type f -exec sha256sum {} + >../partial && mv ../partial ../sums && sync -f .
"""
_CHECK = 'cd "$1" && exec sha256sum --check --quiet --strict "$2"'
_CLONE, _FIRST, _OTHERS, _SUMS = "clone", "status", "others", "sums"
_GONE = ("Could not find first log file name", "purged required", "log truncated")
_RELAY = "relay"
_RELAY_INDEX = "relay.index"
_IDLE = "Replica has read all relay log"
_LONGEST_IDLE = 60.0
"""Seconds after which an applier that has nothing left to do has not done all."""
_CONNECT_TIMEOUT, _PAUSE = 300.0, 0.1
_ATTEMPTS = 50
_MIB = 2**20


class MySQLRecovery:
    """See `Recovery`."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    @session.answering()
    def identity(self) -> str:
        with session.use(self._node) as connection:
            ((found,),) = rows(connection, "SELECT @@server_uuid")
        return str(found)

    @session.answering()
    def stream_state(self, stream: Path) -> StreamState:
        """Return whether the server still has the last file that was received: it keeps them for a
        day, whoever receives them."""
        last = max(binlog.received(stream), default=None) if stream.is_dir() else None
        with session.use(self._node) as connection:
            there = {binlog.number_of(str(row[0])) for row in rows(connection, "SHOW BINARY LOGS")}
        return "kept" if last is None or last in there else "lost"

    def begin_stream(self) -> None:
        """Do nothing: the server keeps its binary log in any case."""

    def end_stream(self) -> None:
        """Do nothing, likewise."""

    def leave_stream(self) -> None:
        """Do nothing, likewise."""

    @session.answering()
    def receiver(self, stream: Path) -> Command:
        spec = self._node.spec
        program = [
            *self._node.bundle.command("mysqlbinlog"),
            *("--no-defaults", "--read-from-remote-server", "--raw", "--stop-never"),
            # Of its own: the server ends the session of another replica with the same number.
            f"--connection-server-id={identity.server_id(spec.instance_id)}",
            f"--result-file={stream}/",
            *(f"--host={spec.address}", f"--port={spec.port}", f"--user={REPLICATION[0]}"),
            *("--ssl-mode=VERIFY_CA", f"--ssl-ca={self._node.paths.authority}"),
        ]
        with session.use(self._node) as connection:
            first, _ = _position(connection)
        return Command(
            ["/bin/sh", "-c", _RECEIVE, "sh", str(stream), first, *program],
            self._environment() | {"MYSQL_PWD": replication.password(spec.replication_secret)},
        )

    def has_lost(self, complaint: str) -> bool:
        return any(text in complaint for text in _GONE)

    def is_received(self, mark: Mark, stream: Path) -> bool:
        name, _, position = mark.position.partition(":")
        if any((binlog.number_of(path.name) or 0) > _number(name) for path in stream.iterdir()):
            return True
        with suppress(FileNotFoundError):
            return (stream / name).lstat().st_size >= int(position)
        return False

    @session.answering()
    def mark(self, since: str | None) -> Mark | None:
        with session.use(self._node) as connection:
            if since is not None and _written(connection) == since:
                return None
            ((now,),) = rows(connection, "SELECT UTC_TIMESTAMP(6)")
            # It does next to nothing, and is in the binary log.
            run(connection, "FLUSH OPTIMIZER_COSTS")
            name, position = _position(connection)
            written = _written(connection)
        assert isinstance(now, datetime)  # noqa: S101
        at = now.replace(microsecond=now.microsecond // 1000 * 1000, tzinfo=UTC)
        return Mark(at, f"{name}:{position}", written)

    @session.answering()
    def base(self, directory: Path) -> Command:
        with session.connect(self._node) as connection:
            copying.prepare(connection)
        client = [
            *self._node.bundle.command("mysql"),
            *("--no-defaults", "--batch", "--skip-column-names"),
            *(f"--socket={session.socket(self._node.paths)}", f"--user={SUPERUSER[0]}"),
        ]
        place = quoted_literal(str(directory / _CLONE))
        clone = f"CLONE LOCAL DATA DIRECTORY = {place}"
        others = f"{copying.OTHERS} LIMIT 1"
        if not self._node.is_inert:
            clone += f"; UNINSTALL PLUGIN {copying.PLUGIN}"
        return Command(
            ["/bin/sh", "-c", _BASE, "sh", str(directory), _STATUS, clone, others, *client],
            self._environment(),
            self._node.secret,
        )

    def _environment(self) -> dict[str, str]:
        own = {"PATH": programs.SYSTEM_PATH, "LC_ALL": "C.UTF-8"}
        return own | self._node.bundle.environment


def _position(connection: Session) -> tuple[str, int]:
    """Return the file that the server writes to, and how far it has come."""
    row = rows(connection, _STATUS)[0]
    return str(row[0]), int(str(row[1]))


def _written(connection: Session) -> str:
    ((found,),) = rows(connection, "SELECT @@global.gtid_executed")
    return str(found)


def _number(name: str) -> int:
    number = binlog.number_of(name)
    if number is None:
        raise HostError(f"{name} is no file of the binary log")
    return number


class MySQLStream:
    """See `Stream`."""

    def serves(self, version: str) -> bool:
        # Those before have no such statements, and some no clone plugin.
        return releases.is_at_least(version, 8, 4)

    def span(self, base: Path) -> Span:
        if not (base / _CLONE).is_dir() or not (base / _SUMS).exists():
            raise HostError("the server has made no clone")
        if others := files.read_tail(base / _OTHERS).strip():
            raise HostError(f"it has tables that cannot be cloned: {others.splitlines()[0]}")
        first = files.read_tail(base / _FIRST).split("\t")[0]
        _number(first)
        return Span(first, first, 0, files.tree_size(base / _CLONE))

    def covers(self, stream: Path, span: Span) -> bool:
        return _number(span.first) in binlog.received(stream)

    def superfluous(self, stream: Path, spans: Collection[Span]) -> list[Path]:
        if not spans:
            return []
        oldest, there = min(_number(span.first) for span in spans), binlog.received(stream)
        found = []
        for path in stream.iterdir():
            number = binlog.number_of(path.name.removesuffix(binlog.KEPT))
            if number is None:
                continue
            # Of the last one the longer one may be another at the next moment.
            is_second = path != there.get(number) and number < max(there)
            if number < oldest or is_second:
                found.append(path)
        return found

    def replay(self, work: Replay) -> None:
        there, first = binlog.received(work.stream), _number(work.span.first)
        wanted = range(first, max(there, default=0) + 1)
        if not wanted or not there.keys() >= set(wanted):
            raise HostError("a part of what was written since the base backup is missing")
        file_copying.copy_tree(work.base / _CLONE, work.data, reserve=False)
        # Copied, as the receiver may replace its last file at any moment.
        copies = [work.data / f"{_RELAY}-{number}" for number in wanted]
        for number, copy in zip(wanted, copies, strict=True):
            _fetch(work.stream, number, copy)
        ends, gtids = binlog.until(copies, work.until)
        _make_relay_log(work.data, zip(copies, ends, strict=True))
        config.temporary_of(work.data).mkdir()
        accounts.ensure_passage(work.data.parent, work.account)
        files.give_tree(work.data, work.account)
        _verify(work)
        _Applier(work).run(gtids)
        for path in (config.temporary_of(work.data), *work.data.glob(f"{_RELAY}*")):
            files.remove_entry(path)
        files.sync_file_system(work.data)


def _make_relay_log(data: Path, parts: Iterable[tuple[Path, int]]) -> None:
    """Let a server find the beginnings of some files as what it has received.

    It first looks at the last file, and cuts it where it sees no whole transaction, or for the second
    time the same number of one (XID). So each file stays apart, as the numbers begin again whenever the
    source starts; and the last one is ours, as the server does not see transactions without a number.
    """
    made: list[Path] = []
    for path, end in parts:
        if end:
            os.truncate(path, end)
            made.append(path.rename(data / f"{_RELAY}.{len(made) + 1:06}"))
        else:
            path.unlink()
    if made:
        seal = data / f"{_RELAY}.{len(made) + 1:06}"
        seal.write_bytes(binlog.seal(made[0]))
        (data / _RELAY_INDEX).write_text("".join(f"./{one.name}\n" for one in (*made, seal)))


def _verify(work: Replay) -> None:
    """Raise HostError unless all of the base is there, as it was made."""
    command = ["/bin/sh", "-c", _CHECK, "sh", str(work.data), str(work.base / _SUMS)]
    done = accounts.run(work.account, command, {}, timeout=None)
    if done.returncode != 0:
        said = (done.stdout.splitlines() or done.stderr.splitlines() or ["it cannot be read"])[0]
        raise HostError(f"the base backup is damaged: {said}")


def _fetch(stream: Path, number: int, target: Path) -> None:
    """Copy a file of a stream as it is at this moment."""
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError, KeyError):  # it has just got its other name
            path = binlog.received(stream)[number]
            with os.fdopen(os.open(path, files.OTHERS), "rb") as source, target.open("wb") as copy:
                size = os.fstat(source.fileno()).st_size
                shutil.copyfileobj(source, copy, _MIB)
            if target.stat().st_size >= size:
                return
        time.sleep(_PAUSE)
    raise HostError("what was written last is just being received again")


class _Applier:
    """A server for nobody but us, which applies what its relay log has."""

    def __init__(self, work: Replay) -> None:
        self._work = work
        self._socket = work.sockets / "mysql.sock"
        self._log = work.sockets / "mysql-error.log"
        self._exit_code: int | None = None

    def run(self, gtids: str) -> None:
        """Apply the transactions of a set, and end the server cleanly."""
        # The server ends with the thread that has started it.
        serving = threading.Thread(target=self._serve, daemon=True)
        serving.start()
        try:
            with closing(self._connect(serving)) as connection:
                if gtids:
                    self._apply(connection, gtids, serving)
                with suppress(pymysql.err.MySQLError):  # it may be gone before it has answered
                    run(connection, "SHUTDOWN")
        except pymysql.err.MySQLError as error:
            raise HostError(f"the data cannot be recovered: {error.args[-1]}") from error
        serving.join()
        if self._exit_code != 0:
            raise HostError(f"the data cannot be recovered: {self._why()}")

    def _serve(self) -> None:
        work = self._work
        buffers = max(work.memory // 8 // _MIB, 64)
        options = {
            **config.directories(work.bundle),
            **work.init_settings,
            "datadir": str(work.data),
            "tmpdir": str(config.temporary_of(work.data)),
            "socket": str(self._socket),
            "pid-file": str(work.sockets / "mysqld.pid"),
            "log-error": str(self._log),
            "skip-networking": "ON",
            "mysqlx": "OFF",
            "event-scheduler": "OFF",
            "disable-log-bin": "ON",
            "gtid-mode": "ON",
            "enforce-gtid-consistency": "ON",
            "relay-log": _RELAY,
            "relay-log-index": _RELAY_INDEX,
            "relay-log-recovery": "OFF",
            "relay-log-purge": "OFF",
            "skip-replica-start": "ON",
            "server-id": "1",
            "replicate-same-server-id": "ON",
            "persisted-globals-load": "OFF",
            "partial-revokes": "ON",
            "secure-file-priv": "NULL",
            "performance-schema": "OFF",
            "innodb-buffer-pool-size": f"{buffers}M",
            "innodb-use-native-aio": "OFF",
            # All is written to disk at once in the end.
            "innodb-flush-log-at-trx-commit": "0",
            "auto-generate-certs": "OFF",
            "caching-sha2-password-auto-generate-rsa-keys": "OFF",
            "sha256-password-auto-generate-rsa-keys": "OFF",
        }
        given = [f"--{name}={value}" for name, value in options.items()]
        command = [*work.bundle.command("mysqld"), "--no-defaults", *given]
        done = accounts.run(
            work.account, command, work.bundle.environment, timeout=None, lock=work.lock
        )
        self._exit_code = done.returncode

    def _connect(self, serving: threading.Thread) -> Session:
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        while True:
            try:
                return connect_once(
                    unix_socket=str(self._socket),
                    ssl_disabled=True,
                    user=SUPERUSER[0],
                    password=self._work.secret,
                    autocommit=True,
                )
            except pymysql.err.OperationalError:
                if not serving.is_alive() or time.monotonic() > deadline:
                    raise HostError(f"the data cannot be recovered: {self._why()}") from None
            time.sleep(_PAUSE)

    def _apply(self, connection: Session, gtids: str, serving: threading.Thread) -> None:
        run(
            connection,
            f"CHANGE REPLICATION SOURCE TO RELAY_LOG_FILE = '{_RELAY}.000001', "
            "RELAY_LOG_POS = 4, SOURCE_HOST = 'nowhere'",
        )
        run(connection, "START REPLICA SQL_THREAD")
        query = "SELECT GTID_SUBSET(%s, @@global.gtid_executed)"
        idle_since = None
        while rows(connection, query, gtids) != [(1,)]:
            with connection.cursor(DictCursor) as cursor:
                cursor.execute("SHOW REPLICA STATUS")
                status = cursor.fetchone() or {}
            if why := status.get("Last_SQL_Error"):
                raise HostError(f"what was written cannot be replayed: {why}")
            if not serving.is_alive():
                raise HostError(f"the data cannot be recovered: {self._why()}")
            is_idle = str(status.get("Replica_SQL_Running_State", "")).startswith(_IDLE)
            idle_since = (idle_since or time.monotonic()) if is_idle else None
            if idle_since is not None and time.monotonic() - idle_since > _LONGEST_IDLE:
                raise HostError("not all that was written can be replayed")
            time.sleep(_PAUSE)
        run(connection, "STOP REPLICA")
        run(connection, "RESET REPLICA ALL")

    def _why(self) -> str:
        return failures.first_complaint(files.read_tail(self._log)) or "the server ended"
