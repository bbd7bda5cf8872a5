"""What an instance's account puts in root's way: nothing of it is waited for, or followed."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from scaleway.rdb.v1 import Instance

from openrdb.system import accounts
from openrdb.system.layout import Layout, NodePaths
from tests.support.service import Service, gone, interpreter, ports_of_worker, ready, wait_until

pytestmark = pytest.mark.root

_PATIENCE = 30.0
"""Seconds after which an answer counts as hanging."""
_PRELUDE = "import os, socket, sys, time\nplace, victim = sys.argv[1:]\nos.chdir(place)\n"
_FIFO = "os.mkfifo(name)"
_LINK = "os.symlink(victim, name)"
_DANGLING = "os.symlink('/nowhere', name)"
_SPARSE = "open(name, 'w').truncate(100 * 2**30)"
_DIRECTORY = "os.mkdir(name); open(name + '/file', 'w').close()"
_DEEP = """
os.mkdir(name)
os.chdir(name)
for _ in range(3000):
    os.mkdir('d')
    os.chdir('d')
"""
_SOCKET = "socket.socket(socket.AF_UNIX).bind(name)"
_HARD_LINK = """
try:
    os.link(victim, name)
except PermissionError:
    pass  # the kernel itself protects hard links
"""


@dataclass
class Prey:
    """An instance, and what its account must not reach by root's hand."""

    service: Service
    instance: Instance
    victim: Path

    @property
    def paths(self) -> NodePaths:
        layout = Layout(self.service.data_dir)
        instance_id = UUID(self.instance.id)
        (node,) = (layout.instance(instance_id) / "nodes").iterdir()
        return layout.node(instance_id, UUID(node.name))

    @property
    def uid(self) -> int:
        return self.paths.data.stat().st_uid

    def command(self, place: Path, script: str) -> list[str]:
        python, _ = interpreter()
        arguments = [python, "-I", "-c", _PRELUDE + script, str(place), str(self.victim)]
        return accounts.as_account(self.uid, arguments)

    def do(self, place: Path, script: str) -> None:
        """Run a script as the account."""
        subprocess.run(self.command(place, script), check=True, timeout=_PATIENCE)

    def put(self, place: Path, name: str, script: str) -> None:
        """Put something in a file's place."""
        script = f"name = {name!r}\nif os.path.lexists(name): os.unlink(name)\n{script}"
        self.do(place, script)

    @contextmanager
    def doing(self, place: Path, script: str) -> Iterator[None]:
        """Have the account do something for a while."""
        process = subprocess.Popen(
            self.command(place, script + "\n"), stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield
        finally:
            process.kill()
            process.communicate()

    def request(self, method: str, path: str = "", **options: object) -> int:
        """Return the status of an answer, which comes in time."""
        before = time.monotonic()
        path = f"/instances/{self.instance.id}{path}"
        status = self.service.request(method, path, **options).status_code
        assert time.monotonic() - before < _PATIENCE
        return status

    def restarts(self) -> None:
        assert self.request("POST", "/restart") == 200
        ready(self.service.sdk(), self.instance.id)

    def works(self) -> None:
        assert self.request("GET", "/users") == 200
        with self.service.connection(self.instance) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture(scope="module")
def root(cache: Path, worker_id: str) -> Iterator[Service]:
    with Service(cache, ports_of_worker(worker_id, 1), as_root=True) as service:
        service.environment["OPENRDB_LOGS_ROUND"] = "1"
        service.environment["OPENRDB_STOP_TIMEOUT"] = "10"  # what hangs is killed
        service.environment["OPENRDB_TRASH"] = "0"  # what is deleted is removed at once
        service.start()
        yield service


@pytest.fixture(scope="module")
def instances() -> dict[str, Instance]:
    return {}


@pytest.fixture
def prey(root: Service, instances: dict[str, Instance], newest: str) -> Iterator[Prey]:
    if newest not in instances:
        instances[newest] = root.create(newest)
    yield from _with_victim(root, instances[newest])


@pytest.fixture
def doomed(root: Service) -> Iterator[Prey]:
    """An instance for one test."""
    yield from _with_victim(root, root.create())


def _with_victim(service: Service, instance: Instance) -> Iterator[Prey]:
    """Have a file like /etc/shadow, which must be as it was afterwards."""
    victim = service.home / "shadow.log"
    victim.write_text("root:secret" * 100)
    victim.chmod(0o600)
    os.utime(victim, (10**9, 10**9))
    before = victim.stat()
    yield Prey(service, instance, victim)
    after = victim.stat()
    for what in ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime", "st_nlink"):
        assert getattr(after, what) == getattr(before, what), what
    victim.unlink()


def test_in_the_way_of_pruning(prey: Prey) -> None:
    log = prey.paths.log
    script = "".join(
        f"name = '{number}.log'\n{trap.strip()}\n"
        for number, trap in enumerate((_FIFO, _LINK, _DANGLING, _DIRECTORY, _SOCKET, _HARD_LINK))
    )
    prey.do(log, script)
    prey.do(log, f"name = 'x' * 251 + '.log'\n{_SPARSE}")
    prey.do(log, f"name = 'sparse.log'\n{_SPARSE}")
    prey.do(log, f"name = 'older.log'\n{_SPARSE}\nos.utime(name, (1, 1))")
    wait_until(lambda: not any(log.glob("*older*")), 60)
    prey.works()
    prey.do(
        log,
        "import shutil\nfor name in os.listdir('.'):\n"
        "    shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)",
    )
    prey.restarts()


@pytest.mark.parametrize("trap", [_FIFO, _LINK, _DANGLING, _SPARSE, _DIRECTORY, _DEEP, _SOCKET])
def test_in_the_way_of_a_restart(prey: Prey, trap: str) -> None:
    paths = prey.paths
    is_mysql = prey.instance.engine.startswith("MySQL")
    name = "mysqld.pid" if is_mysql else "postmaster.pid"
    prey.put(paths.data, name, trap)
    if is_mysql:  # its temporary files are made again there at each start
        moved = f"'moved-{uuid4().hex}'"
        prey.do(paths.data, f"name = '#tmp'\nos.rename(name, {moved})\n{trap}")
    assert prey.request("GET", "/users") in (200, 409)
    prey.restarts()
    prey.works()
    settings = {"settings": [{"name": "max_connections", "value": "77"}]}
    assert prey.request("PUT", "/settings", json=settings) == 200
    ready(prey.service.sdk(), prey.instance.id)
    prey.works()


@pytest.mark.parametrize("trap", [_FIFO, _LINK, _DANGLING, _DIRECTORY])
def test_in_the_way_of_sessions(prey: Prey, trap: str) -> None:
    sockets = prey.paths.sockets
    is_mysql = prey.instance.engine.startswith("MySQL")
    (name,) = (
        path.name
        for path in sockets.iterdir()
        if path.name.endswith(".sock" if is_mysql else tuple("0123456789"))
    )
    prey.put(sockets, name, trap)
    assert prey.request("GET", "/users") in (
        200,
        409,
    )  # a session of a moment ago may still be there
    prey.restarts()
    prey.works()


_TALK = """
server = socket.socket(socket.AF_UNIX)
server.bind(name)
server.listen()
print('begun', flush=True)
while True:
    client, _ = server.accept()
    try:
        while True:
            client.sendall(b'Name: HAProxy ' * 1000)
    except OSError:
        pass
"""


def test_another_in_the_load_balancers_place(doomed: Prey) -> None:
    endpoint = UUID(doomed.instance.endpoints[0].id)
    sockets = Layout(doomed.service.data_dir).sockets(endpoint)
    rules = {"rules": [{"ip": "127.0.0.0/8", "description": ""}]}
    asked = []
    victim = doomed.service.home / "root.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(victim))
        server.listen()
        server.settimeout(1)

        def listen() -> None:
            while victim.exists():
                try:
                    asked.append(server.accept())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        leading = f"os.symlink({str(victim)!r}, name)"
        doomed.put(sockets, "balancer.sock", leading)
        doomed.request("PUT", "/acls", json=rules)
        ready(doomed.service.sdk(), doomed.instance.id)
        victim.unlink()
        thread.join()
    assert not asked, "root talked to another's socket"
    with doomed.doing(sockets, "name = 'balancer.sock'\nos.unlink(name)\n" + _TALK):
        doomed.request("PUT", "/acls", json=rules)
        ready(doomed.service.sdk(), doomed.instance.id)
    doomed.works()
    _delete(doomed)


def _delete(prey: Prey) -> None:
    instances = Layout(prey.service.data_dir).instances
    assert prey.request("DELETE") == 200
    wait_until(lambda: gone(prey.service.sdk(), prey.instance.id), 60)
    _wait_removed(prey)
    assert not (instances / prey.instance.id).exists()


def _wait_removed(prey: Prey) -> None:
    """Wait until nothing is left of what was deleted."""
    wait_until(lambda: not any((prey.service.data_dir / "removed").iterdir()), 60)


_ENDLESS = """
print('begun', flush=True)
number = 0
while True:
    number += 1
    try:
        os.makedirs(f'{number % 50}/{number}')
        open(f'{number % 50}/{number}/file', 'w').close()
    except OSError:
        pass
"""


def test_a_tree_that_grows_is_removed(doomed: Prey) -> None:
    doomed.do(doomed.paths.data, f"name = 'deep'\n{_DEEP}")
    with doomed.doing(doomed.paths.log, _ENDLESS):
        assert doomed.request("DELETE") == 200
        wait_until(lambda: gone(doomed.service.sdk(), doomed.instance.id), 60)
        assert not Layout(doomed.service.data_dir).instance(UUID(doomed.instance.id)).exists()
    _wait_removed(doomed)
