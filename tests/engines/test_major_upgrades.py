"""A server's files upgraded to a newer major version keep all that a tenant has, and add no rights."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from openrdb.engines import templates_of
from openrdb.engines.base import Upgrade
from openrdb.engines.postgresql import clusters, upgrade
from openrdb.host.bundles.cache import Bundles
from openrdb.system import accounts
from tests.support.postgresql_server import REPLICATION_SECRET, VERIFIER, Server
from tests.support.service import installed, port_of_server

EXTENSIONS = ("pg_stat_statements", "citext", "ltree", "pgcrypto")
OUTDATED = """
    SELECT name FROM pg_available_extensions
    WHERE installed_version IS NOT NULL AND installed_version <> default_version
"""


@pytest.fixture(params=[("PostgreSQL-14", "PostgreSQL-15"), ("PostgreSQL-14", "PostgreSQL-18")])
def servers(
    cache: Path, worker_id: str, request: pytest.FixtureRequest
) -> Iterator[tuple[Server, Server]]:
    """A running server with content, and what is to run its upgraded copy."""
    before, after = (installed(cache, name) for name in request.param)
    place, bundles = Path(f"/tmp/ordb-upgrade-{os.getpid()}"), Bundles(cache)
    port = port_of_server(worker_id, 10)
    place.mkdir(mode=0o755)
    for name in ("old", "new"):
        (place / name).mkdir(mode=0o755)
    try:
        with Server(place / "old", bundles.find(before), before, port) as old:
            yield old, Server(place / "new", bundles.find(after), after, port - 1)
    finally:
        shutil.rmtree(place)


def fill(server: Server) -> None:
    inside = server.inside
    for name in ("reader", "writer"):
        inside.create_user(name, VERIFIER, is_admin=False)
    inside.create_database('sh op"')
    inside.set_privilege('sh op"', "writer", "readwrite")
    inside.set_privilege("rdb", "reader", "readonly")
    with server.session() as session:
        for extension in EXTENSIONS:
            session.execute(f"CREATE EXTENSION {extension}")
        session.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) n")
        session.execute("ANALYZE kept")
        session.execute("CREATE ROLE made LOGIN")


def upgraded(old: Server, new: Server) -> None:
    """Start the upgraded copy of a server that was killed."""
    new.paths.data.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(old.paths.data), str(new.paths.data)], check=True)
    for directory in (new.paths.log, new.paths.sockets):
        accounts.ensure_directory(directory, new.spec.uid)
    empty, account = new.paths.root / "empty", accounts.template_account()
    templates_of(new.spec.engine).make_empty(new.bundle, empty, account)
    where = (new.paths.data, empty, new.spec.uid, new.paths.sockets)
    upgrade.run(Upgrade(old.bundle, new.bundle, *where, lock=None))
    accounts.ensure_passage(new.paths.configuration, new.spec.uid)
    for name in ("certificate", "key"):
        text = getattr(old.paths, name).read_text()
        accounts.write_file(getattr(new.paths, name), text, new.spec.uid)
    new._start()
    new.engine.ensure_replication_ready(REPLICATION_SECRET)
    upgrade.complete(new.node)


def test_an_upgraded_copy(servers: tuple[Server, Server]) -> None:
    old, new = servers
    fill(old)
    privileges = old.inside.privileges()
    assert old._process is not None
    old._process.kill()  # the copy recovers by itself
    old._process.wait(60)
    upgraded(old, new)
    try:
        check(new)
        assert new.inside.privileges() == [one for one in privileges if one.user != "made"]
        names = {path.name for path in new.paths.data.iterdir()}
        assert not [name for name in names if name.startswith(".") or "upgrade" in name]
    finally:
        new._stop()
    old._start()  # its files are what they were
    with old.session() as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def check(server: Server) -> None:
    """Data, statistics and extensions are there; users have what they had, administrators power over
    them, and nobody more."""
    with server.session() as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
        query = "SELECT count(*) FROM pg_stats WHERE tablename = 'kept' AND schemaname = 'public'"
        assert session.execute(query).fetchone() == (1,)
        assert session.execute("SHOW data_checksums").fetchone() == ("on",)
        assert session.execute(OUTDATED).fetchall() == []
        session.execute("ALTER ROLE made CREATEDB")
        session.execute("GRANT made TO admin")
        session.execute("DROP ROLE made")
        session.execute("CREATE TABLE later AS SELECT 7 AS n")
        for role in set(clusters.UNGRANTABLE) - (
            {"pg_signal_backend"} if server.major > 15 else set()
        ):
            with pytest.raises(psycopg.Error):
                session.execute(f"GRANT {role} TO admin")
    with server.session("reader") as session:
        assert session.execute("SELECT n FROM later").fetchall() == [(7,)]
    with server.session(database='sh op"') as session:
        session.execute("CREATE TABLE later AS SELECT 7 AS n")
    with server.session("writer", 'sh op"') as session:
        session.execute("INSERT INTO later VALUES (8)")
