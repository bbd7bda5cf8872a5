"""A server's main process: its state, and signals to it, for which no connection is needed."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

from openrdb.engines.base import EngineNode
from openrdb.errors import HostError
from openrdb.system import files, processes
from openrdb.system.processes import Identity

_FILE = "postmaster.pid"
_READY, _ENDING = "ready", "stopping"
_NOT_THERE = "the server does not run"


def is_ready(node: EngineNode, pid: int | None = None) -> bool:
    """Return whether a node's server accepts connections, by its files, which a crash leaves as they
    are; and is the process `pid`, if that is given."""
    process, state = _state(node)
    return state == _READY and pid in (None, process)


def is_ending(node: EngineNode, pid: int | None = None) -> bool:
    """Return whether a server that runs, as the process `pid` if that is given, has been asked to end.
    It lets nobody in any more, but may wait for the sessions that it has."""
    process, state = _state(node)
    return state == _ENDING and pid in (None, process)


def _state(node: EngineNode) -> tuple[int | None, str]:
    """Return a server's pid and state, by its files."""
    # Line 1 is its pid, line 8 its state (src/include/utils/pidfile.h).
    lines = files.read_tail(node.paths.data / _FILE).splitlines()
    is_whole = len(lines) >= 8 and lines[0].isdecimal()
    return (int(lines[0]), lines[7].strip()) if is_whole else (None, "")


def check(node: EngineNode) -> None:
    """Raise HostError unless the server of a node runs."""
    _find(node)


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
    named = files.read_tail(node.paths.data / _FILE).partition("\n")[0]
    found = processes.identify(int(named)) if named.isdecimal() else None
    if found is None or not _serves(found.pid, node.paths.data):
        raise HostError(_NOT_THERE)
    return found


def _serves(pid: int, data: Path) -> bool:
    """Return whether a process is the first of a server of a data directory."""
    return (b"-D", os.fsencode(data)) in pairwise(processes.started_as(pid))
