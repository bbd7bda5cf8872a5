"""A restore under way: its names, and its sessions, by which a later one finds and ends them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg import Connection

from openrdb.engines.base import EngineNode
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import archive, dump, session
from openrdb.engines.postgresql.admin import databases
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.transfers import LOADED, REPLACED, TransferFailed

APPLICATION = "openrdb restore"
_END = f"""
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE usename = '{SUPERUSER}' AND starts_with(application_name, %s) AND pid <> pg_backend_pid()
"""  # noqa: S608
_PATIENCE = 60.0


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
        """What the database is named that it has replaced."""
        return REPLACED + self.job_id.hex

    @property
    def application(self) -> str:
        return f"{APPLICATION} {self.job_id.hex}"

    @contextmanager
    def session(self, database: str, *, autocommit: bool = False) -> Iterator[Connection[Row]]:
        """Open a session of the superuser's.

        Raises:
            TransferFailed: the server does not let it in.
        """
        with dump.connected(self.node, database, self.application) as connection:
            connection.autocommit = autocommit
            yield connection

    def environment(self, user: str, password: str, options: str) -> dict[str, str]:
        """Return what pg_restore comes into the loaded database with."""
        found = session.child_environment(self.node, user, password, self.loaded, options)
        return found | {"PGAPPNAME": self.application}


def end_sessions(connection: Connection[Row], application: str) -> None:
    """End the superuser's sessions that a killed restore has left: they go on with their statements.

    Raises:
        TransferFailed: one does not end.
    """
    until = time.monotonic() + _PATIENCE
    while connection.execute(_END, [application]).fetchall():
        if time.monotonic() > until:
            raise TransferFailed("not_ready", "an earlier restore has not ended yet")


def failed(error: psycopg.Error) -> TransferFailed:
    """Return a refusal of the server's as one for the user."""
    if isinstance(error, psycopg.errors.DiskFull):
        return TransferFailed("no_space", "there is no space left for the restored database")
    reason = databases.reason(error) or "the database server does not answer"
    return TransferFailed("" if error.sqlstate else "not_ready", archive.without_paths(reason))
