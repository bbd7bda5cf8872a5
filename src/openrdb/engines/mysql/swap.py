"""The end of a restore: tables change places by one RENAME, in which a note goes along.

What surrounds it is repeated by the note until it is whole: while the note is next to the tables that
were loaded, the old definitions are put back; once it is next to the old tables, the new ones are made.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import contents as read_contents
from openrdb.engines.mysql import definitions, reserved, session
from openrdb.engines.mysql.admin import databases, user_sessions
from openrdb.engines.mysql.restoring import Restoring, close_account
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import quoted_account, quoted_identifier, rows, run
from openrdb.engines.transfers import OF_RESTORES, Contents

_NOTE = "_rdb_note"
_GONE = (ER.BAD_DB_ERROR, ER.NO_SUCH_TABLE)
_ATTEMPTS = 3
_SCHEMAS = "SELECT schema_name FROM information_schema.schemata"
_HAS_NOTE = """
    SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s
"""
_LAST = """
    SELECT attribute->>'$.restored' FROM information_schema.user_attributes
    WHERE user = %s AND host = %s
"""
Note = dict[str, Any]
"""The database, the contents that it had (None: it was not there) and is to have, and whether what it
had is to be made again because what it was to have could not be made."""


def is_ours(schema: str) -> bool:
    """Return whether a database is one of a restore's."""
    return OF_RESTORES.fullmatch(schema) is not None


def swap(job: Restoring, database: str, contents: Contents) -> None:
    """Put the tables that were loaded, and all else of the contents, into the database's place.

    Raises:
        MySQLError: it is as it was.
    """
    loaded, replaced = job.loaded, job.replaced
    with job.session() as connection:
        found = databases.find(connection, database)
        kept, managed = found or (database, True)
        old = read_contents.read(connection, kept) if found else None
        note = {"database": kept, "managed": managed, "old": old, "new": contents}
        note["undone"] = False
        _write(connection, loaded, note)
        if old is None:
            note["database"] = kept = databases.ensure(connection, kept)
        run(connection, f"CREATE DATABASE {quoted_identifier(replaced)}")
        run(connection, f"ALTER DATABASE {quoted_identifier(kept)} READ ONLY = 0")
        user_sessions.end_within(connection, kept)
        definitions.drop(connection, kept, ["TRIGGER"])
        _exchange(connection, kept, out_to=replaced, in_from=loaded)
    if failure := _complete_or_undo(job, note):
        raise failure


def _exchange(connection: Session, database: str, *, out_to: str, in_from: str) -> None:
    """Let the tables of two databases and the note change places, all at once."""
    out = [(name, database, out_to) for name in read_contents.tables(connection, database)]
    loaded = [name for name in read_contents.tables(connection, in_from) if name != _NOTE]
    moves = [*out, *((name, in_from, database) for name in loaded), (_NOTE, in_from, out_to)]
    statement = "RENAME TABLE " + ", ".join(
        f"{_on(before, name)} TO {_on(after, name)}" for name, before, after in moves
    )
    for attempt in range(_ATTEMPTS):
        try:
            run(connection, statement)
        except MySQLError as error:
            if error.args[0] != ER.LOCK_WAIT_TIMEOUT or attempt == _ATTEMPTS - 1:
                raise
            # A transaction of a session with another current database.
            user_sessions.end_all(connection)
        else:
            return


def _on(database: str, name: str) -> str:
    return f"{quoted_identifier(database)}.{quoted_identifier(name)}"


def _complete(job: Restoring, note: Note) -> None:
    """Make what the database has besides its new tables. Repeatable."""
    with job.session() as connection:
        read_contents.give_back(connection, note["database"], note["new"], managed=note["managed"])
    with job.session() as connection:
        # They have the privileges of before.
        user_sessions.end_within(connection, note["database"])


def _complete_or_undo(job: Restoring, note: Note) -> MySQLError | None:
    """Complete a restore and record it; undo it and return why where that cannot be."""
    try:
        _complete(job, note)
    except MySQLError as error:
        _undo(job, note)
        _put_back(job, note | {"undone": True})
        return error
    with job.session() as connection:
        _record(connection, job.job_id)
    return None


def _undo(job: Restoring, note: Note) -> None:
    """Put the old tables back; the rest follows when it is settled."""
    loaded, replaced = job.loaded, job.replaced
    with job.session() as connection:
        _change(connection, replaced, note | {"undone": True})
        definitions.drop(connection, note["database"], ["TRIGGER"])
        _exchange(connection, note["database"], out_to=loaded, in_from=replaced)


def _put_back(job: Restoring, note: Note) -> None:
    """Make the database what it was before its tables changed places, or were to. Repeatable."""
    old, database = note["old"], note["database"]
    with job.session() as connection:
        if old is None:
            databases.ensure_none(connection, database)
        elif note["undone"]:
            managed = note["managed"]
            read_contents.give_back(connection, database, old, managed=managed, lenient=True)
        else:
            definitions.drop(connection, database, ["TRIGGER"])
            triggers = [one for one in old["definitions"] if one["kind"] == "TRIGGER"]
            definitions.make(connection, database, triggers, lenient=True)


def settle(node: EngineNode, job_id: UUID) -> bool:
    """Complete or undo what a restore has begun, and return whether it has taken effect."""
    job = Restoring(node, job_id)
    with session.connect(node) as connection:
        job.end_sessions(connection)
        if rows(connection, f"{_SCHEMAS} WHERE schema_name = %s", job.loaded):
            close_account(connection)  # else it may be another restore's
        begun, done = _read(connection, job.loaded), _read(connection, job.replaced)
        if done is not None and done["undone"]:
            _undo(job, done)
            _put_back(job, done)
        elif done is not None:
            if not _is_recorded(connection, job_id):
                _complete_or_undo(job, done)
        elif begun is not None:
            _put_back(job, begun)
        run(connection, "SET SESSION foreign_key_checks = 0")
        for name in (job.loaded, job.replaced):
            run(connection, f"DROP DATABASE IF EXISTS {quoted_identifier(name)}")
        return _is_recorded(connection, job_id)


def sweep(node: EngineNode) -> None:
    """Complete or undo what other restores have left, of which none runs any more."""
    with session.connect(node) as connection:
        found = [OF_RESTORES.fullmatch(str(name)) for (name,) in rows(connection, _SCHEMAS)]
    for job in {match[1] for match in found if match}:
        settle(node, UUID(job))


# -- notes -------------------------------------------------------------------------------------------


def _write(connection: Session, schema: str, note: Note) -> None:
    on = _on(schema, _NOTE)
    run(connection, f"CREATE TABLE {on} (id INT PRIMARY KEY, note LONGTEXT CHARACTER SET utf8mb4)")
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {on} VALUES (1, %s)", [json.dumps(note)])  # noqa: S608


def _change(connection: Session, schema: str, note: Note) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {_on(schema, _NOTE)} SET note = %s", [json.dumps(note)])  # noqa: S608


def _read(connection: Session, schema: str) -> Note | None:
    """Return the note that is in a schema; None if there is none, or it was not finished."""
    if not rows(connection, _HAS_NOTE, schema, _NOTE):
        return None
    try:
        found = rows(connection, f"SELECT note FROM {_on(schema, _NOTE)}")  # noqa: S608
    except MySQLError as error:
        if error.args[0] in _GONE:  # what was killed was just removing it
            return None
        raise
    return dict(json.loads(str(found[0][0]))) if found else None


def _record(connection: Session, job_id: UUID) -> None:
    """Note for good that a restore has taken effect; the last one is enough."""
    attribute = json.dumps({"restored": job_id.hex})
    account = quoted_account(reserved.SUPERUSER)
    run(connection, f"ALTER USER {account} ATTRIBUTE '{attribute}'")


def _is_recorded(connection: Session, job_id: UUID) -> bool:
    found = rows(connection, _LAST, *reserved.SUPERUSER)
    return found[:1] == [(job_id.hex,)]
