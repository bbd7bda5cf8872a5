"""What a follower receives by, and applies.

The account's password is given whenever receiving begins, and kept in memory only: the server would
write it into a table, and with it into every copy of the data.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from pymysql import MySQLError
from pymysql.constants import ER
from pymysql.cursors import DictCursor

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import config, definitions, gtids, replication, session, writes
from openrdb.engines.mysql.admin import user_sessions
from openrdb.engines.mysql.reserved import REPLICATION
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import quoted_literal, rows, run
from openrdb.engines.replication import Following, Upstream
from openrdb.errors import HostError
from openrdb.system import files

Status = Mapping[str, Any]
"""What SHOW REPLICA STATUS answers; empty where the server follows nobody."""

_UPSTREAM_TIMEOUT = 2
_STOP_TIMEOUT = 0.2
"""Seconds that threads may take to end by themselves: in the middle of a transaction whose rest never
comes they wait for a minute."""
_LONGEST_STOP = 90.0
_APPLIER = "system user"
_ON, _CONNECTING = "Yes", "Connecting"
_READING_FAILED: Final = {1236, 13114}
"""ER_SOURCE_FATAL_ERROR_READING_BINLOG, of 8.0 and later. Of a source that is reached."""
_REPLACED = "same server_uuid"
_PASSING: Final = {
    *(ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.QUERY_INTERRUPTED, ER.NEW_ABORTING_CONNECTION),
    *(ER.DISK_FULL, ER.RECORD_FILE_FULL, ER.ERROR_ON_WRITE, ER.OUTOFMEMORY, ER.OUT_OF_RESOURCES),
    3675,  # ER_CREATE_TABLESPACE_..., as the disk is full
}
"""Errors of the applier that say nothing of the data."""
_UNREADABLE: Final = {1201, 1872, 13117, 13124}
"""ER_REPLICA_CONNECTION_METADATA..., ER_REPLICA_RLI_INIT_REPOSITORY: of what was received there is less
than the server knows of."""
_AHEAD = "it waits until its upstream has what it has already"
_MISSED = "its upstream has removed transactions that it has not received: "
_DIVERGED = "it has transactions that its upstream has not: "


def status(connection: Session) -> Status:
    """Return how a server stands with its upstream, in its own words."""
    with connection.cursor(DictCursor) as cursor:
        cursor.execute("SHOW REPLICA STATUS")
        return cursor.fetchone() or {}


def received(connection: Session) -> str:
    """Return what a follower has, whether it has applied it already."""
    return gtids.union(status(connection).get("Retrieved_Gtid_Set", ""), gtids.executed(connection))


def follow(node: EngineNode, connection: Session) -> None:
    """Let a server that takes no writes receive from its upstream; see `Replication.follow`.

    One that cannot is left as it is: `following` says why.
    """
    upstream, now = _upstream(node), status(connection)
    is_set = _is_from(now, upstream)
    if is_set and _is_running(now):
        return
    if rows(connection, "SELECT @@super_read_only") != [(1,)]:
        raise HostError("the server takes writes: it cannot follow another one")
    if _apart(node, connection):
        return
    _set_globals(node, connection)
    if is_set:
        try:
            _start(connection, upstream)
            return
        except MySQLError as error:
            if error.args[0] not in _UNREADABLE:
                raise
    # Also in a copy, which is without what its source has received.
    if now:
        _stop(node)
        run(connection, "RESET REPLICA ALL")
    _set_source(node, connection, upstream)
    _start(connection, upstream)


def _set_globals(node: EngineNode, connection: Session) -> None:
    """Set what a server that was a primary lacks, and what only a follower may do without: syncs."""
    acknowledges = "ON" if config.acknowledges(node.spec) else "OFF"
    for statement in (
        # Users were kept out when it handed over; they do not come here now.
        f"SET GLOBAL offline_mode = {'ON' if node.writes == 'closed' else 'OFF'}",
        "SET GLOBAL replica_net_timeout = 5",
        f"SET GLOBAL rpl_semi_sync_replica_enabled = {acknowledges}",
        "SET GLOBAL sync_binlog = 0",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
    ):
        run(connection, statement)


def sync(node: EngineNode, connection: Session) -> None:
    """Sync each commit from now on, and all that was applied before, which was acknowledged.

    Raises:
        HostError: the disk does not take it.
    """
    run(connection, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    run(connection, "SET GLOBAL sync_binlog = 1")
    run(connection, "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
    # Not by FLUSH BINARY LOGS: it begins another file, and ends a server that has no room for one.
    ((newest, *_),) = rows(connection, "SHOW BINARY LOGS")[-1:]
    try:
        files.sync_file(node.paths.data / str(newest))
    except OSError as error:
        raise HostError(f"the binary log cannot be synced: {error.strerror}") from error


def _set_source(node: EngineNode, connection: Session, upstream: Upstream) -> None:
    source = {
        "SOURCE_HOST": quoted_literal(upstream.address),
        "SOURCE_PORT": upstream.port,
        "SOURCE_AUTO_POSITION": 1,
        "SOURCE_SSL": 1,
        # By its authority alone: certificates name endpoints, not nodes.
        "SOURCE_SSL_CA": quoted_literal(str(node.paths.authority)),
        "SOURCE_SSL_VERIFY_SERVER_CERT": 0,
        "SOURCE_CONNECT_RETRY": 1,
        "SOURCE_RETRY_COUNT": 86400,
        "SOURCE_HEARTBEAT_PERIOD": 1,
    }
    options = ", ".join(f"{name} = {value}" for name, value in source.items())
    run(connection, f"CHANGE REPLICATION SOURCE TO {options}")


def _start(connection: Session, upstream: Upstream) -> None:
    user = quoted_literal(REPLICATION[0])
    password = quoted_literal(replication.password(upstream.secret))
    run(connection, f"START REPLICA USER = {user} PASSWORD = {password}")


def following(node: EngineNode, connection: Session, known: str | None) -> Following:
    """Return how a server stands with its upstream; see `Replication.following`.

    It connects again by itself, also to a server whose data was made again meanwhile and lacks what it
    has; nothing tells of that but the other name.
    """
    now = status(connection)
    is_set = _is_from(now, _upstream(node))
    held_at = None
    if is_set and user_sessions.is_replica_held(connection):
        held_at = str(now["Executed_Gtid_Set"])
    # Empty until it has asked for it, a moment after it has connected.
    streams, source = is_set and is_streaming(now), str(now.get("Source_UUID", ""))
    is_known = streams and (known is None or (known == source and source != ""))
    lost, reason, is_unsaid = _why_lost(now) if is_set else None, "", False
    try:
        is_asked = lost is None and not is_known
        apart = _apart(node, connection, source if streams else None) if is_asked else None
        if apart is not None:
            streams, lost, reason = False, apart.lost, _AHEAD
    except HostError as error:
        streams, is_unsaid, reason = False, streams, error.message
    if streams:
        lag = now["Seconds_Behind_Source"]
        lag = None if lag is None else float(lag)
        return Following(streams=True, lag=lag, held_at=held_at, source=source)
    if is_set:
        reason = now["Last_IO_Error"] or now["Last_SQL_Error"] or reason
    reason = reason or "it does not receive"
    return Following(streams=False, lost=lost, reason=reason, held_at=held_at, is_passing=is_unsaid)


def _why_lost(now: Status) -> str | None:
    why = str(now["Last_IO_Error"])
    has_ended = now["Replica_IO_Running"] not in {_ON, _CONNECTING}
    if has_ended and int(now["Last_IO_Errno"]) in _READING_FAILED and _REPLACED not in why:
        return why
    return failure_to_apply(now)


def failure_to_apply(now: Status) -> str | None:
    """Return why a follower can never apply what it has received; None: it goes on, or may."""
    if is_applying(now) or int(now["Last_SQL_Errno"]) in {0, *_PASSING}:
        return None
    return str(now["Last_SQL_Error"])


def is_streaming(now: Status) -> bool:
    """Return whether a server receives and applies."""
    return now.get("Replica_IO_Running") == _ON and is_applying(now)


def is_applying(now: Status) -> bool:
    return bool(now["Replica_SQL_Running"] == _ON)


@dataclass(frozen=True)
class _Apart:
    """A server cannot follow its upstream as both are now."""

    lost: str | None
    """Why that will be so for good; None: the upstream may just not have got yet what it lacks."""


def _apart(node: EngineNode, connection: Session, source: str | None = None) -> _Apart | None:
    """Return whether a server has committed what its upstream has not, or lacks what that has removed.

    The server itself tells the one never, and the other only after it seemed to receive.

    Args:
        source: the UUID of the server that it receives from; None: it does not.

    Raises:
        HostError: the upstream does not answer, or is another one than that by now.
    """
    upstream = _upstream(node)
    own = _has(connection, upstream)
    try:
        with closing(_session_of(node, upstream)) as other:
            # In this order: one that is open has applied all that it will ever get of others.
            ((uuid, is_open),) = rows(other, "SELECT @@server_uuid, NOT @@super_read_only")
            its = status(other)
            # What it has received and not applied, it will have.
            there = gtids.union(its.get("Retrieved_Gtid_Set", ""), gtids.written(other))
            ahead = gtids.difference(other, own, there)
            if node.spec.role == "replica":
                # A user's FLUSH is logged by a server that only reads, too.
                ((itself,),) = rows(connection, "SELECT @@server_uuid")
                ahead = gtids.without(ahead, str(itself))
            ((purged,),) = rows(other, "SELECT @@global.gtid_purged")
            missed = gtids.difference(other, str(purged), _has(connection, upstream))
    except (MySQLError, OSError) as error:
        raise HostError(f"the upstream does not answer: {error}") from error
    if source not in {None, uuid}:
        raise HostError("its upstream was replaced just now")
    if missed:
        return _Apart(f"{_MISSED}{missed}")
    its_source = its.get("Source_UUID") or None
    if ahead and (is_open or (its_source is not None and gtids.sources(ahead) != {its_source})):
        return _Apart(f"{_DIVERGED}{ahead}")
    return _Apart(None) if ahead else None


def _has(connection: Session, upstream: Upstream) -> str:
    """Return what a server has committed, or will of what its upstream has sent."""
    from_it = _is_from(status(connection), upstream)
    return received(connection) if from_it else gtids.executed(connection)


def _session_of(node: EngineNode, upstream: Upstream) -> Session:
    there = replace(node.spec, node_id=upstream.node_id, port=upstream.port)
    return session.connect(
        replace(node, spec=there, paths=upstream.paths), patience=_UPSTREAM_TIMEOUT
    )


def leave(node: EngineNode, connection: Session) -> None:
    """Let a server that takes writes follow nobody any more, and run its events.

    If it did not follow anybody, it may have events that are to stay as they are.
    """
    if status(connection):
        _stop(node)
        definitions.enable_events(connection)
        run(connection, "RESET REPLICA ALL")
    writes.run_events(connection)


def tell_followers(connection: Session) -> None:
    """Let followers know what replication does not tell them; not before the server has left its own
    upstream, as its events are not what they should be until then."""
    if not status(connection):
        definitions.note_idle(connection)


def _stop(node: EngineNode) -> None:
    """Let a server receive and apply nothing any more."""
    ending = threading.Timer(_STOP_TIMEOUT, _end_threads, [node])
    ending.start()
    try:
        with session.connect(node, patience=_LONGEST_STOP) as connection:
            run(connection, "STOP REPLICA")
    finally:
        ending.cancel()


def _end_threads(node: EngineNode) -> None:
    """End what applies: after STOP REPLICA it only waits for the rest of a transaction, which was not
    confirmed, and holds the locks of its beginning."""
    with suppress(MySQLError), session.connect(node) as connection:
        for number, user, *_ in rows(connection, "SHOW PROCESSLIST"):
            if user == _APPLIER:
                user_sessions.kill(connection, int(str(number)))


def _upstream(node: EngineNode) -> Upstream:
    if node.upstream is None:
        raise HostError("the node follows nobody")
    return node.upstream


def _is_from(now: Status, upstream: Upstream) -> bool:
    place = (now.get("Source_Host"), now.get("Source_Port"))
    return place == (upstream.address, upstream.port)


def _is_running(now: Status) -> bool:
    return now["Replica_IO_Running"] in {_ON, _CONNECTING} and is_applying(now)
