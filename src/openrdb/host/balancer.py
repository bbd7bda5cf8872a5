"""The load balancer: the `Balancer` interface and HAProxy, its driver that works everywhere.

One process an instance, so that changing one never touches a neighbour. TCP is passed through: TLS
ends in the engine. A silent session lives six hours, as the document says ("Endpoints").
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from openrdb.errors import HostError
from openrdb.host import accounts, files
from openrdb.host.accounts import Uid
from openrdb.host.bundles import Bundle
from openrdb.host.layout import Layout
from openrdb.host.processes import Program, Supervisor, environment_of

_START_TIMEOUT = 30.0


@dataclass(frozen=True)
class Target:
    """What an instance's balancer does: listens on addresses and forwards to one node."""

    instance_id: UUID
    listen: Sequence[tuple[str, int]]
    node: tuple[str, int]
    connections: int
    """As many as the engine takes at once."""
    uid: Uid


class Balancer(Protocol):
    def ensure(self, target: Target) -> None:
        """Have an instance's endpoints forward; return when they accept."""

    def remove(self, target: Target) -> None:
        """End an instance's forwarding and its sessions."""

    def program(self, target: Target) -> Program:
        """The process to keep running for an instance."""


_CONFIGURATION = """\
global
    stats socket {socket} mode 600 level admin
    nbthread 1
    maxconn {maxconn}
    tune.maxpollevents 64
    no log
defaults
    mode tcp
    # A refused connection is tried again after that time, so that clients who come while the
    # engine is being restarted wait for it: 30 s at most.
    timeout connect 100ms
    retries 300
    timeout client 6h
    timeout server 6h
    option clitcpka
    option srvtcpka
frontend public
{binds}
    default_backend main
backend main
    server node {node}
"""


class HAProxy:
    def __init__(self, layout: Layout, bundle: Bundle, supervisor: Supervisor) -> None:
        self._layout = layout
        self._bundle = bundle
        self._supervisor = supervisor

    def ensure(self, target: Target) -> None:
        directory = self._layout.balancer(target.instance_id)
        sockets = self._layout.sockets(target.instance_id)
        accounts.ensure_passage(directory, target.uid)
        accounts.ensure_directory(sockets, target.uid)
        text = _CONFIGURATION.format(
            socket=sockets / "balancer.sock",
            # Beyond the engine's own limit, so that the engine says why it refuses.
            maxconn=target.connections + 20,
            binds="\n".join(f"    bind {_address(*pair)}" for pair in target.listen),
            node=_address(*target.node),
        )
        program, file = self.program(target), directory / "haproxy.cfg"
        if file.exists() and file.read_text() != text:
            self._supervisor.stop(program)
            (sockets / "balancer.sock").unlink(missing_ok=True)
        accounts.write_file(file, text, target.uid)
        self._supervisor.ensure_running(program)
        if not files.wait_for(sockets, (sockets / "balancer.sock").exists, _START_TIMEOUT):
            raise HostError(f"the load balancer does not start; see {program.output}")

    def remove(self, target: Target) -> None:
        self._supervisor.stop(self.program(target))

    def program(self, target: Target) -> Program:
        directory = self._layout.balancer(target.instance_id)
        command = [
            str(self._bundle.program("haproxy")),
            "-db",
            "-f",
            str(directory / "haproxy.cfg"),
        ]
        return Program(
            name=f"balancer-{target.instance_id}",
            command=accounts.as_account(target.uid, command),
            lock=self._layout.program_lock(target.instance_id, "balancer"),
            output=directory / "haproxy.log",
            environment=environment_of(directory) | self._bundle.environment,
            stop_signal=signal.SIGTERM,
            stop_timeout=5,
        )


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def is_free(address: str, port: int) -> bool:
    """Whether nobody listens on an address' port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
