"""A restore under way: its names, and its sessions, by which a later one finds and ends them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from pymysql import MySQLError

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import reserved, session
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import quoted_account, rows, run
from openrdb.engines.transfers import LOADED, REPLACED, TransferFailed

_SESSIONS = 4
"""A restore has at most so many at once."""
_PATIENCE = 20
"""Seconds in which a session that is killed ends."""
_OF_RESTORE = "SELECT id FROM information_schema.processlist WHERE user = %s"


@dataclass(frozen=True)
class Restoring:
    """A restore on a node, by its job."""

    node: EngineNode
    job_id: UUID

    @property
    def loaded(self) -> str:
        """The database that the dump is loaded into."""
        return LOADED + self.job_id.hex

    @property
    def replaced(self) -> str:
        """The database that gets the tables which are replaced."""
        return REPLACED + self.job_id.hex

    @property
    def _locks(self) -> list[str]:
        return [f"{self.loaded}_{number}" for number in range(_SESSIONS)]

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session of the superuser's, which holds one of the restore's locks."""
        with session.connect(self.node) as connection:
            for name in self._locks:
                if rows(connection, "SELECT GET_LOCK(%s, 0)", name) == [(1,)]:
                    break
            yield connection

    def end_sessions(self, connection: Session) -> None:
        """End the sessions that a killed restore has left: they go on with their statements.

        Raises:
            TransferFailed: one does not end.
        """
        for name in self._locks:
            while (found := rows(connection, "SELECT IS_USED_LOCK(%s)", name)) != [(None,)]:
                _kill(connection, int(str(found[0][0])))
                if rows(connection, "SELECT GET_LOCK(%s, %s)", name, _PATIENCE) != [(1,)]:
                    raise TransferFailed("not_ready", "an earlier restore has not ended yet")
                rows(connection, "SELECT RELEASE_LOCK(%s)", name)


def close_account(connection: Session) -> None:
    """Drop the account that loads dumps, and end its sessions."""
    run(connection, f"DROP USER IF EXISTS {quoted_account(reserved.RESTORE)}")
    for (number,) in rows(connection, _OF_RESTORE, reserved.RESTORE[0]):
        _kill(connection, int(str(number)))


def _kill(connection: Session, number: int) -> None:
    with suppress(MySQLError):  # it has ended by itself
        run(connection, f"KILL {number}")
