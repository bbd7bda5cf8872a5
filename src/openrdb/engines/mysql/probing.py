"""Looking whether a primary commits, and whether its standby confirms."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pymysql import MySQLError
from pymysql.constants import CR, ER

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import failures, semisync, session
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import rows, run
from openrdb.engines.replication import Answer, Probed
from openrdb.errors import HostError

# In the server's own schema: there no tenant sees or reaches it, and no dump has it.
_TABLE = "mysql._rdb_probe"
_MAKE = f"CREATE TABLE {_TABLE} (id TINYINT PRIMARY KEY, at DATETIME(6)) ENGINE = InnoDB"
_WRITE = f"REPLACE INTO {_TABLE} VALUES (1, UTC_TIMESTAMP(6))"  # noqa: S608
# Followers get nothing of it, so it waits for none.
_PIN = "SET SESSION sql_log_bin = 0, lock_wait_timeout = 1, innodb_lock_wait_timeout = 1"
_DOES = "SELECT command, state FROM information_schema.processlist WHERE id = %s"
_FIRST = 0.6
"""The part of its time that a probe waits for its write; in the rest it asks what that waits for."""
_ACTION = 5.0
_LOCKED = (
    *("Waiting for global read lock", "Waiting for commit lock"),
    *("Waiting for table metadata lock", "Waiting for table flush"),
)
"""By FLUSH TABLES WITH READ LOCK and its like, which administrators may say."""
_LOST = {CR.CR_SERVER_LOST, CR.CR_SERVER_GONE_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_CONNECTION_ERROR}
_ANSWERS: dict[int, Answer] = {
    ER.DISK_FULL: "full",
    ER.RECORD_FILE_FULL: "full",
    3675: "full",  # no tablespace can be made
    ER.LOCK_WAIT_TIMEOUT: "busy",
    ER.CON_COUNT_ERROR: "busy",
    **dict.fromkeys(_LOST, "silent"),
}


class MySQLProbe:
    """See `Probe`."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node
        self._session: Session | None = None
        self._progress = ("", 0.0)
        """How many commits had been confirmed, and when that was new or nothing waited."""

    def look(self, timeout: float) -> Probed:
        deadline, was_there = time.monotonic() + timeout, self._session is not None
        try:
            return self._look(timeout * _FIRST)
        except MySQLError as error:
            left = deadline - time.monotonic()
            if not (was_there and error.args[0] in _LOST and left > timeout / 2):
                return self._failure(error, timeout)
        # The server has ended the session, perhaps as it was started again.
        self.close()
        try:
            return self._look(left * _FIRST)
        except MySQLError as error:
            return self._failure(error, timeout)

    def disarm(self) -> None:
        try:
            if self._session is None:
                self._session = session.connect(self._node, patience=_ACTION)
                run(self._session, _PIN)
            session.set_patience(self._session, _ACTION)
            semisync.disable(self._session)
        except MySQLError as error:
            self.close()
            why = f"commits go on to wait for the standby: {error.args[-1]}"
            raise HostError(why) from error

    def close(self) -> None:
        if self._session is not None:
            session.close(self._session)
            self._session = None

    def _look(self, timeout: float) -> Probed:
        if self._session is None:
            self._session = session.connect(self._node, patience=timeout)
            run(self._session, _PIN)
        session.set_patience(self._session, timeout)
        try:
            run(self._session, _WRITE)
        except MySQLError as error:
            if error.args[0] != ER.NO_SUCH_TABLE:
                raise
            run(self._session, _MAKE)
            run(self._session, _WRITE)
        numbers = semisync.numbers(self._session)
        return Probed("written", self._unconfirmed(numbers), waits=numbers.get("status") == "ON")

    def _unconfirmed(self, numbers: Mapping[str, str]) -> float:
        """Return for how long commits wait, and none of them was confirmed."""
        now = time.monotonic()
        confirmed, since = self._progress
        if numbers.get("wait_sessions", "0") == "0" or numbers["yes_tx"] != confirmed:
            self._progress = (numbers.get("yes_tx", ""), now)
            return 0.0
        return now - since

    def _failure(self, error: MySQLError, timeout: float) -> Probed:
        answer = _ANSWERS.get(error.args[0], "refused")
        if answer == "refused" and failures.is_full(str(error.args[-1])):
            answer = "full"  # as of a quota, for which there are many numbers
        if answer == "silent" and self._session is not None:
            answer = self._second_opinion(self._session.thread_id(), timeout * (1 - _FIRST))
        self.close()
        return Probed(answer, reason=str(error.args[-1]))

    def _second_opinion(self, number: int, timeout: float) -> Answer:
        """Return whether it is only users' lock that the session waits for, or its answer came late."""
        try:
            with session.connect(self._node, patience=timeout) as connection:
                found = rows(connection, _DOES, number)
        except MySQLError:
            return "silent"
        is_well = not found or found[0][0] == "Sleep" or found[0][1] in _LOCKED
        return "busy" if is_well else "silent"
