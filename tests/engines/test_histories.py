"""The clients of histories, on real servers: what they remember is what there is."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.support import mysql_server
from tests.support.histories import FAILED, Appender, Clients, Connect, Writer
from tests.support.isolation import anomalies
from tests.support.mysql_server import UNCHECKED
from tests.support.place import new_place
from tests.support.postgresql_server import Server
from tests.support.service import PASSWORD, port_of_server, wait_until
from tests.support.tenants import Login

_ENOUGH = 300
"""Transactions in which something is wrong if it ever is."""


@dataclass
class Place:
    """A database of a server."""

    engine: str
    connect: Connect
    cut: Callable[[], None]
    """Ends somebody's session."""
    lock: tuple[str, str]
    """What keeps all from writing, and what lets them."""
    is_running: Callable[[], bool]


@pytest.fixture(scope="module")
def places(cache: Path, worker_id: str) -> Iterator[Callable[[str], Place]]:
    """A server of each version that is asked for, the same for all tests here."""
    with contextlib.ExitStack() as running:
        made: dict[str, Place] = {}

        def place_of(engine: str) -> Place:
            if engine not in made or not made[engine].is_running():
                made[engine] = new(engine)
            return made[engine]

        def new(engine: str) -> Place:
            bundle = Bundles(cache).find(engine)
            if engine.startswith("MySQL"):
                return of_mysql(running.enter_context(mysql_server.serving(bundle)))
            place = new_place()
            place.mkdir(mode=0o755)
            port = port_of_server(worker_id, 45)
            return of_postgresql(running.enter_context(Server(place, bundle, engine, port)))

        yield place_of


@pytest.fixture
def place(places: Callable[[str], Place], newest: str) -> Iterator[Place]:
    place = places(newest)
    yield place
    with place.connect() as session:
        session.execute("DROP TABLE IF EXISTS written, lists")


def of_postgresql(server: Server) -> Place:
    server.inside.create_database("rdb")

    def cut() -> None:
        sessions = "SELECT pid FROM pg_stat_activity WHERE usename = 'admin'"
        with server.superuser() as session:
            one = f"{sessions} ORDER BY random() LIMIT 1"
            session.execute(f"SELECT pg_terminate_backend(({one}))".encode())

    lock = ("BEGIN; LOCK TABLE written IN EXCLUSIVE MODE", "COMMIT")
    return Place(server.spec.engine, server.session, cut, lock, lambda: server.is_running)


def of_mysql(server: mysql_server.Server) -> Place:
    spec, options = server.spec, {"ssl_disabled": False, "ssl": UNCHECKED}
    login = Login(spec.engine, spec.address, spec.port, "admin", PASSWORD, None, "rdb")
    server.administration.create_database("rdb")

    def cut() -> None:
        with server.superuser() as session, session.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'admin'")
            found = [number for (number,) in cursor.fetchall()]
            with contextlib.suppress(*FAILED):  # it has ended
                cursor.execute("KILL %s", [random.choice(found)])  # noqa: S311

    lock = ("LOCK TABLES written READ", "UNLOCK TABLES")

    def is_running() -> bool:
        return server.process.poll() is None

    return Place(spec.engine, lambda: login.connect(**options), cut, lock, is_running)


@contextlib.contextmanager
def cutting(place: Place) -> Iterator[None]:
    """Somebody's session is ended all the time."""
    ending = threading.Event()

    def run() -> None:
        while not ending.wait(0.02):
            place.cut()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def failures(clients: Clients) -> int:
    return sum(clients.errors.values())


def test_writes_that_were_acknowledged_are_there(place: Place) -> None:
    with place.connect() as session:
        session.execute(Writer.TABLE)
    writer = Writer(place.connect)
    with writer, cutting(place):
        wait_until(lambda: writer.acknowledged > _ENOUGH and failures(writer) > 10)
    with place.connect() as session:
        rows = writer.read(session)
    assert writer.check(rows)
    assert writer.acknowledged <= len(rows)
    one = next(iter(writer.keys("acknowledged")))
    assert writer.check([row for row in rows if row != one]).missing == [one]
    assert writer.check([*rows, -7]).unexpected == [-7]
    assert writer.check([*rows, one]).repeated == [one]


def test_a_pause_is_a_gap(place: Place) -> None:
    with place.connect() as session:
        session.execute(Writer.TABLE)
        writer = Writer(place.connect, threads=2)
        with writer:
            wait_until(lambda: writer.acknowledged > 20)
            session.execute(place.lock[0])
            locked = time.monotonic()
            time.sleep(0.5)
            session.execute(place.lock[1])
            before = writer.acknowledged
            wait_until(lambda: writer.acknowledged > before + 20)
        assert writer.largest_gap() > 0.4
        assert writer.largest_gap(until=locked) < writer.largest_gap()
        assert writer.check(writer.read(session))


def test_serializable_transactions_are(place: Place) -> None:
    appender = Appender(place.connect, place.engine)
    with place.connect() as session:
        appender.prepare(session)
    with appender, cutting(place):
        wait_until(lambda: appender.committed > _ENOUGH and failures(appender) > 10)
    with place.connect() as session:
        final = appender.read(session)
    assert appender.check(final) == []
    assert any(final.values())


def test_others_are_not(place: Place) -> None:
    with place.connect() as session:
        appender = Appender(place.connect, place.engine, "READ COMMITTED", lists=20)
        appender.prepare(session)
        with appender:
            wait_until(lambda: appender.committed > 5 * _ENOUGH)
        found = anomalies(appender.history, appender.read(session))
    names = {one.name for one in found}
    assert names
    assert not names & {"lost", "fork", "duplicate", "unwritten", "G1a", "G1b", "G0", "G1c"}
