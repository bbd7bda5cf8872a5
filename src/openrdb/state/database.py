"""The state's database: SQLite (WAL, every commit on disk) or PostgreSQL, and its migrations."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from openrdb.errors import DiskFull, HostError
from openrdb.state import generations, health
from openrdb.system import files
from openrdb.system.layout import Layout

MIGRATIONS = Path(__file__).parent / "migrations"
_POOL = 32
_LEAST_FREE = 2**22
"""Bytes that a few transactions and their workflows take."""
_WRITER = 0x6F706E72646200
"""The advisory lock that writers take on PostgreSQL, as SQLite's write lock."""


def sqlite_engine(url: str) -> Engine:
    """Return an engine whose writing transactions take the write lock at their start.

    SQLite would else give up a transaction that turns from reading to writing while another writes.
    """
    # As many as there are threads that read: none of them waits for another's connection.
    engine = create_engine(url, connect_args={"timeout": 30}, pool_size=_POOL, max_overflow=_POOL)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("reads", False):
            connection.exec_driver_sql("BEGIN")
        else:
            level = "FULL" if options.get("durable", True) else "NORMAL"
            connection.exec_driver_sql(f"PRAGMA synchronous={level}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def open_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() == "sqlite":
        return sqlite_engine(url)
    return create_engine(url, pool_size=10, max_overflow=20, pool_pre_ping=True)


class _Writing(Session):
    """A session that raises the generations of the instances whose nodes it changes, and knows which
    disks are full."""


generations.watch(_Writing)
health.watch(_Writing)


class Database:
    """Where sessions come from: `read()` sees one moment's state, `write()` commits at its end."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        self._reading = self.engine.execution_options(reads=True)
        self._noting = self.engine.execution_options(durable=False)
        # Threads of this process wait in line here; SQLite would have them sleep and try again.
        self._writing = threading.Lock()

    def migrate(self) -> None:
        """Bring the tables to this version's form, after saving the state as it is.

        The copy of an SQLite database is `state.sqlite.before-0003`, named after the first
        migration that is to be made. A PostgreSQL database is its operator's to save.

        Raises:
            HostError: a newer version wrote them, or the database cannot be used.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            self._save(ScriptDirectory.from_config(config))
            with self.engine.connect() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (CommandError, RevisionError) as error:
            raise HostError(
                f"the state was written by a newer OpenRDB: install that version again ({error})"
            ) from None
        except DBAPIError as error:
            url = self.engine.url.render_as_string()
            raise HostError(f"cannot use the state {url}: {_first_line(error.orig)}") from None

    def revision(self) -> str | None:
        """Return the migration that the tables are at; None: there are none."""
        with self._reading.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def path(self) -> Path | None:
        """Return the file of an SQLite database; None: it is another one."""
        path = self.engine.url.database
        return Path(path) if self.engine.dialect.name == "sqlite" and path is not None else None

    def _save(self, migrations: ScriptDirectory) -> None:
        path = self.path()
        if path is None:
            return
        current = self.revision()
        if current is None:  # a new database: there is nothing to save
            return
        pending = [one.revision for one in migrations.iterate_revisions("head", current)]
        if pending:
            copy_sqlite(path, path.with_name(f"{path.name}.before-{pending[-1]}"))

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Session]:
        """Yield the only session that writes, on either database: what was read holds until the commit.

        What is not durable may be lost in a power cut, though never in a crash of the process.
        """
        engine = self.engine if durable else self._noting
        with (
            self._writing,
            self._refusing_without_space(),
            _Writing(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            if engine.dialect.name == "postgresql":
                session.execute(select(func.pg_advisory_xact_lock(_WRITER)))
                if not durable:
                    session.execute(text("SET LOCAL synchronous_commit = off"))
            yield session

    @contextmanager
    def _refusing_without_space(self) -> Iterator[None]:
        """Give back what is kept aside for a full disk; refuse in words what fits even so not.

        Raises:
            DiskFull: there is no space, and nothing was written.
        """
        layout = self._layout()
        if layout is None:
            yield
            return
        if not self.has_room():
            files.remove_file(layout.reserve)
        try:
            yield
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise
            raise DiskFull(f"no space is left for the state in {layout.root}") from error

    def has_room(self) -> bool:
        """Return whether a few transactions fit; PostgreSQL's room is its operator's concern."""
        layout = self._layout()
        return layout is None or files.free_bytes(layout.root) >= _LEAST_FREE

    def _layout(self) -> Layout | None:
        """Return the data directory that the database is in."""
        path = self.path()
        return None if path is None else Layout(path.parent)

    def close(self) -> None:
        self.engine.dispose()


def newest_revision() -> str | None:
    """Return the migration that this version's tables are at."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config).get_current_head()


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy an SQLite database, also while it is used; the copy is whole or not there."""
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(partial)) as written:
        read.backup(written)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.rename(target)
