"""A bundle's template, made once for the tests of a version; servers for all tests of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrdb.engines import templates_of
from openrdb.engines.mysql import reserved
from openrdb.engines.mysql.sql import quoted_account
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from tests.support import mysql_server
from tests.support.place import new_place
from tests.support.postgresql_pair import Members
from tests.support.postgresql_server import Server
from tests.support.service import port_of_server

SECRET = "a-secret-of-the-tests"


@pytest.fixture
def bundle(cache: Path, postgresql: str) -> Bundle:
    return Bundles(cache).find(postgresql)


@pytest.fixture
def template(bundle: Bundle, postgresql: str, short_tmp: Path) -> Iterator[Path]:
    data = short_tmp / "template"
    templates_of(postgresql).make(bundle, data, accounts.template_account(), SECRET, {})
    yield data
    shutil.rmtree(data)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, Server]]:
    running: dict[str, Server] = {}
    yield running
    for one in running.values():
        one.__exit__()


@pytest.fixture
def server(
    servers: dict[str, Server], cache: Path, bundle: Bundle, postgresql: str, worker_id: str
) -> Iterator[Server]:
    """A running server of the version, the same for all tests, as at birth for each."""
    if postgresql not in servers:
        place = new_place()
        place.mkdir(mode=0o755)
        port = port_of_server(worker_id, len(servers))
        servers[postgresql] = Server(place, bundle, postgresql, port).__enter__()
    yield servers[postgresql]
    servers[postgresql].tidy()


@pytest.fixture
def members(bundle: Bundle, postgresql: str) -> Iterator[Members]:
    """Servers of one instance, of which the test makes as many as it needs."""
    place = new_place()
    place.mkdir(mode=0o755)
    made = Members(place, bundle, postgresql)
    yield made
    made.close()


@pytest.fixture(scope="session", params=["MySQL-8", "MySQL-9"])
def mysql_bundle(cache: Path, request: pytest.FixtureRequest) -> Bundle:
    try:
        return Bundles(cache).find(request.param)
    except HostError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def mysql(mysql_bundle: Bundle) -> Iterator[mysql_server.Server]:
    """A server that all tests share; what they make has names of their own."""
    options = (
        "--log-bin-trust-function-creators=ON",  # as users set it who have triggers
        "--performance-schema=ON",
        "--general-log=ON",
        "--slow-query-log=ON",
    )
    with mysql_server.serving(mysql_bundle, *options) as server:
        yield server


@pytest.fixture
def office(mysql: mysql_server.Server) -> Iterator[str]:
    """A database; afterwards the server is as it was, whatever SQL made."""
    mysql.administration.create_database("office")
    yield "office"
    with mysql.superuser() as session, session.cursor() as cursor:
        cursor.execute("SELECT user, host FROM mysql.user")
        ours = reserved.ACCOUNTS | {("admin", "%")}
        for account in set(cursor.fetchall()) - ours:
            cursor.execute(f"DROP USER {quoted_account(account)}")
    mysql.administration.delete_database("office")
