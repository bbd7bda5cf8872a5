"""A MySQL server of the tests' own, as an instance's is, and its tenant's sessions."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pymysql
from pymysql.connections import Connection

from openrdb import certificates
from openrdb.engines.mysql import MySQL
from openrdb.engines.mysql.administration import Administration
from openrdb.engines.mysql.server import connect
from openrdb.engines.mysql.server import socket as socket_of
from openrdb.spec import Administrator, NodeSpec
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths
from tests.support.service import PASSWORD

SECRET = "a-secret-of-the-tests"
_TEMPLATE_SECRET = "a-secret-of-the-template"
_TLS = ssl.create_default_context()
_TLS.check_hostname, _TLS.verify_mode = False, ssl.CERT_NONE
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
        ids, address, memory = (UUID(int=1), UUID(int=2)), "127.0.0.1", 2**29
        engine = f"MySQL-{bundle.version.partition('.')[0]}"
        self.spec = NodeSpec(*ids, engine, address, port, account, memory, init_settings=init)
        self.paths = NodePaths(place / "node", place / "run")
        self._bundle, self._options = bundle, options
        for path in (place, self.paths.root, self.paths.configuration):
            accounts.ensure_passage(path, account)
        for path in (self.paths.sockets, self.paths.log):
            accounts.ensure_directory(path, account)

    @property
    def socket(self) -> Path:
        return socket_of(self.paths)

    @property
    def administration(self) -> Administration:
        return Administration(self.spec, self.paths, SECRET)

    def start(self) -> None:
        engine, spec, paths = MySQL(), self.spec, self.paths
        engine.make_template(
            self._bundle, paths.data, spec.uid, _TEMPLATE_SECRET, spec.init_settings
        )
        engine.personalise(paths.data)
        of_instance = (spec.instance_id, "fr-par", [spec.address])
        made = certificates.issue(certificates.make_authority(*of_instance), *of_instance)
        accounts.write_file(paths.certificate, made.presented, spec.uid)
        accounts.write_file(paths.authority, made.authority, spec.uid)
        accounts.write_file(paths.key, made.key, spec.uid)
        self._run()
        administrator = Administrator("admin", self.verifier)
        engine.bootstrap(spec, paths, (_TEMPLATE_SECRET, SECRET), administrator)

    def _run(self) -> None:
        engine = MySQL()
        self._write_configuration()
        command = [*engine.command(self._bundle, self.paths), *_OPTIONS, *self._options]
        self._process = subprocess.Popen(accounts.as_account(self.spec.uid, command), cwd="/")
        assert engine.wait_accepting(self.paths, self._process.pid, 60), "it does not start"

    def _write_configuration(self) -> None:
        files = MySQL().configuration(self.spec, self._bundle, self.paths)
        for name, text in files.items():
            accounts.write_file(self.paths.configuration / name, text, self.spec.uid)

    def restart(self, settings: Mapping[str, str]) -> None:
        """With these of the user's."""
        self.stop()
        self.spec = dataclasses.replace(self.spec, settings=settings)
        self._run()

    def reload(self, settings: Mapping[str, str]) -> bool:
        """The same without a restart; whether one is needed."""
        self.spec = dataclasses.replace(self.spec, settings=settings)
        self._write_configuration()
        return MySQL().reload(self.spec, self.paths, SECRET)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def superuser(self) -> Connection:
        return connect(self.spec, self.paths, SECRET, None)

    @functools.cached_property
    def verifier(self) -> str:
        """Of the tests' password."""
        return MySQL().verifier(PASSWORD)

    @contextmanager
    def session(
        self, user: str = "admin", database: str | None = None, **more: Any
    ) -> Iterator[Any]:
        """A tenant's session: a function that runs a statement and answers its rows."""
        options = {"host": "127.0.0.1", "port": self.spec.port, "ssl": _TLS}
        options |= {"password": PASSWORD, "autocommit": True, "user": user, "database": database}
        with pymysql.connect(**(options | more)) as connection:

            def run(statement: str, *arguments: object) -> list[tuple[Any, ...]]:
                with connection.cursor() as cursor:
                    cursor.execute(statement, arguments or None)
                    return list(cursor.fetchall())

            run.connection = connection  # type: ignore[attr-defined]
            yield run


@contextmanager
def serving(bundle: Bundle, *options: str, **init: str) -> Iterator[Server]:
    """A running server, which leaves nothing behind."""
    # Short enough for a Unix socket, and where an unprivileged account may be.
    place = Path(f"/tmp/ordb-{os.getpid()}-{os.urandom(3).hex()}")
    server = Server(bundle, place, options, init)
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(place)
