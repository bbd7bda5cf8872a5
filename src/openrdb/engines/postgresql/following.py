"""How a follower stands with its upstream."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from openrdb.engines import failures
from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import session, wal
from openrdb.engines.postgresql.control import Control
from openrdb.engines.postgresql.upstream import SILENCE
from openrdb.engines.replication import Following
from openrdb.system import files

_ANSWER = 5.0
_SEGMENT_SIZE = 16 * 2**20
_HANGS = 2 * SILENCE
"""Seconds without a message after which a receiver hangs: one that works has given its upstream up."""
# The receiver fetches the histories of all timelines of its upstream before it receives anything: one
# that is later than the timeline which it receives is the upstream's, and the data may be another's.
_HISTORIES = r"""
    SELECT max(('x' || left(name, 8))::bit(32)::int) FROM pg_ls_waldir()
    WHERE name ~ '^[0-9A-F]{8}\.history$'
"""
# Both times of the last message are the receiver's own until there is one: it also takes itself for
# streaming while the upstream looks whether it still has what is to be sent.
# The view shows the receiver's shared memory, which stays as it is while the receiver is stopped.
_STATE = f"""
    SELECT pg_is_in_recovery(), pg_is_wal_replay_paused(),
        coalesce(status IN ('streaming', 'stopping') AND quiet > {_HANGS}, false),
        status = 'streaming' AND sender_host = %s AND sender_port = %s
            AND last_msg_send_time <> last_msg_receipt_time,
        received_tli >= coalesce(({_HISTORIES}), 1),
        CASE WHEN status = 'streaming' AND pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()
            THEN CASE WHEN quiet > {SILENCE} THEN quiet ELSE 0 END
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())
        END::float
    FROM (SELECT) AS one LEFT JOIN (
        SELECT *, extract(epoch FROM clock_timestamp() - last_msg_receipt_time) AS quiet
        FROM pg_stat_wal_receiver
    ) AS receiver ON true
"""  # noqa: S608
_ALL = f"""
    SELECT pg_last_wal_replay_lsn() > %s::pg_lsn, coalesce(({_HISTORIES}), 1) <= %s,
        EXISTS (SELECT FROM pg_ls_waldir() WHERE name = %s),
        (SELECT system_identifier FROM pg_control_system())
"""  # noqa: S608
_OWN_LINE = r"^[\d-]+ [\d:.]+ \w+ \[\d+\] "
"""How lines begin that no session has written: those name a user before they say anything."""
_BEGUN = re.compile(
    _OWN_LINE + r"LOG: +(starting PostgreSQL|received SIGHUP|started streaming WAL)", re.MULTILINE
)
_LOST = re.compile(
    _OWN_LINE
    + r"(?:LOG|FATAL|PANIC): +(.*("
    + "|".join(
        (
            r"requested WAL segment [0-9A-F]{24} has already been removed",
            r"can no longer (get changes from|access) replication slot \"\w+\"",
            r"requested starting point [\dA-F/]+ on timeline \d+ is not in this server's history",
            r"new timeline \d+ forked off current database system timeline \d+ before",
            r"new timeline \d+ is not a child of database system timeline \d+",
            r"requested timeline \d+ is not a child of this server's history",
            r"requested timeline \d+ does not contain minimum recovery point",
            r"unexpected timeline ID \d+ in checkpoint record, before reaching",
            r"database system identifier differs between the primary and standby",
            r"could not locate (a valid|required) checkpoint record",
            r"WAL contains references to invalid pages",
        )
    )
    + r").*)",
    re.MULTILINE,
)
_COMPLAINT = re.compile(_OWN_LINE + r"(?:FATAL|PANIC|WARNING): +(.+)", re.MULTILINE)
_ENDED = "terminating connection due to administrator command"
_TOLD_TO_END = "terminating walreceiver process due to administrator command"
"""What a follower's receiver says when it is told of another upstream: it connects to that next."""
_SILENT = "what receives hangs: it got no message for longer than it waits for one"
_PAUSED = (
    "settings of it are lower than those of its upstream: it has to be started again with them"
)


def state(node: EngineNode) -> Following:
    """Return how a follower stands with its upstream; also one that does not run."""
    upstream = node.upstream
    sender = [upstream.address, upstream.port] if upstream is not None else [None, None]
    try:
        with session.connect_in_time(node, "postgres", _ANSWER) as connection:
            row = connection.execute(_STATE, sender).fetchone()
    except errors.ObjectNotInPrerequisiteState:
        return Following(streams=False, reason="it takes writes")
    except psycopg.Error as error:
        lost, reason = _said(node)
        return Following(streams=False, lost=lost, reason=reason or str(error))
    assert row is not None  # noqa: S101
    _, paused, hangs, connected, same_timeline, lag = row
    behind = max(0.0, float(str(lag))) if lag is not None else None
    if hangs:
        return Following(streams=False, lag=behind, hangs=True, reason=_SILENT)
    if connected and same_timeline and not paused:
        return Following(streams=True, lag=behind)
    lost, reason = _said(node)
    if paused:
        reason = _PAUSED
    elif reason == _TOLD_TO_END:
        reason = ""
    else:
        reason = reason or "it is not connected"
    return Following(
        streams=False,
        lag=behind,
        lost=lost,
        reason=reason,
        is_passing=reason.endswith(_ENDED),
    )


def _said(node: EngineNode) -> tuple[str | None, str]:
    """Return why a follower will never be able to follow, if it says so, and its last complaint; since
    it was started, told of an upstream, or received anything."""
    newest = failures.latest(node.paths.log, "*.log")
    text = files.read_tail(newest) if newest else ""
    begun = list(_BEGUN.finditer(text))
    text = text[begun[-1].start() :] if begun else text
    lost = _LOST.search(text)
    complaints = _COMPLAINT.findall(text)
    return (lost[1] if lost else None), (complaints[-1] if complaints else "")


def has_all_of(node: EngineNode, primary: EngineNode) -> bool:
    """Return whether a follower has replayed the very last that a primary wrote, which has ended."""
    control = Control.read(primary.paths.data)
    if not control.is_shut_down:
        return False
    segment = wal.segment_of(control.timeline, control.position, _SEGMENT_SIZE)
    with (
        session.answering("the follower does not say what it has"),
        session.connect_in_time(node, "postgres", _ANSWER) as connection,
    ):
        wanted = [control.position, control.timeline, segment]
        row = connection.execute(_ALL, wanted).fetchone()
    return row == (True, True, True, control.system_identifier)
