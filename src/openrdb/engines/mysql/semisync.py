"""Commits that wait for the standby: they are in its relay log before anybody sees them (AFTER_SYNC).

A server waits for whoever confirms, and only a standby does (`config.acknowledges`).
"""

from __future__ import annotations

import time
from uuid import UUID

from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import channel, config, gtids, identity, plugins, session
from openrdb.engines.mysql.admin import user_sessions
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import rows, run
from openrdb.system.bundle import Bundle

_PATIENCE = 2.0
_NEARLY = 1000
"""Transactions that a follower may lack when commits begin to wait for it."""
_CATCH_UP_TIMEOUT, _PAUSE = 2.0, 0.02
_DUMP = "Binlog Dump GTID"
_ENABLED = "SELECT @@rpl_semi_sync_source_enabled AND @@rpl_semi_sync_source_wait_no_replica"
_SOURCE, _REPLICA = "Rpl_semi_sync_source_", "Rpl_semi_sync_replica_"


def admit(connection: Session, bundle: Bundle) -> None:
    """Bring a server that was started alone to what those that replicate start with."""
    if is_enabled(connection):
        return
    for name, library in config.plugins(bundle).items():
        plugins.load(connection, name, library)
    for name, value in config.REPLICATING.items():
        run(connection, f"SET GLOBAL {name.removeprefix('loose_')} = {value}")


def dismiss(connection: Session, follower: UUID) -> None:
    """End the sessions of followers, if one of them is this one's: the others are back at once.

    Which of them is whose the server tells only by its performance schema, which small nodes lack.
    """
    if identity.server_id(follower) in _followers(connection):
        _end_dumps(connection)


def arm(connection: Session, follower: EngineNode) -> bool:
    """Let commits wait for a follower; see `Replication.arm`. If it is not ready, none waits."""
    is_done = False
    try:
        with session.connect(follower, patience=_PATIENCE) as other:
            is_done = _is_ready(connection, other, follower) and _enable(connection, other)
    finally:
        if not is_done:
            disable(connection)
    return is_done


def _is_ready(connection: Session, other: Session, follower: EngineNode) -> bool:
    """Return whether a follower confirms what it gets from this server, nobody else does, it has not
    diverged, and it lacks little."""
    now = channel.status(other)
    ((uuid,),) = rows(connection, "SELECT @@server_uuid")
    if not channel.is_streaming(now) or now["Source_UUID"] != uuid:
        return False
    ((own,),) = rows(other, "SELECT @@server_uuid")
    if _followers(connection).get(identity.server_id(follower.spec.node_id)) != own:
        return False
    if numbers(other, _REPLICA).get("status") != "ON":
        # It came before the plugin was loaded here: it looks for that when it begins to receive.
        _end_dumps(connection)
        return False
    if numbers(connection, _SOURCE).get("clients") != "1":
        return False
    if gtids.difference(other, channel.received(other), gtids.written(connection)):
        return False
    lacking = gtids.difference(other, gtids.executed(connection), channel.received(other))
    return gtids.count(lacking) <= _NEARLY


def _enable(connection: Session, other: Session) -> bool:
    """Let commits wait; return whether the follower soon has what was written before.

    What was written before they began to wait waits for nobody, and may be committed later.
    """
    run(connection, "SET GLOBAL rpl_semi_sync_source_wait_no_replica = ON")
    run(connection, "SET GLOBAL rpl_semi_sync_source_enabled = ON")
    wanted, deadline = gtids.written(connection), time.monotonic() + _CATCH_UP_TIMEOUT
    while gtids.difference(other, wanted, channel.received(other)):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return is_armed(connection)


def disable(connection: Session) -> None:
    """Let commits wait for nobody; those that wait are acknowledged."""
    try:
        # This releases also what waits for a follower that is there, but does not confirm.
        run(connection, "SET GLOBAL rpl_semi_sync_source_enabled = OFF")
        run(connection, "SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF")
    except MySQLError as error:
        if error.args[0] != ER.UNKNOWN_SYSTEM_VARIABLE:  # else it has no such plugin
            raise


def is_enabled(connection: Session) -> bool:
    """Return whether commits were told to wait."""
    try:
        return rows(connection, _ENABLED) == [(1,)]
    except MySQLError as error:
        if error.args[0] != ER.UNKNOWN_SYSTEM_VARIABLE:
            raise
        return False


def is_armed(connection: Session) -> bool:
    """Return whether commits wait for a follower."""
    return is_enabled(connection) and numbers(connection, _SOURCE)["status"] == "ON"


def numbers(connection: Session, prefix: str = _SOURCE) -> dict[str, str]:
    """Return what the plugin tells of itself, by the names without their common beginning."""
    found = rows(connection, "SHOW GLOBAL STATUS LIKE %s", f"{prefix}%")
    return {str(name).removeprefix(prefix): str(value) for name, value in found}


def _followers(connection: Session) -> dict[int, str]:
    """Return the UUIDs of the servers that receive, by their numbers."""
    return {int(str(row[0])): str(row[-1]) for row in rows(connection, "SHOW REPLICAS")}


def _end_dumps(connection: Session) -> None:
    for number, _, _, _, command, *_ in rows(connection, "SHOW PROCESSLIST"):
        if command == _DUMP:
            user_sessions.kill(connection, int(str(number)))
