"""One server as a part of a pair or as a replica: it receives by GTIDs, and confirms by semi-sync."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from pymysql import MySQLError

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import channel, config, copying, gtids, semisync, session, writes
from openrdb.engines.mysql.admin import user_sessions
from openrdb.engines.mysql.probing import MySQLProbe
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import quoted_identifier, rows, run
from openrdb.engines.replication import Following
from openrdb.errors import HostError, Unopenable

_ANSWER, _ACTION, _LONG = 2.0, 5.0, 60.0
"""Seconds that a server may take for a statement: where it is only asked; where others wait for what
it does; and where it may wait for others itself."""
_OPEN_TIMEOUT = 60.0
_APPLIED = "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 1)"
"""Waits for a second."""
_NAMED = 100
"""The most tables that are named in an answer; its last line says if there are more."""
_WITHOUT_KEY = f"""
    SELECT one.table_schema, one.table_name FROM information_schema.tables AS one
    LEFT JOIN information_schema.table_constraints AS its ON its.table_schema = one.table_schema
        AND its.table_name = one.table_name AND its.constraint_type = 'PRIMARY KEY'
    WHERE one.table_type = 'BASE TABLE' AND its.table_name IS NULL AND one.table_schema NOT IN
        ('mysql', 'sys', 'information_schema', 'performance_schema')
    ORDER BY 1, 2 LIMIT {_NAMED + 1}
"""  # noqa: S608


class MySQLReplication:
    """See `Replication`. The server keeps its binary log for some time, whoever needs it: followers
    that were away for longer are copied again."""

    hands_over_running = True
    passes_on_received = False
    opens_unasked = False
    keeps_received = False
    """A follower does not sync what it applies: it would fall behind a primary whose commits share
    syncs. It loses nothing when its server ends, only when its host loses power."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def obstacles(self) -> list[str]:
        found = []
        with self._session() as connection:
            others = copying.others(connection, _NAMED + 1)
            for schema, table, engine in others[:_NAMED]:
                quoted = ".".join(quoted_identifier(str(name)) for name in (schema, table))
                found.append(
                    f"the table {schema}.{table} is of the engine {engine}, which loses what was "
                    f"committed: ALTER TABLE {quoted} ENGINE = InnoDB makes it one that does not"
                )
        return found + ["more tables are of such engines"] * (len(others) > _NAMED)

    def is_started_for_pair(self) -> bool:
        if not self._node.spec.is_paired:  # its files have nothing of it either
            return True
        with self._session(_ANSWER) as connection:
            return all(
                rows(connection, f"SELECT @@GLOBAL.{name} = %s", value) == [(1,)]
                for name, value in config.PAIRED.items()
            )

    def warnings(self) -> list[str]:
        with self._session() as connection:
            tables = rows(connection, _WITHOUT_KEY)
        found = [
            f"the table {schema}.{table} has no primary key, which nodes on several hosts need"
            for schema, table in tables[:_NAMED]
        ]
        return found + ["more tables have none"] * (len(tables) > _NAMED)

    def open(self) -> None:
        with self._session() as connection:
            if not writes.are_allowed(connection):
                _apply_received(connection)
                channel.sync(self._node, connection)
                semisync.disable(connection)
                writes.allow(self._node, connection)

    def settle(self) -> None:
        with self._session() as connection:
            if writes.are_allowed(connection):
                channel.leave(self._node, connection)

    def is_open(self) -> bool:
        with self._session(_ANSWER) as connection:
            return writes.are_allowed(connection)

    def is_ending(self, pid: int) -> bool:
        """Return False: it ends the sessions itself, and is killed if it does not end."""
        del pid
        return False

    def probe(self) -> MySQLProbe:
        return MySQLProbe(self._node)

    def admit(self, follower: UUID) -> None:
        del follower  # nothing is kept for it
        with self._session() as connection:
            semisync.admit(connection, self._node.bundle)

    def dismiss(self, follower: UUID) -> None:
        with self._session(_ACTION) as connection:
            semisync.dismiss(connection, follower)

    def kept_for(self) -> set[UUID]:
        """Return none: it keeps its binary log for some time, whoever reads it."""
        return set()

    def arm(self, follower: EngineNode) -> bool:
        with self._session(_ACTION) as connection:
            return semisync.arm(connection, follower)

    def disarm(self) -> None:
        with self._session(_ACTION) as connection:
            semisync.disable(connection)

    def is_armed(self) -> bool:
        with self._session(_ANSWER) as connection:
            return semisync.is_armed(connection)

    def follow(self) -> None:
        with self._session() as connection:
            if not writes.are_allowed(connection):
                # Of a former primary: what it applies would wait for a follower that it has not.
                semisync.disable(connection)
            channel.follow(self._node, connection)

    def following(self, known: str | None = "") -> Following:
        with self._session(_ANSWER) as connection:
            return channel.following(self._node, connection, known)

    def release(self) -> None:
        with self._session(_ACTION) as connection:
            user_sessions.end_clients(connection)

    def wait_lowered(self, timeout: float) -> bool:
        """Return True: a follower starts with whatever settings it is given."""
        del timeout
        return True

    def tell_followers(self) -> None:
        with self._session(_ANSWER) as connection:
            channel.tell_followers(connection)

    def prepare_handover(self) -> None:
        self.tell_followers()

    def hand_over(self, timeout: float) -> None:
        with self._session() as connection:
            try:
                writes.stop(connection, timeout)
            except MySQLError as error:
                self.take_back()
                raise HostError(f"commits do not end: {error}") from error

    def take_back(self) -> None:
        with self._session() as connection:
            if writes.are_users_out(connection):  # a server that was started again lets them in
                writes.allow(self._node, connection)
                if not channel.status(connection):  # else `settle` does
                    writes.run_events(connection)

    def has_all_of(self, primary: EngineNode) -> bool:
        """Return whether both servers have the same, for which it waits a second."""
        with self._session(_ACTION) as own, session.connect(primary, patience=_ACTION) as source:
            if writes.are_allowed(source):
                return False
            wanted = gtids.executed(source)
            if rows(own, _APPLIED, wanted) != [(0,)]:
                return False
            return not gtids.difference(own, gtids.executed(own), wanted)

    @contextmanager
    def _session(self, patience: float = _LONG) -> Iterator[Session]:
        """Yield a session of the superuser.

        Raises:
            HostError: the server does not answer, or refuses something.
        """
        try:
            with session.connect(self._node, patience=patience) as connection:
                yield connection
        except MySQLError as error:
            raise HostError(
                f"the server does not do what it is told to: {error.args[-1]}"
            ) from error


def _apply_received(connection: Session) -> None:
    """Receive nothing more, and wait until all that was received is applied.

    Raises:
        Unopenable: it cannot be: something confirmed would be lost.
        HostError: it is not within a minute.
    """
    if not channel.status(connection):
        return
    run(connection, "STOP REPLICA IO_THREAD")
    deadline = time.monotonic() + _OPEN_TIMEOUT
    while True:
        now = channel.status(connection)
        if why := channel.failure_to_apply(now):
            raise Unopenable(f"what the server has received cannot be applied: {why}")
        if not channel.is_applying(now):
            # Refused where the server cannot read what it has received, and says that it is nothing.
            run(connection, "START REPLICA SQL_THREAD")
        if rows(connection, _APPLIED, now["Retrieved_Gtid_Set"]) == [(0,)]:
            return
        if time.monotonic() > deadline:
            raise HostError("the server has not applied all that it has received within a minute")
