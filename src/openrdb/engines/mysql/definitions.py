"""What a database has besides tables: routines, views, triggers and events, each with its definer.

They are read and made again one by one. To make one runs no code of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import (
    Account,
    quoted_account,
    quoted_identifier,
    quoted_literal,
    rows,
    run,
)

log = logging.getLogger(__name__)

Definition = dict[str, Any]
"""Kind, name, definer, statement, and the settings of the session that made it."""

KINDS: Final = ("FUNCTION", "PROCEDURE", "VIEW", "TRIGGER", "EVENT")
"""In the order in which they are made."""
_NAMES = {
    "FUNCTION": "SELECT routine_name, definer FROM information_schema.routines "
    "WHERE routine_schema = %s AND routine_type = 'FUNCTION'",
    "PROCEDURE": "SELECT routine_name, definer FROM information_schema.routines "
    "WHERE routine_schema = %s AND routine_type = 'PROCEDURE'",
    "VIEW": "SELECT table_name, definer FROM information_schema.views WHERE table_schema = %s",
    "EVENT": "SELECT event_name, definer FROM information_schema.events WHERE event_schema = %s",
    "TRIGGER": "SELECT trigger_name, definer FROM information_schema.triggers "
    "WHERE trigger_schema = %s ORDER BY event_object_table, action_order",
}
_TRIGGER = """
    SELECT action_timing, event_manipulation, event_object_table, action_statement, sql_mode,
        character_set_client, collation_connection
    FROM information_schema.triggers WHERE trigger_schema = DATABASE() AND trigger_name = %s
"""
_QUOTED = r"`(?:[^`]|``)*`"
_DEFINER = re.compile(rf"^(CREATE (?:ALGORITHM=\w+ )?)DEFINER={_QUOTED}@{_QUOTED}")
_GONE = (ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR, ER.SP_DOES_NOT_EXIST)
"""The server keeps what is granted on a table or column that is dropped, and cannot grant it again."""
_READ_ONLY: Final = 3989
"""ER_SCHEMA_READ_ONLY_ERROR."""
# A follower has events of other servers: those that it was told of are not enabled, those that came
# with the copy of the data are as they were then. An event of this server keeps what it was set to.
# Moments are told in each event's own zone.
_OF_OTHERS = """
    SELECT status,
        event_type = 'ONE TIME' AND CONVERT_TZ(execute_at, time_zone, '+00:00') <= UTC_TIMESTAMP(),
        event_schema, event_name, definer, sql_mode, time_zone, character_set_client,
        collation_connection
    FROM information_schema.events
    WHERE status <> 'DISABLED' AND originator <> @@server_id
"""
# In the server's own schema, where no tenant sees it and no dump has it; followers get it.
_IDLE = "mysql._rdb_idle_events"
_MAKE_IDLE = f"""
    CREATE TABLE IF NOT EXISTS {_IDLE} (
        event_schema VARCHAR(64) COLLATE utf8mb4_bin, event_name VARCHAR(64) COLLATE utf8mb4_bin,
        PRIMARY KEY (event_schema, event_name)
    ) ENGINE = InnoDB
"""
_NAMES_OF_IDLE = f"SELECT event_schema, event_name FROM {_IDLE}"  # noqa: S608
_FORGET_IDLE = f"DELETE FROM {_IDLE} WHERE event_schema = %s AND event_name = %s"  # noqa: S608
_ADD_IDLE = f"INSERT INTO {_IDLE} VALUES (%s, %s)"  # noqa: S608
_NOT_RUN = (
    "SELECT event_schema, event_name FROM information_schema.events WHERE status <> 'ENABLED'"
)
_OWN = "SELECT @@sql_mode, @@character_set_client, @@collation_connection, @@time_zone"
# Where SHOW CREATE has the statement, and the settings.
_COLUMNS = {
    "FUNCTION": (2, {"sql_mode": 1, "character_set_client": 3, "collation_connection": 4}),
    "PROCEDURE": (2, {"sql_mode": 1, "character_set_client": 3, "collation_connection": 4}),
    "VIEW": (1, {"character_set_client": 2, "collation_connection": 3}),
    "EVENT": (
        3,
        {"sql_mode": 1, "time_zone": 2, "character_set_client": 4, "collation_connection": 5},
    ),
}


def read(session: Session, database: str) -> list[Definition]:
    """Return what there is in a database, in the order in which it can be made."""
    # Statements then name it only where they were written so.
    session.select_db(database)
    return [
        _read(session, kind, str(name), str(definer))
        for kind in KINDS
        for name, definer in rows(session, _NAMES[kind], database)
    ]


def _read(session: Session, kind: str, name: str, definer: str) -> Definition:
    if kind == "TRIGGER":
        ((timing, event, table, body, mode, client, connection),) = rows(session, _TRIGGER, name)
        # What SHOW CREATE has names the database as its maker did.
        statement = (
            f"CREATE DEFINER={_account(definer)} TRIGGER {quoted_identifier(name)} {timing} {event} "
            f"ON {quoted_identifier(str(table))} FOR EACH ROW {body}"
        )
        settings = {
            "sql_mode": mode,
            "character_set_client": client,
            "collation_connection": connection,
        }
    else:
        (found,) = rows(session, f"SHOW CREATE {kind} {quoted_identifier(name)}")
        at, columns = _COLUMNS[kind]
        statement = str(found[at])
        settings = {setting: found[column] for setting, column in columns.items()}
    return {
        **{"kind": kind, "name": name, "definer": definer},
        **{"statement": statement, "settings": {key: str(one) for key, one in settings.items()}},
    }


def _account(definer: str) -> str:
    user, _, host = definer.rpartition("@")
    return f"{quoted_identifier(user)}@{quoted_identifier(host)}"


def names(session: Session, database: str, kind: str) -> list[str]:
    """Return the names of all of a kind in a database."""
    return [str(row[0]) for row in rows(session, _NAMES[kind], database)]


def drop(session: Session, database: str, kinds: Iterable[str] = KINDS) -> None:
    """Drop all of some kinds in a database."""
    for kind in kinds:
        for name in names(session, database, kind):
            on = f"{quoted_identifier(database)}.{quoted_identifier(name)}"
            run(session, f"DROP {kind} IF EXISTS {on}")


def make(
    session: Session,
    database: str,
    wanted: Iterable[Definition],
    grants: Iterable[str] = (),
    *,
    lenient: bool = False,
) -> None:
    """Make definitions in a database, which has none of them.

    Args:
        session: a session of the superuser's.
        database: where.
        wanted: what is made, kind by kind.
        grants: statements on single tables, views and routines; views may need them. Those on what is
            not there are left out.
        lenient: leave out what cannot be made, as what it is about is gone.

    Raises:
        MySQLError: one cannot be made.
    """
    session.select_db(database)
    by_kind = {kind: [one for one in wanted if one["kind"] == kind] for kind in KINDS}
    for one in (*by_kind["FUNCTION"], *by_kind["PROCEDURE"]):
        _make(session, one)
    # Each may need one of the others.
    left: list[Definition | str] = [*by_kind["VIEW"], *grants]
    while left:
        failures: list[MySQLError] = []
        again: list[Definition | str] = []
        for either in left:
            try:
                run(session, either) if isinstance(either, str) else _make(session, either)
            except MySQLError as error:
                again.append(either)
                if not (isinstance(either, str) and error.args[0] in _GONE):
                    failures.append(error)
        if len(again) == len(left):
            if failures and not lenient:
                raise failures[-1]
            break
        left = again
    for one in (*by_kind["TRIGGER"], *by_kind["EVENT"]):
        try:
            _make(session, one)
        except MySQLError:
            if not lenient:
                raise


def defined_by(one: Definition, account: Account) -> Definition:
    """Return a definition with another definer."""
    definer = f"DEFINER={quoted_account(account)}"
    found = _DEFINER.match(one["statement"])
    assert found is not None  # noqa: S101
    return one | {"statement": f"{found[1]}{definer}{one['statement'][found.end() :]}"}


def enable_events(session: Session) -> None:
    """Let a server that followed another one run the events that are still due.

    That an event has run is known only to the server that ran it, so a one-time event whose moment has
    passed may have run: it is disabled. So is what the other server did not run, as far as it has told
    (`note_idle`). Events must not run meanwhile.
    """
    idle = _idle(session)
    for event, _, has_passed in _of_others(session):
        _alter(session, event, "DISABLE" if has_passed or event[:2] in idle else "ENABLE")


def note_idle(session: Session) -> None:
    """Let followers know which events this server does not run: they are told of all as disabled."""
    wanted = {(str(schema), str(name)) for schema, name in rows(session, _NOT_RUN)}
    known = _idle(session)
    if wanted == known:
        return
    run(session, _MAKE_IDLE)
    with session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.executemany(_FORGET_IDLE, sorted(known - wanted))
        cursor.executemany(_ADD_IDLE, sorted(wanted - known))
        cursor.execute("COMMIT")


def _idle(session: Session) -> set[tuple[str, str]]:
    try:
        return {(str(schema), str(name)) for schema, name in rows(session, _NAMES_OF_IDLE)}
    except MySQLError as error:
        if error.args[0] != ER.NO_SUCH_TABLE:
            raise
        return set()


def disable_missed(session: Session) -> None:
    """Disable the one-time events of a copied server whose moment has passed since it was copied.

    Its source has run them, or will. Events must not run meanwhile.
    """
    for event, status, has_passed in _of_others(session):
        if has_passed and status == "ENABLED":
            _alter(session, event, "DISABLE")


def _of_others(session: Session) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Yield the events of other servers: each with its status, and whether it was to run once before
    now."""
    for status, has_passed, *event in rows(session, _OF_OTHERS):
        yield tuple(str(one) for one in event), str(status), bool(has_passed)


def _alter(session: Session, event: tuple[str, ...], change: str) -> None:
    """Enable or disable an event; it keeps its definer and the settings that it was made with.

    A database that its user has made read-only is writable for that moment.
    """
    schema, name, definer, mode, zone, client, connection = event
    own = _settings(session)
    # Within the event's own set of characters; a database's name may have others, and is said before.
    run(session, f"USE {quoted_identifier(schema)}")
    statement = f"ALTER DEFINER={_account(definer)} EVENT {quoted_identifier(name)} {change}"
    if not _can_be_written(session, statement, client):
        log.warning(
            "the event %s.%s stays disabled: %s cannot write %s", schema, name, client, definer
        )
        return
    written = _written(session, statement, client)
    _set(
        session,
        {
            **{"sql_mode": mode, "time_zone": zone},
            **{"character_set_client": client, "collation_connection": connection},
        },
    )
    try:
        try:
            session.query(written)
        except MySQLError as error:
            if error.args[0] != _READ_ONLY:
                raise
            run(session, "ALTER DATABASE READ ONLY = 0")
            try:
                session.query(written)
            finally:
                run(session, "ALTER DATABASE READ ONLY = 1")
    finally:
        _set(session, own)


def _make(session: Session, one: Definition) -> None:
    settings, own = one["settings"], _settings(session)
    # The server keeps the statement as its maker's client wrote it.
    written = _written(session, one["statement"], settings["character_set_client"])
    _set(session, settings)
    try:
        session.query(written)
    finally:
        _set(session, own)


def _written(session: Session, statement: str, charset: str) -> bytes:
    """Return how a client with a set of characters writes a statement.

    The server knows more of them, and of their characters, than Python: "binary", and what is undefined
    in Windows' code pages.
    """
    converted = f"SELECT HEX(CONVERT(%s USING {quoted_identifier(charset)}))"
    ((written,),) = rows(session, converted, statement)
    return bytes.fromhex(str(written))


def _settings(session: Session) -> dict[str, Any]:
    ((mode, client, connection, zone),) = rows(session, _OWN)
    own = {"character_set_client": client, "collation_connection": connection}
    return own | {"sql_mode": mode, "time_zone": zone}


def _set(session: Session, settings: dict[str, Any]) -> None:
    values = (f"{name} = {quoted_literal(str(value))}" for name, value in settings.items())
    run(session, f"SET SESSION {', '.join(values)}")


def _can_be_written(session: Session, statement: str, charset: str) -> bool:
    """Return whether a set of characters has all of a statement."""
    converted = f"CONVERT(CONVERT(%s USING {quoted_identifier(charset)}) USING utf8mb4)"
    return rows(session, f"SELECT {converted} COLLATE utf8mb4_bin = %s", statement, statement) == [
        (1,)
    ]
