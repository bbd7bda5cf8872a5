"""Processes that outlive the control plane: the `Supervisor` interface, and supervisord behind it.

Each program runs under `flock` on a lock file of its own. Where the supervisor was killed and a new
one starts the same program, the new process waits for the lock until the old one has gone, and then
takes over: an engine is never run twice, and never without somebody waiting to start it again.
"""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import Faults, SupervisorTransport

from openrdb.errors import HostError
from openrdb.system import files, locks


@dataclass(frozen=True)
class Program:
    """A process to keep running: what starts it, how it is asked to end, what it locks."""

    name: str
    command: list[str]
    lock: Path
    output: Path
    """Where its standard output and error go; rotated at 1 MB."""
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: int = 60
    """Seconds until it is killed."""


class Supervisor(Protocol):
    """What keeps programs running, whether or not the control plane is there."""

    def ensure_up(self) -> None:
        """Have the supervisor run."""

    def pid(self) -> int | None: ...

    def ensure_running(self, program: Program) -> None:
        """Have a program run; harmless when it does."""

    def has_failed(self, program: Program) -> bool:
        """Whether a program ended soon after its start, and waits to be started again."""

    def stop(self, program: Program) -> None:
        """End a program and forget it; return when its last process has gone."""

    def shut_down(self) -> None:
        """End the supervisor and all that it runs."""


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
; So many it closes in each child, though Python hands none on.
minfds=64
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[rpcinterface:twiddler]
supervisor.rpcinterface_factory=supervisor_twiddler.rpcinterface:make_twiddler_rpcinterface
; Programs are added to this group at run time.
[program:{group}]
command=/bin/true
autostart=false
"""
_GROUP = "openrdb"
_UP_TIMEOUT = 20.0
_LOCK_TIMEOUT = 5


class Supervisord:
    """supervisord, detached; programs are told to it at run time, so adding one costs the same
    however many there are."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = run / "supervisor.lock"
        self._socket = run / "supervisor.sock"
        self._changing = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def pid(self) -> int | None:
        return locks.holder(self._lock)

    def ensure_up(self) -> None:
        with self._changing:
            if self._answers():
                return
            if (pid := self.pid()) is not None:
                if files.wait_for(self._run, self._answers, _UP_TIMEOUT, pid=pid):
                    return
                # Dead to the world, as when somebody removed its socket; its children live on.
                locks.end_process(pid, signal.SIGKILL, _UP_TIMEOUT)
            self._start()

    def _start(self) -> None:
        for leftover in (self._socket, self._run / "supervisor.pid"):
            leftover.unlink(missing_ok=True)
        configuration = self._run / "supervisor.conf"
        configuration.write_text(_CONFIGURATION.format(run=_escape(str(self._run)), group=_GROUP))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        command = [
            "prlimit",
            f"--nofile={hard}",
            *("flock", "--no-fork", "--timeout", str(_LOCK_TIMEOUT), str(self._lock)),
        ]
        command += [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
        with (self._run / "supervisor.out").open("ab") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )
        if not files.wait_for(self._run, self._answers, _UP_TIMEOUT, pid=self._child.pid):
            raise HostError(f"the supervisor does not start; see {self._run / 'supervisor.out'}")

    def _answers(self) -> bool:
        try:
            return bool(self._call("supervisor.getState")["statename"] == "RUNNING")
        except HostError:
            return False

    def _call(self, method: str, *arguments: object, allowed: tuple[int, ...] = ()) -> Any:  # noqa: ANN401
        """A call's result; None when it had an allowed fault.

        Raises:
            HostError: another fault, or the supervisor does not answer.
        """
        return _result(self._exchange(method, *arguments), allowed)

    def _call_all(self, *calls: tuple[Any, ...], allowed: tuple[int, ...]) -> list[Any]:
        """The results of several calls in one exchange, each as `_call` has it.

        Not for calls that wait for something: within an exchange supervisord looks once a second.
        """
        batch = [{"methodName": method, "params": list(rest)} for method, *rest in calls]
        return [_result(result, allowed) for result in self._exchange("system.multicall", batch)]

    def _exchange(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            return getattr(ServerProxy("http://localhost", transport=transport), method)(*arguments)
        except Fault as fault:
            return {"faultCode": fault.faultCode, "faultString": fault.faultString}
        except OSError as error:
            raise HostError(f"the supervisor does not answer: {error}") from error
        finally:
            transport.close()

    def ensure_running(self, program: Program) -> None:
        options = {
            # supervisord expands %(…)s and splits like a shell; it never runs one.
            "command": _escape(
                shlex.join(["flock", "--no-fork", str(program.lock), *program.command])
            ),
            "environment": _escape(
                ",".join(f'{name}="{value}"' for name, value in program.environment.items())
            ),
            "stopsignal": program.stop_signal.name.removeprefix("SIG"),
            "stopwaitsecs": str(program.stop_timeout),
            "autorestart": "true",
            "startretries": "1000000",
            "redirect_stderr": "true",
            "stdout_logfile": _escape(str(program.output)),
            "stdout_logfile_maxbytes": "1MB",
            "stdout_logfile_backups": "1",
        }
        add = ("twiddler.addProgramToGroup", _GROUP, program.name, options)
        start = ("supervisor.startProcess", f"{_GROUP}:{program.name}", False)
        fine = (Faults.BAD_NAME, Faults.ALREADY_STARTED)
        if self._call_all(add, start, allowed=fine)[1] is None:
            # A death that supervisord has not reaped yet looks like running; the call made it look.
            self._call(*start, allowed=fine)

    def has_failed(self, program: Program) -> bool:
        name = f"{_GROUP}:{program.name}"
        state = self._call("supervisor.getProcessInfo", name, allowed=(Faults.BAD_NAME,))
        return state is not None and state["statename"] in ("BACKOFF", "FATAL")

    def stop(self, program: Program) -> None:
        gone = (Faults.BAD_NAME, Faults.NOT_RUNNING)
        self._call("supervisor.stopProcess", f"{_GROUP}:{program.name}", allowed=gone)
        self._call("twiddler.removeProcessFromGroup", _GROUP, program.name, allowed=gone)
        end_holder(program)

    def shut_down(self) -> None:
        pid = self.pid()
        if pid is not None:
            locks.end_process(pid, signal.SIGTERM, 120)


def end_holder(program: Program) -> None:
    """End what still runs of a program: a process whose supervisor was killed."""
    if (pid := locks.holder(program.lock)) is not None:
        locks.end_process(pid, program.stop_signal, program.stop_timeout)
    if not locks.wait_released(program.lock, program.stop_timeout):
        raise HostError(f"{program.name} does not end")


def _result(result: Any, allowed: tuple[int, ...]) -> Any:  # noqa: ANN401
    if isinstance(result, dict) and "faultCode" in result:
        if result["faultCode"] not in allowed:
            raise HostError(f"the supervisor refuses: {result['faultString']}")
        return None
    return result


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def environment_of(path: Path) -> dict[str, str]:
    """The environment that programs get beside their own: nothing of the invoking shell's."""
    return {"PATH": os.defpath, "HOME": str(path), "LANG": "C.UTF-8"}
