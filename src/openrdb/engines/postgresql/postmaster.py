"""Signals to a server's main process, for which no connection is needed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from openrdb.engines.base import EngineNode
from openrdb.errors import HostError
from openrdb.system import files, processes
from openrdb.system.processes import Identity

_NOT_THERE = "the server does not run"


def send(node: EngineNode, number: signal.Signals) -> None:
    """Send a signal to the server of a node.

    Raises:
        HostError: it does not run.
    """
    with processes.pidfd(_find(node)) as descriptor:
        if descriptor is None:
            raise HostError(_NOT_THERE)
        processes.send(descriptor, number)


def reload(node: EngineNode) -> None:
    """Tell a server to read its configuration files; it may be one that has only begun to start.

    Raises:
        HostError: it does not run.
    """
    send(node, signal.SIGHUP)


def _find(node: EngineNode) -> Identity:
    """Return the process that the data directory names, if it is the server of that directory: the
    file may be left of a former one, whose pid is another's by now."""
    pid = files.read_tail(node.paths.data / "postmaster.pid").partition("\n")[0]
    found = processes.identify(int(pid)) if pid.isdecimal() else None
    if found is None or not _serves(found.pid, node.paths.data):
        raise HostError(_NOT_THERE)
    return found


def _serves(pid: int, data: Path) -> bool:
    """Return whether a process was started as a server of a data directory; its children have other
    command lines."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return arguments[1:3] == [b"-D", os.fsencode(data)]
