"""Users, databases and privileges: how soon each call is answered, and so in force.

One after the other on one connection, against the same by SQL over an open session of a server that
was brought up by hand; a call is a durable operation besides. With 5,000 tables: a level set on all
of them, against GRANT ON ALL TABLES, each first given and then taken back.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

import psycopg
from tests.service import PASSWORD

from bench.by_hand import ByHand
from bench.report import Figure
from bench.served import BY_HAND_PORTS, Client, served, wait_quiet
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
_CALLS: list[tuple[str, str, str, object, str]] = [
    ("create a user", "POST", "users", _USER, "CREATE ROLE bob LOGIN PASSWORD 'x'"),
    ("change a password", "PATCH", "users/bob", _OTHER, "ALTER ROLE bob PASSWORD 'y'"),
    ("list users", "GET", "users", None, "SELECT rolname FROM pg_roles"),
    ("set a privilege", "PUT", "privileges", _LEVEL, "GRANT ALL ON DATABASE postgres TO bob"),
    ("list privileges", "GET", "privileges", None, "SELECT relname, relacl FROM pg_class"),
    ("take a privilege", "PUT", "privileges", _NONE, "REVOKE ALL ON DATABASE postgres FROM bob"),
    ("delete a user", "DELETE", "users/bob", None, "DROP ROLE bob"),
    ("create a database", "POST", "databases", {"name": "shop"}, "CREATE DATABASE shop"),
    ("list databases", "GET", "databases", None, "SELECT pg_database_size(oid) FROM pg_database"),
    ("delete a database", "DELETE", "databases/shop", None, "DROP DATABASE shop WITH (FORCE)"),
]


def run(setup: Setup) -> Iterator[Figure]:
    port = BY_HAND_PORTS[0]
    with served(setup) as service, ByHand(setup.bundle) as hand:
        hand.create(port)
        with closing(Client(service)) as client:
            created = client.create()
        wait_quiet(service)
        with hand.session(port) as session:
            session.autocommit = True
            with closing(Client(service)) as client:
                yield from _single_calls(setup, client, created.instance["id"], session)
            session.execute(_MAKE_TABLES)
            with psycopg.connect(
                host=created.address[0],
                port=created.address[1],
                user="admin",
                password=PASSWORD,
                dbname="rdb",
                autocommit=True,
            ) as admin:
                admin.execute(_MAKE_TABLES)
            wait_quiet(service)
            with closing(Client(service)) as client:
                yield from _many_tables(setup, client, created.instance["id"], session)


def _single_calls(
    setup: Setup, client: Client, instance_id: str, session: psycopg.Connection
) -> Iterator[Figure]:
    ours: dict[str, list[float]] = defaultdict(list)
    by_hand: dict[str, list[float]] = defaultdict(list)
    for _ in range(setup.times(101, 11)):
        for name, method, path, body, statement in _CALLS:
            ours[name].append(client.at(instance_id, method, path, body).milliseconds)
            by_hand[name].append(_time(session, statement))
    for name, *_, statement in _CALLS:
        baseline = Figure(statement, by_hand[name][1:])
        yield Figure(name, ours[name][1:], baseline=baseline, tail=True)


def _many_tables(
    setup: Setup, client: Client, instance_id: str, session: psycopg.Connection
) -> Iterator[Figure]:
    given, taken, listed = [], [], []
    granted, revoked = [], []
    client.at(instance_id, "POST", "users", _USER)
    session.execute("CREATE ROLE bob")
    for _ in range(setup.times(11, 3)):
        given.append(client.at(instance_id, "PUT", "privileges", _LEVEL).milliseconds)
        granted.append(_time(session, "GRANT ALL ON ALL TABLES IN SCHEMA public TO bob"))
        listed.append(client.at(instance_id, "GET", "privileges").milliseconds)
        taken.append(client.at(instance_id, "PUT", "privileges", _NONE).milliseconds)
        revoked.append(_time(session, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM bob"))
    grant = Figure("GRANT … ON ALL TABLES", granted)
    revoke = Figure("REVOKE … ON ALL TABLES", revoked)
    yield Figure(f"readwrite on {_TABLES:,} tables", given, baseline=grant, in_turn=True)
    yield Figure(f"none on {_TABLES:,} tables", taken, baseline=revoke, in_turn=True)
    yield Figure(f"list privileges with {_TABLES:,} tables", listed)


def _time(session: psycopg.Connection, statement: str) -> float:
    started = time.perf_counter()
    cursor = session.execute(statement)
    if cursor.description:
        cursor.fetchall()
    return (time.perf_counter() - started) * 1e3
