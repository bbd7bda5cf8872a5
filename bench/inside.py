"""Users, databases and privileges: how soon each call is answered, and so in force.

One after the other on one connection, against the same by SQL over an open session of a server that
was brought up by hand; a call is a durable operation besides. With 5,000 tables of PostgreSQL: a level
set on all of them, against GRANT ON ALL TABLES, each first given and then taken back. A level of MySQL
is one grant on the database, however many tables that has.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

import psycopg
from tests.support.service import PASSWORD

from bench.by_hand import Session, execute
from bench.engines import Engine
from bench.report import Figure
from bench.served import BY_HAND_PORTS, Client, create_many, served, wait_quiet
from bench.setup import Setup

_TABLES = 5000
_MAKE_TABLES = f"""
    DO $$ BEGIN FOR number IN 1..{_TABLES} LOOP
        EXECUTE format('CREATE TABLE t%s (id int)', number);
        IF number % 500 = 0 THEN COMMIT; END IF;
    END LOOP; END $$
"""
_USER = {"name": "bob", "password": PASSWORD, "is_admin": False}
_OTHER = {"password": PASSWORD + "2"}
_LEVEL = {"database_name": "rdb", "user_name": "bob", "permission": "readwrite"}
_NONE = _LEVEL | {"permission": "none"}
_CALLS: list[tuple[str, str, str, object]] = [
    ("create a user", "POST", "users", _USER),
    ("change a password", "PATCH", "users/bob", _OTHER),
    ("list users", "GET", "users", None),
    ("set a privilege", "PUT", "privileges", _LEVEL),
    ("list privileges", "GET", "privileges", None),
    ("take a privilege", "PUT", "privileges", _NONE),
    ("delete a user", "DELETE", "users/bob", None),
    ("create a database", "POST", "databases", {"name": "shop"}),
    ("list databases", "GET", "databases", None),
    ("delete a database", "DELETE", "databases/shop", None),
]


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        yield from _single_calls(setup, engine)
    yield from _many_tables(setup)


def _single_calls(setup: Setup, engine: Engine) -> Iterator[Figure]:
    port = BY_HAND_PORTS[0]
    ours: dict[str, list[float]] = defaultdict(list)
    by_hand: dict[str, list[float]] = defaultdict(list)
    with served(setup, engine=engine.version) as service, engine.by_hand() as hand:
        hand.create(port)
        (created,) = create_many(service, 1, 1, engine.version)
        instance_id = created.instance["id"]
        wait_quiet(service)
        with closing(hand.session(port)) as session, closing(Client(service)) as client:
            for _ in range(setup.times(101, 11)):
                for name, method, path, body in _CALLS:
                    ours[name].append(client.at(instance_id, method, path, body).milliseconds)
                    by_hand[name].append(_time(session, engine.statements[name]))
    for name, times in ours.items():
        baseline = Figure(engine.statements[name], by_hand[name][1:])
        yield Figure(f"{engine.name}: {name}", times[1:], baseline=baseline, tail=True)


def _many_tables(setup: Setup) -> Iterator[Figure]:
    port = BY_HAND_PORTS[0]
    given, taken, listed = [], [], []
    granted, revoked = [], []
    with served(setup) as service, setup.postgresql.by_hand() as hand:
        hand.create(port)
        (created,) = create_many(service, 1, 1)
        instance_id = created.instance["id"]
        login = "host={} port={} user=admin dbname=rdb".format(*created.address)
        with psycopg.connect(login, password=PASSWORD, autocommit=True) as admin:
            admin.execute(_MAKE_TABLES)
        with closing(hand.session(port)) as session, closing(Client(service)) as client:
            execute(session, _MAKE_TABLES)
            wait_quiet(service)
            client.at(instance_id, "POST", "users", _USER)
            execute(session, "CREATE ROLE bob")
            for _ in range(setup.times(11, 3)):
                given.append(client.at(instance_id, "PUT", "privileges", _LEVEL).milliseconds)
                granted.append(_time(session, "GRANT ALL ON ALL TABLES IN SCHEMA public TO bob"))
                listed.append(client.at(instance_id, "GET", "privileges").milliseconds)
                taken.append(client.at(instance_id, "PUT", "privileges", _NONE).milliseconds)
                revoked.append(_time(session, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM bob"))
    grant = Figure("GRANT … ON ALL TABLES", granted)
    revoke = Figure("REVOKE … ON ALL TABLES", revoked)
    what = f"{_TABLES:,} tables"
    yield Figure(f"PostgreSQL: readwrite on {what}", given, baseline=grant, in_turn=True)
    yield Figure(f"PostgreSQL: none on {what}", taken, baseline=revoke, in_turn=True)
    yield Figure(f"PostgreSQL: list privileges with {what}", listed)


def _time(session: Session, statement: str) -> float:
    started = time.perf_counter()
    execute(session, statement)
    return (time.perf_counter() - started) * 1e3
