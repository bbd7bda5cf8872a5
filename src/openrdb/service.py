"""The control plane, put together and run: what `openrdb serve` does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from openrdb.api.app import create_app
from openrdb.api.common import Backend
from openrdb.catalog.offers import Offers
from openrdb.config import LONGEST_DATA_DIR, Settings
from openrdb.credentials import ensure_credentials
from openrdb.errors import HostError
from openrdb.host.agent import local_host
from openrdb.host.balancer import choose
from openrdb.host.bundles.cache import Bundles
from openrdb.observe import metrics
from openrdb.observe.changes import Changes
from openrdb.observe.healing import Healer
from openrdb.observe.log_pruning import LogPruner
from openrdb.operations.adoption import adopt_certificates
from openrdb.operations.run import Services
from openrdb.operations.workflows import Operations
from openrdb.state.database import Database
from openrdb.state.master_key import open_secrets
from openrdb.system import files, locks
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)

_SIGNS = "/._+@-"
_PLAIN_PATH = re.compile(rf"[A-Za-z0-9{_SIGNS}]+")
"""It goes into configuration files that each quote in their own way, or not at all."""
_BACKLOG = 512
_LEAST_FREE = 256 * 2**20
"""Bytes without which no instance could be made."""


def prepare(settings: Settings) -> None:
    """Make the data directory, or say in one line why that cannot be.

    Raises:
        HostError: it is not writable, or full, or its path too long for Unix sockets below it.
    """
    directory = settings.data_dir
    if len(str(directory)) > LONGEST_DATA_DIR:
        raise HostError(f"the data directory's path has more than {LONGEST_DATA_DIR} characters")
    if not _PLAIN_PATH.fullmatch(str(directory)):
        raise HostError(f"the data directory's path has others than letters, digits and {_SIGNS}")
    try:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.write_bytes(b"OpenRDB")
        probe.unlink()
    except OSError as error:
        why = os.strerror(error.errno or errno.EIO).lower()
        raise HostError(f"cannot write to the data directory {directory}: {why}") from None
    if (free := files.free_bytes(directory)) < _LEAST_FREE:
        raise HostError(f"no space left for the data directory {directory}: {free >> 20} MiB")
    for name in ("state.sqlite", "workflows.sqlite"):
        (directory / name).touch(mode=0o600)


def installed_versions(settings: Settings) -> dict[str, str]:
    """The minor version of each engine version that there are binaries of.

    Raises:
        HostError: there are none, or no load balancer's.
    """
    bundles = Bundles(settings.cache, settings.engine_aliases)
    bundles.haproxy()
    installed = {name: bundle.version for name, bundle in bundles.installed().items()}
    if not installed:
        raise HostError("no engine is installed: run `openrdb engines install`")
    return installed


@contextlib.contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Be the only control plane on a data directory; the lock's holder is found by the kernel.

    Raises:
        HostError: another one serves it.
    """
    with layout.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = locks.holder(layout.lock)
            raise HostError(f"{layout.root} is served already, by process {pid}") from None
        yield


def listen(settings: Settings) -> socket.socket:
    """The API's socket.

    Raises:
        HostError: the port is in use, or the address not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
    # The protocol by name: only then asyncio turns off Nagle's delay, which costs 44 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.listen_host, settings.listen_port))
    except OSError as error:
        listener.close()
        why = os.strerror(error.errno or errno.EIO).lower()
        raise HostError(f"cannot listen on {settings.listen}: {why}") from None
    listener.listen(_BACKLOG)
    return listener


class _Server(uvicorn.Server):
    """uvicorn, saying when it serves."""

    def __init__(self, config: uvicorn.Config, started: Any) -> None:  # noqa: ANN401
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._say_started()


def serve(settings: Settings, started: Any) -> None:  # noqa: ANN401
    """Serve until SIGTERM or SIGINT; `started(credentials)` is called when requests are answered.

    Databases run on afterwards.

    Raises:
        HostError: something on this machine is in the way.
    """
    prepare(settings)
    layout = Layout(settings.data_dir)
    with exclusive(layout), contextlib.ExitStack() as ending:
        installed = installed_versions(settings)
        listener = ending.enter_context(listen(settings))
        host_name = (
            f"[{settings.listen_host}]" if ":" in settings.listen_host else settings.listen_host
        )
        url = f"http://{host_name}:{listener.getsockname()[1]}"
        database = Database(settings.database_url)
        ending.callback(database.close)
        database.migrate()
        credentials = ensure_credentials(database, settings, url)
        secrets = open_secrets(database, layout.master_key)
        choice = choose(settings.balancer, settings.public_address)
        host = local_host(
            settings.data_dir,
            settings.cache,
            settings.spare_volumes,
            choice,
            settings.engine_aliases,
        )
        ending.callback(host.close)
        adopt_certificates(database, host, secrets)
        host.supervisor.ensure_up()
        host.prepare_templates(settings.warm_engines)
        changes = Changes()
        operations = Operations(Services(settings, database, host, changes, secrets))
        healer = Healer(database, host, secrets)
        changes.on_any = healer.wake
        operations.launch()
        ending.callback(operations.close)
        healer.start()
        ending.callback(healer.close)
        pruner = LogPruner(database, host, secrets, settings.logs_round)
        pruner.start()
        ending.callback(pruner.close)
        metrics.watch(database)
        offers = Offers(installed, settings.allow_disabled_engines)
        backend = Backend(
            settings, database, changes, offers, operations.start, operations.perform, host, secrets
        )
        config = uvicorn.Config(
            create_app(backend),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
            server_header=False,
        )
        _Server(config, lambda: started(credentials)).run(sockets=[listener])
