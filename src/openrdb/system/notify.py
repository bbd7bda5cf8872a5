"""Telling systemd that a service of `Type=notify` has started."""

from __future__ import annotations

import contextlib
import os
import socket


def ready() -> None:
    """Tell the manager that started this process that it serves; a no-op without one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # of the abstract namespace
        address = "\0" + address[1:]
    # A manager that has gone is no reason not to serve.
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        contextlib.suppress(OSError),
    ):
        manager.sendto(b"READY=1", address)
