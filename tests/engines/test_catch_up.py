"""An upgraded copy catches up with its source, and no tenant's code gets a superuser's power by it."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from openrdb.engines import server_of_node, templates_of
from openrdb.engines.base import Server as EngineServer
from openrdb.engines.base import Upgrade
from openrdb.engines.postgresql import copying, followed, upgrade
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.system import accounts, files
from openrdb.system import copying as trees
from tests.support.place import new_place
from tests.support.postgresql_server import REPLICATION_SECRET, VERIFIER, Server
from tests.support.service import installed, port_of_server, wait_until

PAIRS = [("PostgreSQL-14", "PostgreSQL-18"), ("PostgreSQL-15", "PostgreSQL-16")]


@pytest.fixture(params=PAIRS)
def servers(
    cache: Path, worker_id: str, request: pytest.FixtureRequest
) -> Iterator[tuple[Server, Server]]:
    before, after = (installed(cache, name) for name in request.param)
    place, bundles = new_place(), Bundles(cache)
    port = port_of_server(worker_id, 10)
    place.mkdir(mode=0o755)
    for name in ("old", "new"):
        (place / name).mkdir(mode=0o755)
    old = Server(place / "old", bundles.find(before), before, port)
    old.spec = replace(old.spec, replication_secret=REPLICATION_SECRET)
    try:
        with old:
            yield old, Server(place / "new", bundles.find(after), after, port - 1)
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def source(cache: Path, worker_id: str) -> Iterator[Server]:
    name, place = installed(cache, "PostgreSQL-15"), new_place()
    place.mkdir(mode=0o755)
    server = Server(place, Bundles(cache).find(name), name, port_of_server(worker_id, 10) - 2)
    with server:
        yield server


class Copier:
    def __init__(self, source: Server, target: Server) -> None:
        self.source, self.target = source, target

    def copy_files(self, complete: Any) -> None:
        trees.copy_tree(self.source.paths.data, self.target.paths.data, self.target.spec.uid)
        complete(self.target.paths.data)
        files.give_tree(self.target.paths.data, self.target.spec.uid)


ATTACK = """
CREATE SCHEMA bad;
CREATE FUNCTION bad.seen(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE LOG 'SEEN % % % %', what, session_user, current_user,
        (SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname IN (session_user, current_user));
    BEGIN
        EXECUTE 'SET ROLE _rdb_superadmin';
        RAISE LOG 'SEEN escaped';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
        EXECUTE 'ALTER ROLE admin SUPERUSER';
        RAISE LOG 'SEEN escaped';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
        EXECUTE 'SET ROLE other';
        RAISE LOG 'SEEN escaped to other';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    RETURN true;
END $$;
CREATE DOMAIN bad.checked AS int CHECK (bad.seen('domain'));
CREATE TABLE bad.t (id int PRIMARY KEY, a int CHECK (bad.seen('check')), d bad.checked,
    g boolean GENERATED ALWAYS AS (bad.seen('generated')) STORED);
CREATE INDEX ON bad.t ((bad.seen('index'))) WHERE bad.seen('predicate');
CREATE FUNCTION bad.fired() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM bad.seen('trigger'); RETURN NEW; END $$;
CREATE TRIGGER t BEFORE INSERT ON bad.t FOR EACH ROW EXECUTE FUNCTION bad.fired();
CREATE CONSTRAINT TRIGGER c AFTER INSERT ON bad.t DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION bad.fired();
ALTER TABLE bad.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON bad.t USING (bad.seen('policy')) WITH CHECK (bad.seen('policy'));
"""


MOVE = "UPDATE sums SET v = v + CASE WHEN id = %s THEN 1 ELSE -1 END WHERE id = ANY (%s)"
QUERIES = (
    ("rdb", "SELECT n, a FROM written ORDER BY 1"),
    ("rdb", "SELECT id, a, d, g FROM bad.t ORDER BY 1"),
    ('sh op"', "SELECT id, v FROM sums ORDER BY 1"),
)
LEFT = (
    "SELECT subname FROM pg_subscription",
    "SELECT roname FROM pg_replication_origin",
    "SELECT rolname FROM pg_roles WHERE rolname = '_rdb_catch_up'",
    "SELECT 1 FROM pg_replication_slots",
)


class Write:
    """A client of the source that writes until it is told not to."""

    def __init__(self, server: Server) -> None:
        self._server, self.done = server, 0
        self._has_failed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.done > 10)
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None:  # nobody has ended its sessions
            self._has_failed.set()
        self._thread.join()

    def _run(self) -> None:
        with (
            contextlib.suppress(psycopg.Error),
            self._server.session() as session,
            self._server.session(database='sh op"') as other,
        ):
            while not self._has_failed.is_set():
                number = self.done + 1
                session.execute("INSERT INTO written (a) VALUES (1)")
                session.execute("INSERT INTO bad.t VALUES (%s, 1, 1)", [number])
                pair = [number % 50 + 1, (number + 7) % 50 + 1]
                other.execute(MOVE, [pair[0], pair])
                self.done = number


def reconfigure(server: Server, **changes: bool) -> EngineServer:
    """Let a server work as an upgrade has it."""
    engine = server_of_node(replace(server.node, **changes))
    for name, text in engine.configuration().items():
        accounts.write_file(server.paths.configuration / name, text, server.spec.uid)
    assert not engine.reload()
    return engine


def copied(old: Server, new: Server, query: str) -> str:
    """Start an upgraded copy of a server at work; return its position."""
    new.paths.data.parent.mkdir(exist_ok=True)
    copying.copy(old.node, Copier(old, new))
    for directory in (new.paths.log, new.paths.sockets):
        accounts.ensure_directory(directory, new.spec.uid)
    empty, account = new.paths.root / "empty", accounts.template_account()
    templates_of(new.spec.engine).make_empty(new.bundle, empty, account)
    where = (new.paths.data, empty, new.spec.uid, new.paths.sockets)
    position = upgrade.run(Upgrade(old.bundle, new.bundle, *where, lock=None, query=query))
    assert position is not None
    accounts.ensure_passage(new.paths.configuration, new.spec.uid)
    for name in ("certificate", "key"):
        text = getattr(old.paths, name).read_text()
        accounts.write_file(getattr(new.paths, name), text, new.spec.uid)
    new._start()
    new.engine.ensure_replication_ready(REPLICATION_SECRET)
    return position


LOOK_ALIKE = """
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.hashtextextended(text, int) RETURNS int8 LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'ALTER ROLE admin SUPERUSER'; RETURN 0; END $$
"""
"""Of what the superuser calls in each database of the copy."""


def fill(server: Server) -> None:
    server.inside.create_user("other", VERIFIER, is_admin=False)
    server.inside.create_database('sh op"')
    with server.session() as session:
        session.execute("CREATE TABLE written (n bigserial PRIMARY KEY, a int)")
        session.execute(ATTACK)
    with server.session(database='sh op"') as session:
        session.execute("CREATE TABLE sums (id int PRIMARY KEY, v int)")
        session.execute("INSERT INTO sums SELECT n, 100 FROM generate_series(1, 50) n")
        session.execute(LOOK_ALIKE)
    with server.superuser() as superuser:
        # As the owner of a database may.
        superuser.execute('ALTER DATABASE "sh op""" SET search_path = evil, pg_catalog, public')


def test_all_is_there_and_nobody_has_more_power(servers: tuple[Server, Server]) -> None:
    old, new = servers
    fill(old)
    assert old.engine.obstacle_to_following(new.spec.engine) is None
    marks = []

    def hold() -> None:
        marks.append(reconfigure(old, is_followed=True, is_held=True).end_writers())

    with Write(old):
        engine = reconfigure(old, is_followed=True)
        position = copied(old, new, engine.begin_followed())
        try:
            new.engine.catch_up(replace(old.node, is_followed=True), position, hold)
        except BaseException:
            hold()
            new._stop()
            raise
    try:
        for _ in range(2):
            new.engine.settle(old.node)
        assert engine.is_next_mark(marks[0], engine.end_writers())
        for database, query in QUERIES:
            with new.session(database=database) as copy, old.session(database=database) as before:
                assert copy.execute(query).fetchall() == before.execute(query).fetchall()
        with new.session() as session:
            query = (
                "INSERT INTO written (a) VALUES (1) RETURNING n = (SELECT max(n) + 1 FROM written)"
            )
            assert session.execute(query).fetchone() == (True,)
        with new.superuser() as session:
            for query in LEFT:
                assert session.execute(query).fetchall() == []
            admin = "SELECT rolsuper FROM pg_roles WHERE rolname = 'admin'"
            assert session.execute(admin).fetchone() == (False,)
        seen = seen_by_workers(new)
        assert {what for what, *_ in seen} >= {"check", "domain", "generated", "predicate"}
        assert {tuple(who) for _, *who in seen} == {(followed.PUBLICATION, "admin", "f")}
        assert "escaped" not in log_of(new)
    finally:
        new._stop()
    reconfigure(old)
    for _ in range(2):
        old.engine.end_followed()
    assert list(followed.kept(old.node)) == []
    with old.superuser("rdb") as session:
        assert session.execute("SELECT pubname FROM pg_publication").fetchall() == []


def log_of(server: Server) -> str:
    return "".join(path.read_text() for path in server.paths.log.glob("*.log"))


def seen_by_workers(server: Server) -> Counter[tuple[str, ...]]:
    """Return as whom code of tenants was run in sessions that are no client's."""
    found = re.findall(r"\] LOG:  SEEN (\w+) (\w+) (\w+) (\w)\n", log_of(server))
    return Counter(found)


def test_what_was_changed_otherwise_is_noticed(servers: tuple[Server, Server]) -> None:
    old, new = servers
    fill(old)
    with old.session() as session:
        engine = reconfigure(old, is_followed=True)
        position = copied(old, new, engine.begin_followed())
        try:
            session.execute("CREATE TEMP TABLE passing (a int); DROP TABLE passing")
            session.execute("ANALYZE")
            session.execute("VACUUM")
            source = replace(old.node, is_followed=True)
            new.engine.catch_up(source, position, lambda: None)
            session.execute("ALTER ROLE other PASSWORD 'another'")
            with pytest.raises(HostError, match="more than rows"):
                new.engine.catch_up(source, position, lambda: None)
        finally:
            new._stop()
        reconfigure(old)
        old.engine.end_followed()


def test_what_cannot_be_applied_is_noticed(servers: tuple[Server, Server]) -> None:
    """Also where a check tells the worker from a client."""
    old, new = servers
    fill(old)
    with old.session() as session:
        session.execute("CREATE TABLE own (a int PRIMARY KEY CHECK (session_user = 'admin'))")
        engine = reconfigure(old, is_followed=True)
        position = copied(old, new, engine.begin_followed())
        try:
            session.execute("INSERT INTO own VALUES (7)")
            with pytest.raises(HostError, match="cannot be applied"):
                new.engine.catch_up(replace(old.node, is_followed=True), position, lambda: None)
        finally:
            new._stop()
        reconfigure(old)
        old.engine.end_followed()


@pytest.mark.parametrize("servers", [PAIRS[1]], indirect=True)
def test_a_table_made_before_the_copy_is_noticed(servers: tuple[Server, Server]) -> None:
    """It is in the copy, and what is written to it later is not kept."""
    old, new = servers
    fill(old)
    with old.session() as session:
        engine = reconfigure(old, is_followed=True)
        query = engine.begin_followed()
        session.execute("CREATE TABLE late (a int PRIMARY KEY)")
        position = copied(old, new, query)
        try:
            session.execute("INSERT INTO late VALUES (7)")
            with pytest.raises(HostError, match=r"public\.late in database rdb was made meanwhile"):
                new.engine.catch_up(replace(old.node, is_followed=True), position, lambda: None)
        finally:
            new._stop()
        reconfigure(old)
        old.engine.end_followed()


@pytest.mark.parametrize("servers", [PAIRS[1]], indirect=True)
def test_what_was_committed_asynchronously_is_there(servers: tuple[Server, Server]) -> None:
    old, new = servers
    fill(old)
    with old.session() as session, old.superuser() as superuser:
        superuser.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        engine = reconfigure(old, is_followed=True)
        position = copied(old, new, engine.begin_followed())
        session.execute("SET synchronous_commit = off")

        def hold() -> None:
            session.execute("INSERT INTO written (a) VALUES (7)")

        try:
            new.engine.catch_up(replace(old.node, is_followed=True), position, hold)
            with new.session() as copy:
                assert copy.execute("SELECT a FROM written").fetchall() == [(7,)]
        finally:
            new._stop()
        reconfigure(old)
        old.engine.end_followed()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("CREATE TABLE bare (a int)", "public.bare in database rdb has neither"),
        ("CREATE UNLOGGED TABLE u (a int PRIMARY KEY)", "is unlogged"),
        ("CREATE MATERIALIZED VIEW m AS SELECT 1 AS a", "is a materialized view"),
        ("SELECT lo_create(77)", "77 in database rdb is a large object"),
        (
            "CREATE TABLE t (a int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
            "ALTER TABLE t FORCE ROW LEVEL SECURITY",
            "has row security",
        ),
        *(
            (
                "CREATE TABLE t (a int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger "
                "LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
                "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();"
                f"ALTER TABLE t ENABLE {which} TRIGGER g",
                "has a trigger",
            )
            for which in ("ALWAYS", "REPLICA")
        ),
        ("CREATE ROLE _rdb_catch_up", "a role named"),
    ],
)
def test_what_is_in_the_way(source: Server, statement: str, why: str) -> None:
    with source.session() as session:
        session.execute(statement.encode())
    try:
        assert why in (source.engine.obstacle_to_following("PostgreSQL-18") or "")
        assert "16 or newer" in (source.engine.obstacle_to_following("PostgreSQL-15") or "")
    finally:
        with source.superuser("rdb") as session:
            session.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
        source.tidy()
