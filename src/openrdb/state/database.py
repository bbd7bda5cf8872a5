"""The state's database: SQLite (WAL, every commit on disk) or PostgreSQL, and its migrations."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.orm import Session

from openrdb.state import generations

MIGRATIONS = Path(__file__).parent / "migrations"
_WRITER = 0x6F706E72646200
"""The advisory lock that writers take on PostgreSQL, as SQLite's write lock."""


def sqlite_engine(url: str) -> Engine:
    """An engine whose writing transactions take the write lock at their start.

    SQLite would else give up a transaction that turns from reading to writing while another writes.
    """
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def open_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() == "sqlite":
        return sqlite_engine(url)
    return create_engine(url, pool_size=10, max_overflow=20, pool_pre_ping=True)


class _Writing(Session):
    """A session that raises the generations of the instances whose nodes it changes."""


generations.watch(_Writing)


class Database:
    """Where sessions come from: `read()` sees one moment's state, `write()` commits at its end."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        self._reading = self.engine.execution_options(reads=True)
        # Threads of this process wait in line here; SQLite would have them sleep and try again.
        self._writing = threading.Lock()

    def migrate(self) -> None:
        """Bring the tables to this version's form."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self.engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One writer at a time, on either database: what was read holds until the commit."""
        with (
            self._writing,
            _Writing(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            if self.engine.dialect.name == "postgresql":
                session.execute(select(func.pg_advisory_xact_lock(_WRITER)))
            yield session

    def close(self) -> None:
        self.engine.dispose()
