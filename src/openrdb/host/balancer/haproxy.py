"""HAProxy, the driver that works everywhere.

One process an endpoint, so that changing one never touches another's sessions. Who is let in, and which
node leads, is changed at run time over its socket; its files say the same for its next start.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import resource
import signal
import threading
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from openrdb.errors import HostError, StartFailed
from openrdb.host.balancer.base import (
    Network,
    Place,
    Target,
    Terms,
    address_text,
    nobody_listens,
)
from openrdb.host.balancer.runtime import ALONE, PAIR, Runtime, server_name
from openrdb.host.cgroups import Cgroup, Cgroups
from openrdb.host.healing import Healer
from openrdb.host.processes import Program, environment_of
from openrdb.system import accounts, files
from openrdb.system.bundle import Bundle
from openrdb.system.layout import Layout

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_START_TIMEOUT = 30.0
_STUCK_TIMEOUT = 10.0
"""Seconds without an answer after which it is started again."""
_ANSWER_TIMEOUT = 5.0
_LEAD_TIMEOUT = 1.0
"""Seconds within which it has to lead elsewhere: a failover waits for it."""
_BATCH = 100
"""Rules in one command line: HAProxy reads at most 16 KiB of it."""
_SESSION = re.compile(r"^(0x[0-9a-f]+): proto=tcpv\S+ src=(\S+):\d+ fe=public ", re.MULTILINE)

_BEYOND = 20
_OWN_DESCRIPTORS = 200
_MOST_DESCRIPTORS = 2**20

_ALERT = re.compile(r"\[ALERT\]\s+\((\d+)\) : (?!backend '|CLI : )(.*)")
"""Not what it says at run time, when it leads nobody."""
_LAST = 4096

_CONFIGURATION = """\
global
    stats socket {socket} mode 600 level admin
    nbthread 1
    # Rather say that an address is taken than share its clients with a stranger.
    noreuseport
    maxconn {maxconn}
    tune.maxpollevents 64
    no log
defaults
    mode tcp
    timeout connect 100ms
    timeout client 6h
    timeout server 6h
    option clitcpka
    option srvtcpka
frontend public
    # An address that this machine has not yet is served as soon as it has it.
    bind {listen} transparent
{filter}    use_backend {pair} if {{ nbsrv({pair}) gt 0 }}
    default_backend {alone}
backend {alone}
    # A refused connection is tried again after `timeout connect`, so that clients who come while the
    # engine is being restarted wait for it: 30 s at most.
    retries 300
{servers_alone}\
backend {pair}
    # Who waited would only come later to the node that takes the other's place.
    retries 0
{servers_of_pair}\
"""
# What a version without pairs wrote, to the letter: files are compared with it, none is written by it.
_BEFORE_PAIRS = """\
global
    stats socket {socket} mode 600 level admin
    nbthread 1
    # Rather say that an address is taken than share its clients with a stranger.
    noreuseport
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
    # An address that this machine has not yet is served as soon as it has it.
    bind {listen} transparent
{filter}    default_backend main
backend main
    server node {node}
"""
"""Of the versions before there were pairs."""
_SERVER = "    server "


class HAProxy:
    name: ClassVar[str] = "HAProxy"

    def __init__(
        self, layout: Layout, bundle: Bundle, healer: Healer, cgroups: Cgroups | None
    ) -> None:
        self._layout = layout
        self._bundle = bundle
        self._healer = healer
        self._cgroups = cgroups
        self._terms = Terms()
        self._leading: dict[UUID, threading.Lock] = {}
        """By endpoint: which node leads is said by one thread at a time, so that the newest is last."""

    def ensure(self, target: Target) -> None:
        target = self._terms.newest(target)
        program = self.program(target)
        if self._is_outdated(target):
            self._healer.release(program)
        self._write_files(target)
        with contextlib.suppress(HostError):  # it is tried again, and then says why it gives up
            self._healer.keep(program)
        if not self._comes_to_answer(target, program, _STUCK_TIMEOUT):
            # It may have lost its socket, which its account can remove.
            self._healer.restart(program)
            if not self._comes_to_answer(target, program, _START_TIMEOUT):
                raise HostError(f"the load balancer does not start; see {program.output}")
        if target.networks is not None:
            self._let_in(target, self._rules(target), target.networks)
        if self._serves_as_before(target):
            return
        try:
            self._lead(target)
        except HostError:
            self._healer.restart(program)
            if not self._comes_to_answer(target, program, _START_TIMEOUT):
                raise
            self._lead(target)

    def lead(self, target: Target) -> None:
        target = self._terms.newest(target)
        program, runtime = self.program(target), self._runtime(target, _LEAD_TIMEOUT)
        sockets = self._layout.sockets(target.endpoint_id)

        def runs() -> bool:
            return self._healer.pid(program.name) is not None

        files.wait_for(sockets, lambda: runtime.listens() or not runs(), _LEAD_TIMEOUT)
        try:
            self._lead(target)
        except HostError:
            # Its sessions end with it. What is started reads the newest term, or hears it afterwards.
            self._healer.kill_main(program)
        else:
            # It works: if it is killed now, it is started again at once.
            self._healer.note_steady(program)

    def _lead(self, target: Target) -> None:
        """Let a process that runs lead as the newest term says."""
        with self._leading.setdefault(target.endpoint_id, threading.Lock()):
            target = self._terms.newest(target)
            self._runtime(target, _LEAD_TIMEOUT).lead(_backend(target), target.leads)

    def _follow_start(self, target: Target, pid: int) -> None:
        """Tell a process that was started who leads: another may since it read its files."""
        sockets = self._layout.sockets(target.endpoint_id)
        if files.wait_for(sockets, self._runtime(target).listens, _START_TIMEOUT, pid=pid):
            self.lead(target)

    def _is_outdated(self, target: Target) -> bool:
        """Return whether it was started with another configuration than it should have; who leads is
        changed at run time."""
        file = self._configuration(target)
        if not file.exists() or self._serves_as_before(target):
            return False
        return _frame(file.read_text()) != _frame(self._text(target))

    def _serves_as_before(self, target: Target) -> bool:
        """Return whether a process of a version without pairs does all that is asked of it, as it does
        for an endpoint of one node: an upgrade of ours ends no session."""
        if target.leads is None or target.nodes != (target.leads,):
            return False
        file = self._configuration(target)
        return file.exists() and file.read_text() == _BEFORE_PAIRS.format(
            **self._values(target), node=address_text(target.leads)
        )

    def _write_files(self, target: Target, *, starts: bool = False) -> None:
        """Write what it reads when it starts; the configuration of one that serves as before tells that
        it does, until it is started again."""
        directory = self._directory(target)
        for each in (directory.parent, directory):
            accounts.ensure_passage(each, target.uid)
        accounts.ensure_directory(self._layout.sockets(target.endpoint_id), target.uid)
        # Of the clients' version only: HAProxy takes some IPv6 addresses for IPv4 ones.
        networks = "".join(f"{network}\n" for network in target.networks or ())
        accounts.write_file(self._rules(target), networks, target.uid)
        if starts or not self._serves_as_before(target):
            accounts.write_file(self._configuration(target), self._text(target), target.uid)

    def _text(self, target: Target) -> str:
        return _CONFIGURATION.format(
            **self._values(target),
            alone=ALONE,
            pair=PAIR,
            servers_alone=_servers(target) if _backend(target) == ALONE else "",
            servers_of_pair=_servers(target) if _backend(target) == PAIR else "",
        )

    def _values(self, target: Target) -> dict[str, object]:
        """Return what configurations of all versions say of an endpoint."""
        return {
            "socket": self._socket(target),
            # Beyond the engine's own limit, so that the engine says why it refuses.
            "maxconn": min(target.connections, self.most_connections()) + _BEYOND,
            "listen": address_text(target.listen),
            "filter": "" if target.allowed is None else _filter(self._rules(target)),
        }

    def _let_in(self, target: Target, rules: Path, networks: list[Network]) -> None:
        """Replace the networks at once, then cut the sessions that came from others."""
        command = self._runtime(target).command
        prepared = command(f"prepare acl {rules}")
        version = prepared.rpartition(":")[2].strip()
        for first in range(0, len(networks), _BATCH):
            batch = networks[first : first + _BATCH]
            command(";".join(f"add acl @{version} {rules} {ip}" for ip in batch))
        command(f"commit acl @{version} {rules}")
        strangers = [
            session
            for session, source in self._sessions(target)
            if not any(source in network for network in networks)
        ]
        for session in strangers:
            command(f"shutdown session {session}")

    def _sessions(self, target: Target) -> Iterator[tuple[str, Address]]:
        for session, source in _SESSION.findall(self._runtime(target).command("show sess")):
            yield session, ipaddress.ip_address(source.strip("[]"))

    def _comes_to_answer(self, target: Target, program: Program, timeout: float) -> bool:
        """Return whether it answers within some seconds.

        Raises:
            StartFailed: it ended soon after each of several starts; its own words say why.
        """
        sockets = self._layout.sockets(target.endpoint_id)

        def is_decided() -> bool:
            return self._answers(target) or self._healer.is_failing(program.name)

        files.wait_for(sockets, is_decided, timeout)
        if self._answers(target):
            return True
        if self._healer.is_failing(program.name):
            why = self._healer.reason(program.name)
            raise StartFailed(f"the load balancer does not start: {why}")
        return False

    def _answers(self, target: Target) -> bool:
        try:
            return "Name: HAProxy" in self._runtime(target).command("show info")
        except HostError:
            return False

    def _runtime(self, target: Target, timeout: float = _ANSWER_TIMEOUT) -> Runtime:
        return Runtime(self._socket(target), target.uid, timeout)

    def remove(self, target: Target) -> None:
        self._healer.remove(self.program(target))
        for directory in (self._layout.sockets(target.endpoint_id), self._directory(target)):
            files.remove_tree(directory)
        self._terms.forget(target)
        self._leading.pop(target.endpoint_id, None)

    def has(self, target: Target) -> bool:
        """Return whether there is anything of an endpoint."""
        return self._directory(target).exists()

    def missing(self, targets: Collection[Target]) -> Collection[Target]:
        """Return those without files, as those that another driver had or somebody removed."""
        return [target for target in targets if not self._has_places(target)]

    def _has_places(self, target: Target) -> bool:
        sockets = self._layout.sockets(target.endpoint_id)
        return self._configuration(target).exists() and sockets.exists()

    def ensure_all(self, targets: Collection[Target]) -> None:
        """Write their files and start their processes in the background; one whose socket was
        removed is replaced, as it takes no changes any more."""
        for target in map(self._terms.newest, targets):
            has_socket = self._layout.sockets(target.endpoint_id).exists()
            self._write_files(target)
            if not has_socket:
                self._healer.replace(self.program(target))
            self._healer.keep_later(self.program(target))

    def alarm(self) -> None:
        """Return None: healing watches the processes."""

    def clear(self) -> None:
        """Do nothing: HAProxy has nothing in the kernel."""

    def is_free(self, listen: Place) -> bool:
        return nobody_listens(listen)

    def most_connections(self) -> int:
        # Two descriptors each, as HAProxy counts, and its own; it raises its limit to the hard one.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (min(hard, _MOST_DESCRIPTORS) - _OWN_DESCRIPTORS) // 2 - _BEYOND

    def program(self, target: Target) -> Program:
        directory = self._directory(target)
        configuration = str(self._configuration(target))
        command = [str(self._bundle.program("haproxy")), "-db", "-f", configuration]
        name = f"balancer-{target.endpoint_id}"
        output = directory / "haproxy.log"
        return Program(
            name=name,
            command=accounts.as_account(target.uid, command),
            lock=self._layout.program_lock(target.instance_id, name),
            output=output,
            environment=environment_of(directory) | self._bundle.environment,
            stop_signal=signal.SIGTERM,
            stop_timeout=5,
            cgroup=partial(self._cgroup, name),
            watch=partial(self._follow_start, target),
            prepare=partial(self._prepare, target),
            explain=partial(_complaint, output),
        )

    def _cgroup(self, name: str) -> Cgroup | None:
        return None if self._cgroups is None else self._cgroups.ensure(name)

    def _prepare(self, target: Target) -> None:
        self._write_files(self._terms.newest(target), starts=True)
        # What a killed one left there would be in the way of the next.
        files.remove_entry(self._socket(target))

    def _directory(self, target: Target) -> Path:
        return self._layout.balancer(target.instance_id) / str(target.endpoint_id)

    def _rules(self, target: Target) -> Path:
        return self._directory(target) / "acl.lst"

    def _configuration(self, target: Target) -> Path:
        return self._directory(target) / "haproxy.cfg"

    def _socket(self, target: Target) -> Path:
        return self._layout.sockets(target.endpoint_id) / "balancer.sock"


def _complaint(output: Path) -> str:
    """Return the first complaint of the process that complained last."""
    found = _ALERT.findall(files.read_tail(output, _LAST))
    return next((text for pid, text in found if pid == found[-1][0]), "it ended")


def _backend(target: Target) -> str:
    return PAIR if len(target.nodes) > 1 else ALONE


def _servers(target: Target) -> str:
    """Return the servers of a backend, of which only the one that leads takes connections."""
    lines = (
        f"{_SERVER}{server_name(node)} {address_text(node)}"
        f"{'' if node == target.leads else ' disabled'}\n"
        for node in target.nodes
    )
    return "".join(lines)


def _frame(text: str) -> str:
    """Return what of a configuration is not changed at run time."""
    return "".join(line for line in text.splitlines(True) if not line.startswith(_SERVER))


def _filter(rules: Path) -> str:
    return f"    tcp-request connection reject unless {{ src -f {rules} }}\n"
