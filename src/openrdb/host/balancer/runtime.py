"""What a running HAProxy is told over its socket."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from openrdb.errors import HostError
from openrdb.host.balancer.base import Place, address_text
from openrdb.system.accounts import Uid

_ANSWER_TIMEOUT = 5.0
_LONGEST_ANSWER = 2**26
"""Bytes; a list of sessions takes 300 of each."""
_RUNNING = "2"
"""The state of a server that takes connections, as `show servers state` has it."""

_CONNECTING = re.compile(r" srv=(\S+) .* scb=\[[4-7],")
"""A session whose connection to its server is being made, by its state's number."""
_CONNECT_TIMEOUT = 0.2
"""Longer than `timeout connect`."""
_PAUSE = 0.002

ALONE, PAIR = "alone", "pair"
"""The backends. A server is named after its place, and is known to the file or was added since."""


@dataclass(frozen=True)
class Server:
    """A node in a backend, as a running HAProxy has it."""

    backend: str
    name: str
    is_ready: bool

    @property
    def path(self) -> str:
        return f"{self.backend}/{self.name}"


class Runtime:
    """The socket of one process."""

    def __init__(self, path: Path, uid: Uid, timeout: float = _ANSWER_TIMEOUT) -> None:
        self._path = path
        self._uid = uid
        self._timeout = timeout

    def listens(self) -> bool:
        """Return whether a process listens there, whether or not it answers."""
        try:
            self._connect().close()
        except OSError:
            return False
        return True

    def command(self, command: str) -> str:
        """Return what HAProxy says to a command.

        Raises:
            HostError: it does not answer.
        """
        try:
            with self._connect() as connection:
                connection.sendall(command.encode() + b"\n")
                return self._answer(connection).decode(errors="replace")
        except OSError as error:
            raise HostError(f"the load balancer does not answer: {error}") from error

    def lead(self, backend: str, leads: Place | None) -> None:
        """Let a node take all new connections, in a backend, and cut the sessions with others.

        Raises:
            HostError: it does not answer, or does not obey.
        """
        here = list(self._servers())
        name = None if leads is None else server_name(leads)
        others = [server for server in here if server.name != name]
        if others:
            self.command(";".join(f"set server {one.path} state maint" for one in others))
            self._wait_connected({one.name for one in others})
        commands = [f"shutdown sessions server {server.path}" for server in others]
        if leads is not None:
            if not any(server.name == name and server.backend == backend for server in here):
                commands.append(f"add server {backend}/{name} {address_text(leads)}")
            commands.append(f"set server {backend}/{name} state ready")
            # Of the same node: its sessions go on.
            before = [one for one in here if one.name == name and one.backend != backend]
            commands += [f"set server {server.path} state maint" for server in before]
        said = self.command(";".join(commands)) if commands else ""
        leading = {(one.backend, one.name) for one in self._servers() if one.is_ready}
        if leading != ({(backend, name)} if name is not None else set()):
            raise HostError(f"the load balancer does not lead as it is told: {said.strip()}")

    def _wait_connected(self, servers: Collection[str]) -> None:
        """Return when no connection to these servers is being made.

        HAProxy forgets clients whose sessions are shut down before they are connected: they would wait
        for ever.
        """
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        while time.monotonic() < deadline:
            if not set(_CONNECTING.findall(self.command("show sess"))) & set(servers):
                return
            time.sleep(_PAUSE)

    def _servers(self) -> Iterator[Server]:
        for line in self.command("show servers state").splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[1] in (ALONE, PAIR):
                yield Server(fields[1], fields[3], fields[5] == _RUNNING)

    def _connect(self) -> socket.socket:
        """Connect to a Unix socket that an account made, and to nothing that it could lead us to."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._timeout)
            descriptor = os.open(self._path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                owner = os.geteuid() if self._uid is None else self._uid
                if not stat.S_ISSOCK(found.st_mode) or found.st_uid != owner:
                    where = str(self._path)
                    raise OSError(errno.ENOTSOCK, "is not the load balancer's socket", where)
                connection.connect(f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
        except OSError:
            connection.close()
            raise
        return connection

    def _answer(self, connection: socket.socket) -> bytes:
        """Return all that is said until the end, which has to come: others may be in its place."""
        deadline, said = time.monotonic() + self._timeout, bytearray()
        while heard := connection.recv(65536):
            said += heard
            if len(said) > _LONGEST_ANSWER or time.monotonic() > deadline:
                raise OSError(errno.EMSGSIZE, "the answer does not end")
        return bytes(said)


def server_name(node: Place) -> str:
    """Return the name of a node's server: its address without brackets, which names cannot have."""
    address, port = node
    return f"{address}:{port}"
