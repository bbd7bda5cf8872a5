"""One server as a part of a pair or as a replica: it receives by GTIDs, and confirms by semi-sync."""

from __future__ import annotations

import logging
import threading
import time
from uuid import UUID

from pymysql import MySQLError

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import channel, copying, definitions, gtids, semisync, session, writes
from openrdb.engines.mysql.probing import MySQLProbe
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import quoted_identifier, rows, run
from openrdb.engines.replication import Following
from openrdb.errors import HostError

log = logging.getLogger(__name__)

_OPEN_TIMEOUT = 60.0
_APPLIED = "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 1)"
"""Waits for a second."""
_NAMED = 5
_WITHOUT_KEY = f"""
    SELECT one.table_schema, one.table_name FROM information_schema.tables AS one
    LEFT JOIN information_schema.table_constraints AS its ON its.table_schema = one.table_schema
        AND its.table_name = one.table_name AND its.constraint_type = 'PRIMARY KEY'
    WHERE one.table_type = 'BASE TABLE' AND its.table_name IS NULL AND one.table_schema NOT IN
        ('mysql', 'sys', 'information_schema', 'performance_schema')
    ORDER BY 1, 2 LIMIT {_NAMED}
"""  # noqa: S608


class MySQLReplication:
    """See `Replication`. The server keeps nothing for followers: those that were away for longer than
    it keeps its binary log are copied anew."""

    hands_over_running = True
    keeps_received = False
    """What it has received and not applied it asks for again when it starts, and what it applies it
    does not sync: it would fall behind a primary whose commits share their syncs."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def obstacles(self) -> list[str]:
        found = []
        with session.connect(self._node) as connection:
            for schema, table, engine in copying.others(connection, _NAMED):
                quoted = ".".join(quoted_identifier(str(name)) for name in (schema, table))
                found.append(
                    f"the table {schema}.{table} is of the engine {engine}, which loses what was "
                    f"committed: ALTER TABLE {quoted} ENGINE = InnoDB makes it one that does not"
                )
        return found

    def warnings(self) -> list[str]:
        with session.connect(self._node) as connection:
            return [
                f"the table {schema}.{table} has no primary key, which nodes on several hosts need"
                for schema, table in rows(connection, _WITHOUT_KEY)
            ]

    def open(self) -> None:
        with session.connect(self._node) as connection:
            if not writes.are_allowed(connection):
                _apply_received(connection)
                channel.sync(connection)
                semisync.disable(connection)
                writes.allow(self._node, connection)
        # After a transaction whose rest never came the applier does not end at once.
        threading.Thread(target=self._settle, daemon=True).start()

    def _settle(self) -> None:
        """Bring an open server to what one has that never followed another; `open` begins it again."""
        try:
            with session.connect(self._node) as connection:
                if writes.are_allowed(connection):
                    channel.end(self._node)
                    definitions.enable_events(connection)
        except MySQLError as error:
            log.warning("%s still follows its former source: %s", self._node.spec.node_id, error)

    def is_open(self) -> bool:
        try:
            with session.connect(self._node, patience=channel.PATIENCE) as connection:
                return writes.are_allowed(connection)
        except MySQLError as error:
            raise HostError(f"the server does not answer: {error}") from error

    def probe(self) -> MySQLProbe:
        return MySQLProbe(self._node)

    def admit(self, follower: UUID) -> None:
        del follower  # nothing is kept for it
        semisync.admit(self._node)

    def dismiss(self, follower: UUID) -> None:
        semisync.dismiss(self._node, follower)

    def arm(self, follower: EngineNode) -> bool:
        return semisync.arm(self._node, follower)

    def disarm(self) -> None:
        semisync.disarm(self._node)

    def is_armed(self) -> bool:
        with session.connect(self._node, patience=channel.PATIENCE) as connection:
            return semisync.is_armed(connection)

    def follow(self) -> None:
        channel.follow(self._node)

    def following(self) -> Following:
        return channel.following(self._node)

    def prepare_handover(self) -> None:
        """Do nothing: a hand-over waits for nothing but commits."""

    def hand_over(self, timeout: float) -> None:
        with session.connect(self._node) as connection:
            try:
                writes.stop(connection, timeout)
            except MySQLError as error:
                self.take_back()
                raise HostError(f"commits do not end: {error}") from error

    def take_back(self) -> None:
        with session.connect(self._node) as connection:
            if writes.are_stopped(connection):
                writes.allow(self._node, connection)

    def has_all_of(self, primary: EngineNode) -> bool:
        """Return whether both servers have the same, for which it waits a second."""
        with (
            session.connect(primary, patience=channel.PATIENCE) as source,
            session.connect(self._node, patience=channel.PATIENCE) as own,
        ):
            if not writes.are_stopped(source):
                return False
            wanted = gtids.executed(source)
            if rows(own, _APPLIED, wanted) != [(0,)]:
                return False
            return not gtids.difference(own, gtids.executed(own), wanted)


def _apply_received(connection: Session) -> None:
    """Receive nothing more, and wait until all that was received is applied."""
    if not channel.status(connection):
        return
    run(connection, "STOP REPLICA IO_THREAD")
    received = channel.status(connection)["Retrieved_Gtid_Set"]
    deadline = time.monotonic() + _OPEN_TIMEOUT
    while rows(connection, _APPLIED, received) != [(0,)]:
        now = channel.status(connection)
        if why := channel.failure_to_apply(now):
            raise HostError(f"what the server has received cannot be applied: {why}")
        if time.monotonic() > deadline:
            raise HostError("the server has not applied all that it has received within a minute")
        if not channel.is_applying(now):
            run(connection, "START REPLICA SQL_THREAD")
