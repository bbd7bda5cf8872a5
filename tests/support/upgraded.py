"""A server, and one of a newer version for an upgraded copy of its files, without a control plane."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openrdb.engines import templates_of
from openrdb.engines.base import Upgrade
from openrdb.engines.postgresql import upgrade
from openrdb.host.bundles.cache import Bundles
from openrdb.system import accounts
from tests.support.place import new_place
from tests.support.postgresql_server import REPLICATION_SECRET, Server
from tests.support.service import installed, port_of_server


@contextmanager
def servers(
    cache: Path, worker_id: str, before: str, after: str, newer: Path | None = None
) -> Iterator[tuple[Server, Server]]:
    """Yield a running server, and what is to run its upgraded copy; `newer` is the cache of that one,
    if it is another."""
    place, newer = new_place(), newer or cache
    before, after = installed(cache, before), installed(newer, after)
    port = port_of_server(worker_id, 10)
    place.mkdir(mode=0o755)
    for name in ("old", "new"):
        (place / name).mkdir(mode=0o755)
    try:
        with Server(place / "old", Bundles(cache).find(before), before, port) as old:
            yield old, Server(place / "new", Bundles(newer).find(after), after, port - 1)
    finally:
        shutil.rmtree(place)


@contextmanager
def servers_of_debian(cache: Path, worker_id: str) -> Iterator[tuple[Server, Server]]:
    """Yield 17 and 18 of Debian's packages; skip the test where 18 is not installed."""
    before, after = "PostgreSQL-17", "PostgreSQL-18"
    if after not in Bundles(cache).installed():
        pytest.skip(f"{after} of Debian's packages is not installed in {cache}")
    with servers(cache, worker_id, before, after) as both:
        yield both


def upgraded(old: Server, new: Server) -> None:
    """Start the upgraded copy of a server that was killed."""
    new.paths.data.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(old.paths.data), str(new.paths.data)], check=True)
    for directory in (new.paths.log, new.paths.sockets):
        accounts.ensure_directory(directory, new.spec.uid)
    empty, account = new.paths.root / "empty", accounts.template_account()
    templates_of(new.spec.engine).make_empty(new.bundle, empty, account)
    where = (new.paths.data, empty, new.spec.uid, new.paths.sockets)
    upgrade.run(Upgrade(old.bundle, new.bundle, *where, lock=None))
    accounts.ensure_passage(new.paths.configuration, new.spec.uid)
    for name in ("certificate", "key"):
        text = getattr(old.paths, name).read_text()
        accounts.write_file(getattr(new.paths, name), text, new.spec.uid)
    new._start()
    new.engine.ensure_replication_ready(REPLICATION_SECRET)
    upgrade.complete(new.node)


def kill(server: Server) -> None:
    """Kill a server: the copy recovers by itself."""
    assert server._process is not None
    server._process.kill()
    server._process.wait(60)


@contextmanager
def upgraded_server(old: Server, new: Server) -> Iterator[None]:
    """Kill a server, and let its upgraded copy run."""
    kill(old)
    upgraded(old, new)
    try:
        yield
    finally:
        new._stop()
