"""Clients' sessions and running events: found, and ended. Clients come by TCP; ours, whose names a
tenant may also give to users, by the socket.

Inside a routine or trigger, and while an event runs, the server shows the definer's account in the
place of the session's: its name, and its host in the place of the client's address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines.mysql import reserved
from openrdb.engines.mysql.admin import definers
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import quoted_account, quoted_literal, rows, run

_Wanted = Callable[[str, str, object, object], bool]
"""Of a user, a host as it is shown, a current database, and a command."""

_WITH_TRANSACTION = "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx"
_WAITING_FOR_ROWS = f"{_WITH_TRANSACTION} WHERE trx_state = 'LOCK WAIT'"
_DUMP = "Binlog Dump"
_SYSTEM = "system user"
"""Of the threads that receive and apply; their hosts have no port."""
_FOR_LOCK = re.compile(r"Waiting for (.*\block\b|table flush)")
"""A thread's state, such as "Waiting for table metadata lock"."""
_NOTE = "ending"
_NOTED = (
    f"SELECT user_attributes->'$.metadata.{_NOTE}' FROM mysql.user WHERE user = %s AND host = %s"  # noqa: S608
)


@contextmanager
def ending(session: Session, users: Set[str] | None, database: str | None = None) -> Iterator[None]:
    """Take power within; then end the sessions of those who had it, None: of everybody.

    Who that is is noted in the server before, as nothing tells it afterwards: a change that breaks off
    in between and is made again would find nothing to take, and end no session. `finish` does.
    """
    note: dict[str, object] = {}
    if users is not None:
        note["users"] = sorted(users)
    if database is not None:
        note["database"] = database
    _write_note(session, note)
    yield
    finish(session)


def finish(session: Session) -> None:
    """End the sessions that an earlier change should have ended; a no-op unless it broke off."""
    ((found,),) = rows(session, _NOTED, *reserved.SUPERUSER)
    if found is None:
        return
    note = json.loads(str(found))
    if "users" in note:
        end(session, set(note["users"]), note.get("database"))
    else:
        end_all(session)
    _write_note(session, None)


def _write_note(session: Session, note: object) -> None:
    """Write the note to where only a superuser writes: an attribute of our account. None removes it.

    The server merges attributes, at any depth, and removes what is null.
    """
    attributes = quoted_literal(json.dumps({_NOTE: note}))
    run(session, f"ALTER USER {quoted_account(reserved.SUPERUSER)} ATTRIBUTE {attributes}")


def end(session: Session, users: Set[str], database: str | None = None) -> None:
    """End all sessions and events of some users, in a current database (None: in any).

    Whatever is inside a definer's routine ends as well, whoever is shown: nothing tells whose session
    it is, or whose other routine it comes back to.
    """
    inside = definers.everyone(session)

    def is_wanted(user: str, host: str, current: object, command: object) -> bool:
        if user in users and database in (None, current):
            return True
        shown = {f"{user}@{host}", f"{user}@{host.rpartition(':')[0]}"}
        return command != "Sleep" and not shown.isdisjoint(inside)

    _end(session, is_wanted)


def end_within(session: Session, database: str) -> None:
    """End all sessions and events in a current database, whoever's they are."""
    _end(session, lambda _, __, current, ___: current == database)


def end_all(session: Session) -> None:
    """End all but those by which others receive the binary log, which no user can."""
    _end(session, lambda _, __, ___, command: not str(command).startswith(_DUMP))


def end_clients(session: Session) -> None:
    """End all clients' sessions, those of followers apart; what a follower itself does goes on."""
    for number, command in _clients(session):
        if not command.startswith(_DUMP):
            kill(session, number)


def is_replica_held(session: Session) -> bool:
    """Return whether what a follower applies waits for a lock. Who holds it, nothing tells: the
    performance schema would, which is off.

    Of rows the server answers the same again for as long as it is asked more often than ten times a
    second.
    """
    waiting = {number for (number,) in rows(session, _WAITING_FOR_ROWS)}
    return any(
        user == _SYSTEM and (number in waiting or _FOR_LOCK.match(str(state)) is not None)
        for number, user, _, _, _, _, state, *_ in rows(session, "SHOW PROCESSLIST")
    )


def end_idle(session: Session) -> None:
    """End the sessions that do nothing, and have no transaction open."""
    busy = {number for (number,) in rows(session, _WITH_TRANSACTION)}
    for number, command in _clients(session):
        if command == "Sleep" and number not in busy:
            kill(session, number)


def _clients(session: Session) -> Iterator[tuple[int, str]]:
    """Yield the number and the command of each client's session."""
    for number, _, shown, _, command, *_ in rows(session, "SHOW PROCESSLIST"):
        if ":" in str(shown):
            yield int(str(number)), str(command)


def _end(session: Session, is_wanted: _Wanted) -> None:
    for number, user, shown, current, command, *_ in rows(session, "SHOW PROCESSLIST"):
        host = str(shown)
        is_event = command == "Connect"
        if (is_event or ":" in host) and is_wanted(str(user), host, current, command):
            kill(session, int(str(number)))


def kill(session: Session, number: int) -> None:
    """End a session; a no-op if it has ended by itself."""
    try:
        run(session, f"KILL {number}")
    except MySQLError as error:
        if error.args[0] != ER.NO_SUCH_THREAD:
            raise
