"""State databases of both kinds, and the API on one of them with nothing behind it.

`state_url` runs a test on SQLite and on a real PostgreSQL out of the bundles. `Api` serves the whole
application in this process, but never begins an operation: what a request recorded stays as it is,
so that every status can be looked at for as long as a test likes.

Test modules name this one in `pytest_plugins`, after they imported from it: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import psycopg
import pytest
import requests
import uvicorn
from psycopg import sql
from scaleway import Client
from sqlalchemy import make_url

from openrdb.api.app import create_app
from openrdb.api.common import Backend
from openrdb.catalog.engines import engine_versions
from openrdb.catalog.offers import Offers
from openrdb.config import Settings
from openrdb.host.balancer import choose
from openrdb.host.bundles.cache import Bundles
from openrdb.host.local import LocalHost
from openrdb.observe.changes import Changes
from openrdb.service import open_stores
from openrdb.state import access
from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.master_key import open_secrets
from openrdb.state.models import Instance, Project
from openrdb.state.models.hosts import LOCAL_HOST
from openrdb.state.scope import Principal
from openrdb.system.layout import Layout
from tests.support.place import new_place
from tests.support.service import unprivileged, wait_until

REGION = "fr-par"


# -- a real PostgreSQL ------------------------------------------------------------------------------


class PostgreSQL:
    """A server of its own on a Unix socket; databases on it are a test's each."""

    def __init__(self, cache: Path) -> None:
        self._bundle = Bundles(cache).find("PostgreSQL-17")
        self._home = new_place("-state")
        self._server: subprocess.Popen[bytes] | None = None
        self._migrated = False

    def __enter__(self) -> Self:
        self._home.mkdir(mode=0o755)
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(self._home, account.pw_uid, account.pw_gid)
        data = self._home / "data"
        options = ["--auth=trust", "-U", "state", "--encoding=UTF8", "--locale=C.UTF-8"]
        self._run("initdb", "-D", str(data), "--no-sync", *options).wait(120)
        quick = [f"-c{option}=off" for option in ("fsync", "full_page_writes")]
        quick += ["-cmin_wal_size=32MB", "-cmax_wal_size=64MB"]  # which may be memory
        place = ["-clisten_addresses=", f"-cunix_socket_directories={self._home}"]
        self._server = self._run("postgres", "-D", str(data), *place, *quick)
        wait_until(self._accepts)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(30)
        shutil.rmtree(self._home)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [*unprivileged(), str(self._bundle.program(program)), *arguments]
        environment = {"PATH": os.environ["PATH"]} | self._bundle.environment
        with (self._home / f"{program}.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, cwd="/", stdout=log, stderr=log)

    def _accepts(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self._home / "postgres.log").read_text()
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection[Any]:
        place = {"host": str(self._home), "user": "state", "dbname": "postgres"}
        return psycopg.connect(**place, autocommit=True)

    def new_database(self) -> str:
        """The SQLAlchemy URL of a migrated, empty database: a copy of the first one."""
        if not self._migrated:
            self._create("state", "template0")
            first = Database(self._url("state"))
            first.migrate()
            first.close()
            self._migrated = True
        name = f"state_{os.urandom(6).hex()}"
        self._create(name, "state")
        return self._url(name)

    def drop(self, url: str) -> None:
        """Remove a database, of which a run makes hundreds."""
        name = make_url(url).database
        assert name is not None
        with self._connect() as connection:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))

    def _create(self, name: str, template: str) -> None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with self._connect() as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://state@/{name}?host={self._home}"


@pytest.fixture(scope="session")
def state_postgresql(cache: Path) -> Iterator[PostgreSQL]:
    with PostgreSQL(cache) as server:
        yield server


@pytest.fixture(scope="session")
def state_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a migrated, empty database, for copies."""
    path = tmp_path_factory.mktemp("state") / "state.sqlite"
    first = Database(f"sqlite:///{path}")
    first.migrate()
    first.close()  # the last connection: all is in this file
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty state database, of each kind."""
    if request.param == "sqlite":
        copy = tmp_path / "state.sqlite"
        shutil.copyfile(request.getfixturevalue("state_sqlite"), copy)
        yield f"sqlite:///{copy}"
        return
    server: PostgreSQL = request.getfixturevalue("state_postgresql")
    url = server.new_database()
    yield url
    server.drop(url)


@pytest.fixture
def database(state_url: str) -> Iterator[Database]:
    """A migrated state."""
    opened = Database(state_url)
    opened.migrate()
    yield opened
    opened.close()


# -- what is in it ----------------------------------------------------------------------------------


def first_key(database: Database) -> NewKey:
    with database.write() as session:
        key = access.ensure_first_key(session)
    assert key is not None
    return key


def another_key(database: Database, organization_id: UUID | None = None) -> NewKey:
    """The key of a project of its own: in that organization, or in one of its own too."""
    with database.write() as session:
        identifier = uuid4()
        project = Project(
            id=identifier, organization_id=organization_id or identifier, name="another"
        )
        session.add(project)
        session.flush()
        return access.create_key(session, project, whole_organization=False)


def principal(database: Database, key: NewKey) -> Principal:
    with database.read() as session:
        return access.authenticate(session, key.secret_key)


def row(key: NewKey, **values: Any) -> Instance:
    """An instance's row that is no more than listed."""
    ordinary: dict[str, Any] = {
        "id": uuid4(),
        "region": REGION,
        "organization_id": key.organization_id,
        "project_id": key.project_id,
        "name": "test",
        "status": "ready",
        "engine": "PostgreSQL-17",
        "node_type": "db-dev-s",
        "volume_type": "lssd",
        "volume_class": "lssd",
        "volume_size": 5_000_000_000,
        "is_ha_cluster": False,
        "high_availability_mode": "unknown_high_availability_mode",
        "encryption": False,
        "settings": {},
        "init_settings": {},
        "backup_disabled": True,
        "backup_same_region": False,
    }
    return Instance(**(ordinary | values))


# -- the API on it ----------------------------------------------------------------------------------


class Api:
    """The application served by this process; operations are recorded and never begun.

    `cache` is one that all accounts reach: from a private one, root's host would copy every bundle.
    """

    def __init__(self, database: Database, data_dir: Path, cache: Path, **settings: Any) -> None:
        self.database = database
        self.key = first_key(database)
        self.started: list[UUID] = []
        installed = {v.name: f"{v.version}.9" for v in engine_versions() if not v.disabled}
        configured = Settings(data_dir=data_dir, cache=cache, hold=0, **settings)
        offers = Offers(installed, configured.allow_disabled_engines)
        choice = choose("haproxy", "127.0.0.1")
        self._host = host = LocalHost(
            data_dir,
            configured.cache,
            build="",
            spares=0,
            aliases={},
            choice=choice,
            pools=configured.pool_directories,
        )
        secrets = open_secrets(database, Layout(data_dir).master_key)
        begin, hosts = self.started.append, {LOCAL_HOST: host}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.stores = open_stores(configured, secrets, self.url)
        backend = Backend(
            configured, database, Changes(), offers, begin, begin, hosts, secrets, self.stores
        )
        config = uvicorn.Config(create_app(backend), log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        self._host.close()  # its descriptors: FastAPI never forgets an application

    def request(
        self, method: str, path: str, key: NewKey | None = None, **options: Any
    ) -> requests.Response:
        """As `Service.request`, with the first key or another one."""
        if not path.startswith("//"):
            path = f"/rdb/v1/regions/{REGION}{path}"
        headers = {"X-Auth-Token": (key or self.key).secret_key, **options.pop("headers", {})}
        url = self.url + path.replace("//", "/")
        return requests.request(method, url, headers=headers, timeout=60, **options)

    @property
    def secret_key(self) -> str:
        return self.key.secret_key

    def client(self, key: NewKey | None = None) -> Client:
        """What the official SDK's APIs take."""
        used = key or self.key
        return Client(
            access_key=used.access_key,
            secret_key=used.secret_key,
            default_project_id=str(used.project_id),
            default_organization_id=str(used.organization_id),
            default_region=REGION,
            api_url=self.url,
        )


@pytest.fixture
def api(database: Database, tmp_path: Path, cache: Path) -> Iterator[Api]:
    """The API on a state of each kind."""
    with Api(database, tmp_path, cache=cache) as served:
        yield served
