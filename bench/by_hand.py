"""The baseline: PostgreSQL as an administrator brings it up by hand, with the same binaries.

As quick as it can be done by hand: the certificate is there already, no database but the default one
is made, and the server is asked again and again instead of waited for with `pg_ctl`, which looks only
each 100 ms. The account is unprivileged and the file system the same, as the control plane's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self
from uuid import uuid4

import psutil
import psycopg
from tests.service import PASSWORD, unprivileged

from bench.served import query
from openrdb.host import certificates
from openrdb.host.bundle import Bundle

_CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{home}'
ssl = on
ssl_cert_file = '{home}/server.crt'
ssl_key_file = '{home}/server.key'
"""


class ByHand:
    """Servers in a directory of their own; leaving the context ends them and removes it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._home = Path(tempfile.mkdtemp(prefix="ordb-hand-", dir="/tmp"))
        self._servers: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        _make_certificate(self._home)
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            for path in (self._home, *self._home.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_all()
        shutil.rmtree(self._home)

    def create(self, port: int, *, sync: bool = True) -> float:
        """Milliseconds from nothing to the answer of the first query by TLS of a new role."""
        data = self._home / str(port)
        started = time.perf_counter()
        options = ["-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]
        options += ["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"]
        self._start("initdb", "-D", str(data), *options, *([] if sync else ["--no-sync"])).wait()
        configuration = _CONFIGURATION.format(port=port, home=self._home)
        with (data / "postgresql.conf").open("a") as file:
            file.write(configuration)
        self._run(port)
        with self.session(port) as connection:
            connection.execute(f"CREATE ROLE admin LOGIN PASSWORD '{PASSWORD}'")
        query(("127.0.0.1", port), database="postgres")
        return (time.perf_counter() - started) * 1e3

    def set(self, port: int, name: str, value: str, *, restart: bool = False) -> float:
        """Milliseconds until new sessions have another value of a setting."""
        started = time.perf_counter()
        with (self._home / str(port) / "postgresql.conf").open("a") as file:
            file.write(f"{name} = '{value}'\n")
        if restart:
            self._servers[port].send_signal(signal.SIGINT)
            self._servers[port].wait(60)
            self._run(port)
        else:
            self._servers[port].send_signal(signal.SIGHUP)
        while True:
            with self.session(port) as connection:
                if connection.execute(f"SHOW {name}").fetchone() == (value,):
                    return (time.perf_counter() - started) * 1e3

    def _run(self, port: int) -> None:
        self._servers[port] = self._start("postgres", "-D", str(self._home / str(port)))

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [*unprivileged(), str(self._bundle.program(program)), *arguments]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | self._bundle.environment
        with (self._home / "log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, cwd="/", stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def session(self, port: int) -> psycopg.Connection:
        """The superuser's, as soon as the server lets it in."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(
                    host=str(self._home), port=port, user="postgres", dbname="postgres"
                )
            except psycopg.OperationalError:
                assert self._servers[port].poll() is None, (self._home / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.005)

    def processes(self, port: int) -> list[psutil.Process]:
        server = psutil.Process(self._servers[port].pid)
        return [server, *server.children(recursive=True)]

    def remove_all(self) -> None:
        for server in self._servers.values():
            server.send_signal(signal.SIGINT)
        for port, server in self._servers.items():
            server.wait(60)
            shutil.rmtree(self._home / str(port))
        self._servers.clear()


def _make_certificate(directory: Path) -> None:
    certificate, key = certificates.make(uuid4(), "fr-par", ["127.0.0.1"])
    (directory / "server.crt").write_text(certificate)
    (directory / "server.key").write_text(key)
    (directory / "server.key").chmod(0o600)
