"""Ending everything of a data directory: what `openrdb stop` does."""

from __future__ import annotations

import signal
from pathlib import Path

from openrdb.errors import HostError
from openrdb.host.balancer.nftables import Nftables
from openrdb.host.processes import Supervisord
from openrdb.system import locks
from openrdb.system.layout import Layout


def stop(data_dir: Path) -> None:
    """End the control plane, then all databases, cleanly; the next `serve` starts them again.

    Raises:
        HostError: there is nothing there.
    """
    layout = Layout(data_dir)
    if not layout.root.exists():
        raise HostError(f"there is no data directory {data_dir}")
    if (pid := locks.holder(layout.lock)) is not None:
        locks.end_process(pid, signal.SIGTERM, 30)
    Supervisord(layout.run).shut_down()
    # What a killed supervisor left behind, engines after their balancers.
    for lock in sorted(layout.root.glob("instances/*/*.lock")):
        if (pid := locks.holder(lock)) is not None:
            locks.end_process(pid, signal.SIGINT, 60)
    Nftables(layout).clear()
