"""A MySQL server of the tests' own, as an instance's is, and its tenant's sessions."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pymysql
from pymysql.connections import Connection

from openrdb.engines.base import NodeSpec
from openrdb.engines.mysql import databases, grants
from openrdb.engines.mysql.administration import Administration
from openrdb.engines.mysql.server import SOCKET, SUPERUSER, connect
from openrdb.host import accounts, files
from openrdb.host.layout import NodePaths
from tests.service import PASSWORD

SECRET = "a-secret-of-the-tests"
_TLS = ssl.create_default_context()
_TLS.check_hostname, _TLS.verify_mode = False, ssl.CERT_NONE
_PROGRAMS = Path("/opt/ordb-mysql-proto/usr")


class Server:
    """`settings`: options of mysqld beside those that every instance has."""

    def __init__(self, place: Path, port: int, *settings: str) -> None:
        place.mkdir()
        account = accounts.template_account()
        self.spec = NodeSpec(UUID(int=1), UUID(int=2), "MySQL-9", "127.0.0.1", port, account, 2**30)
        self.paths = NodePaths(place / "node", place / "run")
        self.place, self.settings = place, settings
        for path in (self.paths.root, self.paths.sockets):
            accounts.ensure_directory(path, account)
        self.root = self.paths.root

    @property
    def socket(self) -> Path:
        return self.paths.sockets / SOCKET

    @property
    def administration(self) -> Administration:
        return Administration(self.spec, self.paths, SECRET)

    def start(self) -> None:
        self._run("--initialize-insecure")
        log = self.root / "error.log"
        self._process = subprocess.Popen(
            accounts.as_account(
                self.spec.uid,
                self._command(
                    f"--socket={self.socket}",
                    f"--pid-file={self.root / 'mysqld.pid'}",
                    f"--port={self.spec.port}",
                    f"--log-error={log}",
                    f"--general-log-file={self.root / 'general.log'}",
                    f"--slow-query-log-file={self.root / 'slow.log'}",
                    "--bind-address=127.0.0.1",
                    "--mysqlx=OFF",
                    "--secure-file-priv=NULL",
                    "--partial-revokes=ON",
                    "--local-infile=OFF",
                    "--require-secure-transport=ON",
                    "--log-bin-trust-function-creators=ON",
                    "--skip-name-resolve",
                    "--innodb-buffer-pool-size=64M",
                    "--innodb-flush-log-at-trx-commit=0",
                    "--sync-binlog=0",
                    "--innodb-flush-log-at-trx-commit=0",
                    "--sync-binlog=0",
                ),
            )
        )
        ready = (self.root / "mysqld.pid").exists
        assert files.wait_for(self.root, ready, 60, pid=self._process.pid), log.read_text()
        self._bootstrap()

    def _run(self, *arguments: str) -> None:
        command = accounts.as_account(self.spec.uid, self._command(*arguments))
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    def _command(self, *arguments: str) -> list[str]:
        return [
            str(_PROGRAMS / "sbin" / "mysqld"),
            "--no-defaults",
            f"--basedir={_PROGRAMS}",
            f"--datadir={self.paths.data}",
            f"--lc-messages-dir={_PROGRAMS / 'share' / 'mysql'}",
            f"--character-sets-dir={_PROGRAMS / 'share' / 'mysql' / 'charsets'}",
            f"--plugin-dir={_PROGRAMS / 'lib' / 'mysql' / 'plugin'}",
            "--innodb-redo-log-capacity=8M",
            *self.settings,
            *arguments,
        ]

    def _bootstrap(self) -> None:
        with pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True) as root:
            for statement in (
                f"CREATE USER {SUPERUSER}@localhost IDENTIFIED BY '{SECRET}'",
                f"GRANT ALL ON *.* TO {SUPERUSER}@localhost WITH GRANT OPTION",
            ):
                root.cursor().execute(statement)
        with self.superuser() as connection:
            connection.cursor().execute("DROP USER root@localhost")
            grants.install(connection)
            databases.ensure(connection, databases.FIRST)
        self.administration.create_user("admin", self.verifier, is_admin=True)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def superuser(self) -> Connection:
        return connect(self.spec, self.paths, SECRET, None)

    @functools.cached_property
    def verifier(self) -> str:
        """Of the tests' password."""
        with self.superuser() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE USER _rdb_made IDENTIFIED BY %s", [PASSWORD])
            cursor.execute("SELECT authentication_string FROM mysql.user WHERE user = '_rdb_made'")
            ((made,),) = cursor.fetchall()
            cursor.execute("DROP USER _rdb_made")
            return str(made)

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
def serving(*settings: str) -> Iterator[Server]:
    """A running server, which leaves nothing behind."""
    # Short enough for a Unix socket, and where an unprivileged account may be.
    place = Path(f"/tmp/ordb-{os.getpid()}-{os.urandom(3).hex()}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(place, port, *settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(place)
