"""Ending everything of a data directory: what `openrdb stop` does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from openrdb.agent import keeper, settings
from openrdb.agent.run import local_host
from openrdb.errors import HostError
from openrdb.host import processes as programs
from openrdb.host.processes import Program
from openrdb.system import locks, processes
from openrdb.system.layout import Layout

_SERVICE = 30.0


def stop(data_dir: Path) -> None:
    """End the control plane, then all databases, cleanly; the next `serve` starts them again.

    Raises:
        HostError: there is nothing there, or something does not end.
    """
    layout = Layout(data_dir)
    if not layout.root.exists():
        raise HostError(f"there is no data directory {data_dir}")
    if (service := locks.holder(layout.lock)) is not None:
        processes.end(service, signal.SIGTERM, _SERVICE)
    keeper.end_predecessors(layout)
    keeper.keeper_of(layout).shut_down()
    if not layout.agent_settings.exists():
        return  # it was never served
    with locks.taken_over(layout.agent_lock):  # an agent without a keeper ends here
        host = local_host(layout, settings.read(layout))
        try:
            host.stop_everything()
        finally:
            host.close()
    for lock in layout.root.glob("instances/*/*.lock"):
        if locks.is_held(lock):  # an older version's, and not adopted yet
            _end_unknown(lock)


def _end_unknown(lock: Path) -> None:
    """End a program of which nothing is known but its lock.

    Raises:
        HostError: it does not end.
    """
    is_engine = lock.stem.startswith("node-")
    program = Program(
        name=lock.stem,
        command=[],
        lock=lock,
        output=Path(os.devnull),
        stop_signal=signal.SIGINT if is_engine else signal.SIGTERM,
    )
    programs.end(program, programs.adopt(program))
