"""A MySQL server of the tests' own, as an instance's is, and its tenant's sessions."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymysql
from pymysql.connections import Connection

from openrdb import certificates
from openrdb.engines import rules_of, server_of_node, templates_of
from openrdb.engines.base import EngineNode
from openrdb.engines.base import Server as EngineServer
from openrdb.engines.mysql.admin.administration import Administration
from openrdb.engines.mysql.session import connect
from openrdb.engines.mysql.session import socket as socket_of
from openrdb.spec import Administrator, NodeSpec
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths
from tests.support.place import new_place
from tests.support.service import PASSWORD

SECRET = "a-secret-of-the-tests"
_TEMPLATE_SECRET = "a-secret-of-the-template"
REPLICATION_SECRET = "a-secret-of-the-nodes"
UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname, UNCHECKED.verify_mode = False, ssl.CERT_NONE
_OPTIONS = (
    "--innodb-flush-log-at-trx-commit=0",
    "--sync-binlog=0",
)


class Server:
    """`options`: mysqld's, beside those that every instance has."""

    def __init__(
        self, bundle: Bundle, place: Path, options: Sequence[str], init: Mapping[str, str]
    ) -> None:
        account = accounts.template_account()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        ids, address, memory = (uuid4(), uuid4()), "127.0.0.1", 2**29
        engine = f"MySQL-{bundle.version.partition('.')[0]}"
        self.spec = NodeSpec(*ids, engine, address, port, account, memory, init_settings=init)
        self.paths = NodePaths(place / "node", place / "run")
        self._bundle, self._options = bundle, options
        self.part: dict[str, Any] = {}
        """What it is of a pair or as a replica: fields of its `EngineNode`."""
        for path in (place, self.paths.root, self.paths.configuration):
            accounts.ensure_passage(path, account)
        for path in (self.paths.sockets, self.paths.log):
            accounts.ensure_directory(path, account)

    @property
    def socket(self) -> Path:
        return socket_of(self.paths)

    @property
    def node(self) -> EngineNode:
        return EngineNode(self.spec, self._bundle, self.paths, SECRET, **self.part)

    @property
    def engine(self) -> EngineServer:
        return server_of_node(self.node)

    @property
    def administration(self) -> Administration:
        return Administration(self.node)

    def start(self, *, administrator: bool = True) -> None:
        spec, paths, templates = self.spec, self.paths, templates_of(self.spec.engine)
        templates.make(self._bundle, paths.data, spec.uid, _TEMPLATE_SECRET, spec.init_settings)
        templates.renew_identity(paths.data)
        self.run()
        first = Administrator("admin", self.verifier) if administrator else None
        self.engine.bootstrap(_TEMPLATE_SECRET, REPLICATION_SECRET, first)

    @functools.cached_property
    def authority(self) -> certificates.Authority:
        """The instance's; set it before the server runs where there is one already."""
        return certificates.make_authority(self.spec.instance_id, "fr-par", [self.spec.address])

    def _write_certificate(self) -> None:
        spec, paths = self.spec, self.paths
        made = certificates.issue(self.authority, spec.instance_id, "fr-par", [spec.address])
        accounts.write_file(paths.certificate, made.presented, spec.uid)
        accounts.write_file(paths.authority, made.authority, spec.uid)
        accounts.write_file(paths.key, made.key, spec.uid)

    def run(self) -> None:
        """Run what its data directory has."""
        if not self.paths.key.exists():
            self._write_certificate()
        self.engine.prepare_start()
        self.write_configuration()
        command = [*self.engine.command(), *_OPTIONS, *self._options]
        self.process = subprocess.Popen(accounts.as_account(self.spec.uid, command), cwd="/")
        assert self.engine.wait_accepting(self.process.pid, 60), "it does not start"

    def write_configuration(self) -> None:
        for name, text in self.engine.configuration().items():
            accounts.write_file(self.paths.configuration / name, text, self.spec.uid)

    def restart(self, settings: Mapping[str, str]) -> None:
        """With these of the user's."""
        self.stop()
        self.spec = dataclasses.replace(self.spec, settings=settings)
        self.run()

    def refusal(self, settings: Mapping[str, str]) -> str | None:
        """Why the API refuses these settings; None if it does not."""
        spec = dataclasses.replace(self.spec, settings=settings)
        engine = server_of_node(dataclasses.replace(self.node, spec=spec))
        directory = self.paths.root / "check"
        accounts.ensure_directory(directory, spec.uid)
        for name, text in engine.configuration().items():
            accounts.write_file(directory / name, text, spec.uid)
        return engine.check_configuration(directory)

    def without_options(self) -> None:
        """Restart with nothing but what every instance has."""
        self._options = ()
        self.restart(self.spec.settings)

    def reload(self, settings: Mapping[str, str]) -> bool:
        """The same without a restart; whether one is needed."""
        self.spec = dataclasses.replace(self.spec, settings=settings)
        self.write_configuration()
        return self.engine.reload()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def superuser(self) -> Connection:
        return connect(self.node)

    @functools.cached_property
    def verifier(self) -> str:
        """Of the tests' password."""
        return rules_of(self.spec.engine).verifier(PASSWORD)

    @contextmanager
    def session(
        self, user: str = "admin", database: str | None = None, **more: Any
    ) -> Iterator[Any]:
        """A tenant's session: a function that runs a statement and answers its rows."""
        options = {"host": "127.0.0.1", "port": self.spec.port, "ssl": UNCHECKED}
        options |= {"password": PASSWORD, "autocommit": True, "user": user, "database": database}
        with pymysql.connect(**(options | more)) as connection:

            def run(statement: str, *arguments: object) -> list[tuple[Any, ...]]:
                with connection.cursor() as cursor:
                    cursor.execute(statement, arguments or None)
                    return list(cursor.fetchall())

            run.connection = connection  # type: ignore[attr-defined]
            yield run


@contextmanager
def serving(
    bundle: Bundle, *options: str, administrator: bool = True, **init: str
) -> Iterator[Server]:
    """A running server, which leaves nothing behind."""
    # Short enough for a Unix socket, and where an unprivileged account may be.
    place = new_place()
    server = Server(bundle, place, options, init)
    try:
        server.start(administrator=administrator)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(place)
