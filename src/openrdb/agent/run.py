"""The agent's process: what `openrdb agent` does."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path

import uvicorn

from openrdb import logs
from openrdb.agent import settings
from openrdb.agent.server import create_app
from openrdb.agent.settings import AgentSettings
from openrdb.build import build
from openrdb.host.balancer import choose
from openrdb.host.local import LocalHost
from openrdb.system import accounts, files, locks
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)

_BACKLOG = 512
_GRACE = 1
"""Seconds for calls under way when it is told to end; their callers call again."""


def run(data_dir: Path, handler: logging.Handler | None = None) -> None:
    """Run this host's agent until SIGTERM; what it started runs on.

    An agent that runs already is replaced.

    Args:
        handler: what takes its log's lines, instead of standard error.

    Raises:
        HostError: something on this machine is in the way.
    """
    layout = Layout(data_dir)
    accounts.passable_directory(layout.run)
    configured = settings.read(layout)
    logs.configure(configured.log_level, configured.log_format, handler)
    with locks.taken_over(layout.agent_lock), contextlib.ExitStack() as ending:
        host = local_host(layout, configured)
        ending.callback(host.close)
        host.start(configured.warm_engines)
        listener = ending.enter_context(_listener(layout.agent_socket))
        config = uvicorn.Config(
            create_app(host, settings.token(layout)),
            log_level="warning",
            log_config=None,  # lines go where all others do
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=300,
            timeout_graceful_shutdown=_GRACE,
        )
        log.info("the agent of %s runs as process %d", data_dir, os.getpid())
        uvicorn.Server(config).run(sockets=[listener])
    # Threads may still wait for engines; nothing of theirs is to be saved.
    logging.shutdown()
    os._exit(0)


def local_host(layout: Layout, configured: AgentSettings) -> LocalHost:
    """Return this machine as its agent sees it; nothing is started yet."""
    return LocalHost(
        layout.root,
        configured.cache,
        build=build(),
        spares=configured.spare_volumes,
        choice=choose(configured.balancer, configured.public_address),
        aliases=configured.engine_aliases,
        logs_round=configured.logs_round,
        trash=configured.trash,
        pools=configured.pool_directories,
        volume_reserve=configured.volume_reserve,
        stop_timeout=configured.stop_timeout,
        recovery=configured.recovery,
        metrics_round=configured.metrics_round,
    )


def _listener(path: Path) -> socket.socket:
    """Return the agent's socket, which nobody but us can connect to from its first moment."""
    partial = path.with_suffix(".new")
    files.remove_file(partial)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(partial))  # the umask keeps others out
    listener.listen(_BACKLOG)
    partial.rename(path)
    return listener
