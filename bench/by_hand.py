"""The baseline: a server as an administrator brings it up by hand, with the same binaries.

As quick as it can be done by hand: the certificate is there already, no database but the default ones
is made, and the server is asked again and again instead of waited for. The account is unprivileged and
the file system the same, as the control plane's. Each engine's commands are in bench/engines.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self
from uuid import uuid4

import psutil
from tests.support.service import unprivileged

from openrdb import certificates
from openrdb.system.bundle import Bundle

_TIMEOUT = 60


class Session(Protocol):
    """A connection as PEP 249 has it, which commits each statement."""

    def cursor(self) -> Any: ...

    def close(self) -> None: ...


def execute(session: Session, statement: str) -> list[tuple[Any, ...]]:
    with closing(session.cursor()) as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


class ByHand(ABC):
    """Servers in a directory of their own; leaving the context ends them and removes it."""

    ways: ClassVar[Mapping[str, Sequence[str]]]
    """How to bring one up: further options of the initialisation, the usual way first."""
    hot: ClassVar[str]
    """In a word, how `set` brings a setting into force without a restart."""
    new_account: ClassVar[str]
    """The statement that makes `admin`."""
    stop_signal: ClassVar[signal.Signals]

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

    # -- an engine's own -----------------------------------------------------------------------

    @abstractmethod
    def _initialise(self, port: int, options: Sequence[str]) -> None:
        """Make a data directory, and the server's configuration."""

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """What runs the server."""

    @abstractmethod
    def _connect(self, port: int) -> Session | None:
        """A session of the superuser's; None: the server does not let it in yet."""

    @abstractmethod
    def _query(self, port: int) -> None:
        """One session of `admin` by TLS with one query in it."""

    @abstractmethod
    def _change(self, port: int, name: str, value: str, *, restart: bool) -> None:
        """Have the server take another value, at its next start where that is necessary."""

    @abstractmethod
    def _value(self, session: Session, name: str) -> str:
        """What a setting is in a session."""

    # -- all engines' --------------------------------------------------------------------------

    def create(self, port: int, *options: str) -> float:
        """Milliseconds from nothing to the answer of the first query by TLS of a new account."""
        started = time.perf_counter()
        self._initialise(port, options)
        self._run(port)
        with closing(self.session(port)) as session:
            execute(session, self.new_account)
        self._query(port)
        return (time.perf_counter() - started) * 1e3

    def set(self, port: int, name: str, value: str, *, restart: bool = False) -> float:
        """Milliseconds until new sessions have another value of a setting."""
        started = time.perf_counter()
        self._change(port, name, value, restart=restart)
        if restart:
            self._servers[port].send_signal(self.stop_signal)
            self._servers[port].wait(_TIMEOUT)
            self._run(port)
        while True:
            with closing(self.session(port)) as session:
                if self._value(session, name) == value:
                    return (time.perf_counter() - started) * 1e3

    def session(self, port: int) -> Session:
        """The superuser's, as soon as the server lets it in."""
        deadline = time.monotonic() + _TIMEOUT
        while (session := self._connect(port)) is None:
            assert self._servers[port].poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.005)
        return session

    def processes(self, port: int) -> list[psutil.Process]:
        server = psutil.Process(self._servers[port].pid)
        return [server, *server.children(recursive=True)]

    def remove_all(self) -> None:
        for server in self._servers.values():
            server.send_signal(self.stop_signal)
        for port, server in self._servers.items():
            server.wait(_TIMEOUT)
            shutil.rmtree(self._data(port))
        self._servers.clear()

    @property
    def _log(self) -> Path:
        return self._home / "log"

    def _data(self, port: int) -> Path:
        return self._home / str(port)

    def _run(self, port: int) -> None:
        self._servers[port] = self._start(self._command(port))

    def _complete(self, command: Sequence[str]) -> None:
        assert self._start(command).wait(_TIMEOUT) == 0, self._log.read_text()[-2000:]

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | self._bundle.environment
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*unprivileged(), *command],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def _make_certificate(directory: Path) -> None:
    of_instance = (uuid4(), "fr-par", ["127.0.0.1"])
    made = certificates.issue(certificates.make_authority(*of_instance), *of_instance)
    (directory / "authority.crt").write_text(made.authority)
    (directory / "server.crt").write_text(made.presented)
    (directory / "server.key").write_text(made.key)
    (directory / "server.key").chmod(0o600)
