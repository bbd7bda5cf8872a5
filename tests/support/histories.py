"""Clients that write all the time whatever happens to an instance, and remember what was acknowledged.

An outcome is `indeterminate` where the connection was lost before the answer: the write may be there or
not. It is `refused` only where the server said so, or was never asked.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self

import psycopg
import pymysql

from tests.support.isolation import Anomaly, Append, Read, Transaction, Values, anomalies
from tests.support.tenants import Session

Connect = Callable[[], Session]
"""How a client comes in; with a time-out, as it may reach something frozen."""

FAILED = (psycopg.Error, pymysql.err.MySQLError, OSError)
"""What connecting and statements raise."""

_ENDED = frozenset((1053, 1180, 1317, 1598, 1927))
"""Errors of MySQL at a commit while the server shuts down or its disk fails: the commit may be on the
server, or on its standby, nevertheless."""
_CLIENTS_OWN = range(2000, 3000)
"""Codes of MySQL's clients: the server has said nothing."""
_PAUSE = 0.005
"""Seconds after a refused connection."""
_HANGING = 90.0

Outcome = Literal["acknowledged", "indeterminate", "refused"]


def was_refused(error: BaseException) -> bool:
    """Return whether the server itself says, by an error, that what it was asked was not done."""
    if isinstance(error, psycopg.Error):
        # Not what ends the session: it may do so after it has committed.
        return error.diag.severity_nonlocalized == "ERROR"
    code = error.args[0] if isinstance(error, pymysql.err.MySQLError) and error.args else None
    return isinstance(code, int) and code > 0 and code not in _CLIENTS_OWN and code not in _ENDED


class Clients:
    """Threads that each do something by a session of its own, opened again at once when it is lost."""

    def __init__(self, connect: Connect, threads: int = 4, *, pause: float = 0.0) -> None:
        """
        Args:
            pause: seconds after each step; without one, a few threads take a processor.
        """
        self._connect = connect
        self._pause = pause
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(threads)
        ]
        self.errors = Counter[str]()
        """What sessions and statements failed with."""
        self.failed: list[BaseException] = []
        """What is the test's own mistake."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all clients; AssertionError if one hangs."""
        self._ending.set()
        deadline = time.monotonic() + _HANGING
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"
        assert not self.failed, self.failed

    def begin(self, session: Session) -> None:
        """Do what each session begins with."""

    def step(self, session: Session, number: int) -> bool:
        """Do something once; return whether the session is of use still."""
        raise NotImplementedError

    def note(self, error: BaseException) -> None:
        self.errors[f"{type(error).__name__}: {error}".splitlines()[0][:120]] += 1

    def _run(self, number: int) -> None:
        try:
            while not self._ending.is_set():
                try:
                    with self._connect() as session:
                        self.begin(session)
                        while not self._ending.wait(self._pause) and self.step(session, number):
                            pass
                except FAILED as error:
                    self.note(error)
                    self._ending.wait(_PAUSE)
        except BaseException as error:
            self.failed.append(error)


# -- one row a write ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    key: int
    outcome: Outcome
    began: float
    """`time.monotonic`, as `ended`."""
    ended: float


@dataclass(frozen=True)
class Verdict:
    """What is in the table, and should not be, or the reverse."""

    missing: list[int]
    """Acknowledged, and not there."""
    unexpected: list[int]
    """There, though refused or never written."""
    repeated: list[int]

    def __bool__(self) -> bool:
        """Return whether all is as it should be."""
        return not (self.missing or self.unexpected or self.repeated)


class Writer(Clients):
    """Inserts unique keys into a table, each in a transaction of its own."""

    TABLE = "CREATE TABLE written (k bigint PRIMARY KEY)"
    ROWS = "SELECT k FROM written"

    def __init__(self, connect: Connect, threads: int = 4, *, pause: float = 0.0) -> None:
        super().__init__(connect, threads, pause=pause)
        self._next = [1 + number * 10**12 for number in range(threads)]
        self._acknowledged = [0] * threads
        self.attempts: list[Attempt] = []
        self.began = self.ended = 0.0

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        return super().__enter__()

    def __exit__(self, *given: object) -> None:
        super().__exit__(*given)
        self.ended = time.monotonic()

    def step(self, session: Session, number: int) -> bool:
        key, began = self._next[number], time.monotonic()
        self._next[number] += 1
        outcome: Outcome = "acknowledged"
        try:
            session.execute("INSERT INTO written VALUES (%s)", [key])
        except FAILED as error:
            self.note(error)
            outcome = "refused" if was_refused(error) else "indeterminate"
        self.attempts.append(Attempt(key, outcome, began, time.monotonic()))
        self._acknowledged[number] += outcome == "acknowledged"
        return outcome == "acknowledged"

    def keys(self, outcome: Outcome) -> set[int]:
        return {one.key for one in list(self.attempts) if one.outcome == outcome}

    @property
    def acknowledged(self) -> int:
        """How many were acknowledged so far."""
        return sum(self._acknowledged)

    def largest_gap(self, since: float | None = None, until: float | None = None) -> float:
        """Return the most seconds without any acknowledgement between two times; by default from the
        first acknowledgement to the end."""
        times = sorted(one.ended for one in self.attempts if one.outcome == "acknowledged")
        first = since if since is not None else times[0] if times else self.began
        last = until if until is not None else self.ended or time.monotonic()
        marks = [first, *(at for at in times if first < at < last), last]
        return max(after - before for before, after in pairwise(marks))

    def check(self, rows: Iterable[int]) -> Verdict:
        """Return what is wrong with the rows, read when all clients had ended."""
        there = Counter(rows)
        possible = self.keys("acknowledged") | self.keys("indeterminate")
        return Verdict(
            missing=sorted(self.keys("acknowledged") - there.keys()),
            unexpected=sorted(there.keys() - possible),
            repeated=sorted(key for key, times in there.items() if times > 1),
        )

    def read(self, session: Session) -> list[int]:
        return [int(key) for (key,) in session.execute(self.ROWS).fetchall()]


# -- lists ----------------------------------------------------------------------------------------

ALLOWED = {"PostgreSQL": frozenset({"G2-item in real time"}), "MySQL": frozenset[str]()}
"""What transactions at SERIALIZABLE may show. PostgreSQL's are as if one after another, but not always
in the order in which their clients heard of them; MySQL's are, as they lock what they read."""

Level = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@dataclass
class _Underway:
    operations: list[Append | Read] = field(default_factory=list)
    commits: bool = False
    """Whether the server has been asked to."""


class Appender(Clients):
    """Appends unique values to lists and reads lists, some of both in each transaction."""

    TABLE = "CREATE TABLE lists (k int PRIMARY KEY, v text NOT NULL)"

    def __init__(
        self,
        connect: Connect,
        engine: str,
        level: Level = "SERIALIZABLE",
        threads: int = 6,
        *,
        lists: int = 2000,
        at_once: int = 5,
        appends: int = 60,
        pause: float = 0.0,
    ) -> None:
        """
        Args:
            engine: by its name or a version's.
            lists: how many there are; the last are used for ever.
            at_once: how many of them are used at a time.
            appends: to each, before it makes room for another.
        """
        super().__init__(connect, threads, pause=pause)
        self._engine = engine.partition("-")[0]
        self._level = level
        self._lists, self._at_once, self._appends = lists, at_once, appends
        self._values = [0] * threads
        self._committed = [0] * threads
        self._random = [random.Random(number) for number in range(threads)]  # noqa: S311
        self.history: list[Transaction] = []

    def prepare(self, session: Session) -> None:
        """Make the table."""
        session.execute(self.TABLE)
        rows = ", ".join(f"({number}, '')" for number in range(self._lists))
        session.execute(f"INSERT INTO lists VALUES {rows}")

    def begin(self, session: Session) -> None:
        words = "CHARACTERISTICS AS TRANSACTION" if self._engine == "PostgreSQL" else "TRANSACTION"
        session.execute(f"SET SESSION {words} ISOLATION LEVEL {self._level}")

    def step(self, session: Session, number: int) -> bool:
        underway, began = _Underway(), time.monotonic()
        try:
            session.execute("BEGIN")
            for key in self._keys(number):
                self._do(session, number, key, underway.operations)
            underway.commits = True
            session.execute("COMMIT")
        except FAILED as error:
            self.note(error)
            is_certain = not underway.commits or was_refused(error)
            self._record(underway, "aborted" if is_certain else "unknown", began)
            if not was_refused(error):
                return False
            session.execute("ROLLBACK")
        else:
            self._record(underway, "committed", began)
            self._committed[number] += 1
        return True

    def _keys(self, number: int) -> list[int]:
        """Return the lists of a transaction, in order: a deadlock costs a second in PostgreSQL."""
        source = self._random[number]
        first = min(sum(self._values) // self._appends, self._lists - self._at_once)
        many = source.randint(1, 4)
        return sorted(first + source.randrange(self._at_once) for _ in range(many))

    def _do(self, session: Session, number: int, key: int, done: list[Append | Read]) -> None:
        if self._random[number].random() < 0.5:
            row = session.execute("SELECT v FROM lists WHERE k = %s", [key]).fetchone()
            done.append(Read(key, _values(row)))
            return
        self._values[number] += 1
        value = self._values[number] * len(self._threads) + number
        done.append(Append(key, value))  # even if it fails: nobody may see it then
        session.execute("UPDATE lists SET v = CONCAT(v, %s, ',') WHERE k = %s", [value, key])

    def _record(
        self, underway: _Underway, status: Literal["committed", "aborted", "unknown"], began: float
    ) -> None:
        done = Transaction(tuple(underway.operations), status, began, time.monotonic())
        self.history.append(done)

    @property
    def committed(self) -> int:
        return sum(self._committed)

    def read(self, session: Session) -> dict[int, Values]:
        rows: Sequence[tuple[Any, ...]] = session.execute("SELECT k, v FROM lists").fetchall()
        return {key: _values((value,)) for key, value in rows}

    def check(self, final: dict[int, Values]) -> list[Anomaly]:
        """Return what SERIALIZABLE does not allow, of the lists read when all clients had ended."""
        allowed = ALLOWED[self._engine]
        return [one for one in anomalies(self.history, final) if one.name not in allowed]


def _values(row: tuple[Any, ...] | None) -> Values:
    assert row is not None
    return tuple(int(value) for value in row[0].split(",") if value)
