"""The state as one SQLite file, whichever database it is in: what a backup of it has.

The rows of a PostgreSQL state are copied one table after the other, so that it can be restored into
either. What DBOS keeps next to them is left out: see `docs/decisions.md`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import select

from openrdb.errors import HostError
from openrdb.state.database import Database, copy_sqlite, newest_revision
from openrdb.state.models import Base

_BATCH = 500


def save(database: Database, path: Path) -> None:
    """Write the state of one moment into a new SQLite file; others may go on writing to it.

    Raises:
        HostError: another version of OpenRDB wrote it, it is damaged, or there is no space.
    """
    if database.revision() != newest_revision():
        raise HostError(
            f"the state is of another version (migration {database.revision()}): back it up with the "
            "OpenRDB that serves it"
        )
    source = database.path()
    try:
        if source is not None:
            copy_sqlite(source, path)
        else:
            with closing(Database(f"sqlite:///{path}")) as target:
                target.migrate()
                replace_rows(database, target)
        require_sound(path)
    except sqlite3.Error as error:
        raise HostError(f"cannot copy the state: {error}") from None


def replace_rows(source: Database, target: Database) -> None:
    """Replace all rows of a state by those of another one, of the same version, in one transaction."""
    one_moment = source.engine.execution_options(**_reading(source))
    with one_moment.connect() as read, target.engine.begin() as written:
        for table in reversed(Base.metadata.sorted_tables):
            written.execute(table.delete())
        for table in Base.metadata.sorted_tables:
            rows = read.execute(select(table)).mappings()
            for batch in rows.partitions(_BATCH):
                written.execute(table.insert(), [dict(row) for row in batch])


def _reading(source: Database) -> dict[str, object]:
    if source.path() is not None:
        return {"reads": True}
    return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def require_sound(path: Path) -> None:
    """Raise HostError if an SQLite file is damaged."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said != "ok":
        raise HostError(f"the state is damaged: {said}")
