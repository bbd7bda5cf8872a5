"""What keeps the agent running, and nothing else: systemd where there is one, else supervisord.

The keeper may die as well: the agent runs on then, and the next keeper's agent takes over from it.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol
from xmlrpc.client import Fault, ServerProxy, Transport

from supervisor.xmlrpc import Faults

from openrdb.errors import HostError
from openrdb.system import accounts, files, locks, processes
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)

_UP_TIMEOUT = 20.0
_CALL_TIMEOUT = 5.0
_END_TIMEOUT = 30.0
_FORKED = 5.0
_PROGRAM = "agent"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Keeper(Protocol):
    """Keeps one host's agent running."""

    def ensure_up(self) -> None:
        """Make sure that the agent is kept running; a no-op if it is.

        Raises:
            HostError: the keeper does not start.
        """

    def shut_down(self) -> None:
        """End the agent, which is not started again; a no-op if it is not kept."""


def keeper_of(layout: Layout) -> Keeper:
    """Return this machine's keeper: systemd's where a manager for us answers, else supervisord."""
    return Systemd(layout) if Systemd.is_there() else Supervisord(layout)


def agent_command(layout: Layout) -> list[str]:
    return [sys.executable, "-m", "openrdb.agent", "--data-dir", str(layout.root)]


_CONFIGURATION = """\
[unix_http_server]
file={run}/supervisor.sock
chmod=0700
[supervisord]
logfile={run}/supervisor.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile={run}/supervisor.pid
nodaemon=true
silent=true
minfds=64
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:{program}]
command={command}
environment={environment}
autorestart=true
startsecs=0
startretries=1000000
stopsignal=TERM
stopwaitsecs=20
redirect_stderr=true
stdout_logfile=NONE
"""
"""The agent writes its log itself. supervisord stops reading a program's output when it cannot write a
line of it; then the pipe fills up, and the program blocks."""


class Supervisord:
    """supervisord, detached, with the agent as its only program."""

    def __init__(self, layout: Layout) -> None:
        self._run = layout.run
        self._lock = layout.keeper_lock
        self._socket = layout.run / "supervisor.sock"
        self._configuration = layout.run / "keeper.conf"
        self._next = layout.run / "keeper.conf.next"
        self._text = _CONFIGURATION.format(
            run=_escape(str(layout.run)),
            program=_PROGRAM,
            command=_escape(
                shlex.join([*agent_command(layout), "--log-file", str(layout.run / "agent.log")])
            ),
            environment=_escape(
                ",".join(f'{name}="{value}"' for name, value in _environment().items())
            ),
        )
        self._child: subprocess.Popen[bytes] | None = None

    def ensure_up(self) -> None:
        accounts.passable_directory(self._run)  # somebody may have tidied up
        if self._child is not None:
            self._child.poll()  # a killed one is not to stay a zombie
        is_current = files.has_text(self._configuration, self._text)
        if is_current and self._answers():
            self._ensure_program()
            return
        # Written while the old one lives, which stays on a full disk. In force only after its end: if
        # we die in between, the next call sees that the old one is to go.
        if not is_current:
            files.write_private(self._next, self._text)
        self._end()
        if not is_current:
            self._next.rename(self._configuration)
        self._start()

    def _end(self) -> None:
        """End a keeper that is frozen, lost its socket, or is of another version; its agent lives on,
        until the next one's takes over."""
        with contextlib.suppress(FileNotFoundError):
            if (holder := locks.holder(self._lock)) is not None:
                processes.end(holder, signal.SIGKILL, _END_TIMEOUT)

    def _start(self) -> None:
        for leftover in (self._socket, self._run / "supervisor.pid"):
            files.remove_file(leftover)
        descriptor = locks.open_file(self._lock)
        try:
            # What a killed one has just forked has its lock, until it becomes another program.
            if not locks.lock_within(descriptor, _FORKED):
                raise HostError("another keeper of the agent is just starting")
            self._child = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", self._configuration],
                stdin=subprocess.DEVNULL,
                # It reports there what it cannot log, and ends if that fails, as on a full disk.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(descriptor,),
                cwd="/",
                env=_environment(),
            )
            identity = processes.identify(self._child.pid)
            if identity is not None:
                locks.sign(descriptor, identity)
        finally:
            os.close(descriptor)
        if not files.wait_for(self._run, self._answers, _UP_TIMEOUT, pid=self._child.pid):
            raise HostError(f"supervisord does not start; see {self._run / 'supervisor.log'}")

    def _ensure_program(self) -> None:
        allowed = (Faults.ALREADY_STARTED,)
        self._call("supervisor.startProcess", _PROGRAM, False, allowed=allowed)

    def _answers(self) -> bool:
        try:
            return bool(self._call("supervisor.getState")["statename"] == "RUNNING")
        except HostError:
            return False

    def _call(self, method: str, *arguments: object, allowed: tuple[int, ...] = ()) -> Any:  # noqa: ANN401
        """Return a call's result; None when it had an allowed fault.

        Raises:
            HostError: another fault, or supervisord does not answer in time.
        """
        transport = _Transport(self._socket)
        try:
            return getattr(ServerProxy("http://localhost", transport=transport), method)(*arguments)
        except Fault as fault:
            if fault.faultCode in allowed:
                return None
            raise HostError(f"supervisord refuses: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException) as error:
            raise HostError(f"supervisord does not answer: {error}") from error
        finally:
            transport.close()

    def shut_down(self) -> None:
        if (holder := locks.holder(self._lock)) is not None:
            processes.end(holder, signal.SIGTERM, _END_TIMEOUT)


class _Connection(http.client.HTTPConnection):
    """A connection to supervisord's Unix socket, on which nobody waits without end."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CALL_TIMEOUT)
        self.sock.connect(str(self._path))


class _Transport(Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        return _Connection(self._path)


def _environment() -> dict[str, str]:
    """Return what the agent needs of our environment: nothing that would reach engines' sessions."""
    kept = ("HOME", "PYTHONPATH", "XDG_RUNTIME_DIR")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return found | {"PATH": _PATH, "LANG": "C.UTF-8"}


def _escape(text: str) -> str:
    return text.replace("%", "%%")


class Systemd:
    """A transient unit of systemd's, root's or the user's own manager."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        digest = layout.root.as_posix().replace("/", "-").strip("-")
        self._unit = f"openrdb-agent-{digest}.service"

    @staticmethod
    def is_there() -> bool:
        """Return whether a manager answers that keeps units of ours after we are gone."""
        if shutil.which("systemd-run") is None or not Path("/run/systemd/system").is_dir():
            return False
        asked = _systemctl("show", "--property=Version")
        # A user's manager ends with its last login unless it lingers.
        return asked.returncode == 0 and (os.geteuid() == 0 or _lingers())

    def ensure_up(self) -> None:
        if _systemctl("is-active", "--quiet", self._unit).returncode == 0:
            return
        _systemctl("reset-failed", self._unit)
        started = subprocess.run(
            [
                *("systemd-run", *_scope(), f"--unit={self._unit}", "--collect"),
                *("--property=Restart=always", "--property=RestartSec=100ms"),
                # Engines outlive the agent, have cgroups of their own, and one that takes too much
                # memory does not take the agent with it.
                *("--property=KillMode=process", "--property=Delegate=yes"),
                *("--property=OOMPolicy=continue", "--property=StartLimitIntervalSec=0"),
                *(f"--setenv={name}={value}" for name, value in _environment().items()),
                *agent_command(self._layout),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if started.returncode != 0:
            raise HostError(f"systemd does not start the agent: {started.stderr.strip()}")

    def shut_down(self) -> None:
        _systemctl("stop", self._unit)


def _scope() -> list[str]:
    return [] if os.geteuid() == 0 else ["--user"]


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", *_scope(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def _lingers() -> bool:
    asked = subprocess.run(
        ["loginctl", "show-user", str(os.geteuid()), "--property=Linger"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() == "Linger=yes"


def end_predecessors(layout: Layout) -> None:
    """End what kept programs running before there were agents: supervisord and its waiting locks.

    The engines and balancers that it started run on, and are the agent's to adopt.
    """
    old = layout.run / "supervisor.lock"
    if (holder := locks.holder(old)) is not None:
        processes.end(holder, signal.SIGKILL, _END_TIMEOUT)
    instances = os.fsencode(layout.root / "instances")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            waits = arguments[:2] == [b"flock", b"--no-fork"] and arguments[2].startswith(instances)
            identity = processes.identify(int(entry.name)) if waits else None
            if identity is not None:
                processes.end(identity, signal.SIGKILL, _END_TIMEOUT)
    files.remove_file(old)
