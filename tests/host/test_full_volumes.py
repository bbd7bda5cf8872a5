"""Volumes that fill: their users are warned, then stopped; nothing breaks, and nobody else notices."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from openrdb.host.records import NodeRecord
from openrdb.host.volume_space import VolumeSpaces
from openrdb.host.volumes import Volume
from openrdb.host.volumes.pools import Pools
from openrdb.spec import NodeSpec
from openrdb.system import files
from openrdb.system.layout import Layout
from tests.host.test_snapshots import simple_quotas
from tests.host.test_snapshots_of_servers import mounted
from tests.support.agent import RESERVE, Agent, Node
from tests.support.mounts import btrfs, ext4
from tests.support.place import DISK
from tests.support.service import port_of_server
from tests.support.tenants import Session, tenant_of

pytestmark = [pytest.mark.root, pytest.mark.slow]

MIB = 2**20
SIZE = 400 * MIB
LARGER = 3 * SIZE
_OVERRIDE = {
    "PostgreSQL": "SET default_transaction_read_only = off",
    "MySQL": "SET SESSION transaction_read_only = 0",
}
_TABLE = {
    "PostgreSQL": [
        "CREATE TABLE filling (id int PRIMARY KEY, content text)",
        "ALTER TABLE filling ALTER content SET STORAGE EXTERNAL",  # not compressed
    ],
    "MySQL": ["CREATE TABLE filling (id int PRIMARY KEY, content longtext)"],
}
_PACE = 0.04
"""Seconds after each MiB: a busy machine looks too seldom to see that a volume is full before it
is at the wall."""
_INSERT = f"INSERT INTO filling VALUES (%s, repeat('x', {MIB}))"


def name(node: Node) -> str:
    return tenant_of(node.spec.engine).name


def override(node: Node, session: Session) -> None:
    session.execute(_OVERRIDE[name(node)])


def prepare(node: Node) -> None:
    with node.session() as session:
        for statement in _TABLE[name(node)]:
            session.execute(statement)


def fill(node: Node, first: int, *, overriding: bool = False) -> tuple[int, str]:
    """Write until it is refused; return the next number, and why."""
    number = first
    try:
        with node.session() as session:
            if overriding:
                override(node, session)
            while True:
                session.execute(_INSERT, [number])
                number += 1
                time.sleep(_PACE)
    except Exception as error:
        return number, str(error)


def rows_of(node: Node) -> tuple[int, ...]:
    with node.session() as session:
        found = session.execute("SELECT count(*), max(id), min(length(content)) FROM filling")
        return tuple(int(one) for one in found.fetchone() or ())


def used(node: Node) -> int:
    return files.tree_size(node.paths.data) + files.tree_size(node.paths.log)


class Neighbour:
    """An instance on the same disk that writes all the time, and must never notice anything."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.error: Exception | None = None
        self.count = 0
        self.longest = 0.0

    def __enter__(self) -> Neighbour:
        with self._node.session() as session:
            session.execute("CREATE TABLE counted (id int PRIMARY KEY)")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        try:
            with self._node.session() as session:
                while not self._stop.wait(0.01):
                    began = time.monotonic()
                    session.execute("INSERT INTO counted VALUES (%s)", [self.count])
                    self.longest = max(self.longest, time.monotonic() - began)
                    self.count += 1
        except Exception as error:
            self.error = error


@pytest.fixture
def short_tmp(short_tmp: Path) -> Iterator[Path]:
    """The same on the disk: in memory one fills its volume faster than on any disk."""
    path = DISK / f"{short_tmp.name}-disk"
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def place(pool: str, short_tmp: Path) -> Iterator[Path]:
    """A data directory on a btrfs with simple quotas, or on whatever the disk has."""
    with ExitStack() as ending:
        if pool == "quotas":
            root = ending.enter_context(mounted(btrfs))
            ending.enter_context(simple_quotas(root))
            shutil.rmtree(root)
        else:
            root = short_tmp / "data"
        root.mkdir(mode=0o755)
        yield root


@pytest.mark.parametrize("pool", ["quotas", "none"])
def test_a_full_one(pool: str, newest: str, cache: Path, worker_id: str, short_tmp: Path) -> None:
    with place(pool, short_tmp) as root, Agent(root, cache) as agent:
        node = agent.node(newest, port_of_server(worker_id, 30), SIZE)
        other = agent.node(newest, port_of_server(worker_id, 31), 4 * SIZE)
        pid = node.pid
        with Neighbour(other) as neighbour:
            prepare(node)
            number, why = fill(node, 0)
            node.wait_for("read_only")
            assert "read-only" in node.state.writes_reason
            print(f"{newest} {pool}: read-only at {used(node) / MIB:.0f} MiB: {why}")
            assert used(node) < SIZE + RESERVE // 2
            with node.session() as session, pytest.raises(Exception, match=r"(?i)read.only"):
                session.execute(_INSERT, [number])
            assert rows_of(node)[0] in (number, number + 1)
            # Who overrides it fills on, to the wall.
            number = rows_of(node)[0]
            number, why = fill(node, number, overriding=True)
            node.wait_for("closed")
            print(f"{newest} {pool}: closed at {used(node) / MIB:.0f} MiB: {why}")
            assert used(node) < SIZE + RESERVE
            with (
                tenant_of(newest).refuses("superuser")
                if name(node) == "PostgreSQL"
                else pytest.raises(Exception, match="offline")
            ):
                node.connect()
            assert node.pid == pid, "the server never broke off"
            assert node.grow(LARGER) == "open"
            assert rows_of(node)[0] in (number, number + 1)
            with node.session() as session:
                session.execute(_INSERT, [number + 1])
            assert rows_of(node)[2] == MIB
        assert neighbour.count > 0
        print(f"{newest} {pool}: the neighbour's longest write took {neighbour.longest:.2f} s")


def test_deleting_ends_it(newest: str, cache: Path, worker_id: str, short_tmp: Path) -> None:
    with place("none", short_tmp) as root, Agent(root, cache) as agent:
        node = agent.node(newest, port_of_server(worker_id, 30), SIZE)
        prepare(node)
        fill(node, 0)
        node.wait_for("read_only")
        with node.session() as session:
            override(node, session)
            session.execute("DROP TABLE filling")
        node.wait_for("open")
        prepare(node)


@contextmanager
def least_free(root: Path) -> Iterator[list[int]]:
    """The least free space of a file system while something happens."""
    least, stop = [files.free_bytes(root)], threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            least[0] = min(least[0], files.free_bytes(root))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield least
    finally:
        stop.set()
        thread.join()


def test_a_pool_without_quotas(newest: str, cache: Path, worker_id: str) -> None:
    """Whoever fills it is stopped before the others notice, and comes back when there is room."""
    with mounted(ext4) as root, Agent(root, cache) as agent:
        node = agent.node(newest, port_of_server(worker_id, 30), 100 * SIZE)
        other = agent.node(newest, port_of_server(worker_id, 31), 100 * SIZE)
        prepare(node)
        ballast = root / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, files.free_bytes(root) - 2 * SIZE)
        reserve = agent.host._space.least_free(agent.host._pool)
        with Neighbour(other) as neighbour, least_free(root) as least:
            number, why = fill(node, 0)
            node.wait_for("closed")
        print(f"{newest}: stopped at {number} MiB, {why}")
        print(f"{newest}: {least[0] / MIB:.0f} MiB were left of a reserve of {reserve / MIB:.0f}")
        assert least[0] > 0
        assert neighbour.count > 0
        assert "host" in node.state.writes_reason
        assert other.state.writes == "open"
        ballast.unlink()
        node.wait_for("open")
        assert rows_of(node)[0] in (number, number + 1)


@pytest.mark.parametrize("pool", ["quotas", "none"])
def test_it_holds_through_every_death(
    pool: str, newest: str, cache: Path, worker_id: str, short_tmp: Path
) -> None:
    with place(pool, short_tmp) as root, Agent(root, cache) as agent:
        node = agent.node(newest, port_of_server(worker_id, 30), SIZE)
        prepare(node)
        number, _ = fill(node, 0)
        node.wait_for("read_only")
        agent.restart()
        node.kill()
        number = rows_of(node)[0]
        with node.session() as session, pytest.raises(Exception, match=r"(?i)read.only"):
            session.execute(_INSERT, [number])
        number, _ = fill(node, number, overriding=True)
        node.wait_for("closed")
        node.kill()
        agent.restart()
        with pytest.raises(Exception, match=r"pg_hba\.conf rejects|offline mode"):
            node.connect()
        assert node.grow(LARGER) == "open"
        assert rows_of(node)[0] in (number, number + 1)


def test_nothing_of_a_tenants_overrides_it(
    postgresql: str, cache: Path, worker_id: str, short_tmp: Path
) -> None:
    """What roles and databases have set, and transactions that began before."""
    with place("none", short_tmp) as root, Agent(root, cache) as agent:
        node = agent.node(postgresql, port_of_server(worker_id, 30), SIZE)
        prepare(node)
        with node.session() as session, node.session() as second:
            for whose in ("ROLE admin", "ROLE admin IN DATABASE rdb"):
                session.execute(f"ALTER {whose} SET default_transaction_read_only = off")
            second.execute("BEGIN")
            second.execute("INSERT INTO filling VALUES (-1, '')")
            fill(node, 0)
            node.wait_for("read_only")
            for open_before in (session, second):
                with pytest.raises(Exception, match="terminat"):
                    open_before.execute("SELECT 1")
        with node.session() as session, pytest.raises(Exception, match="read-only"):
            session.execute("DELETE FROM filling")


def test_a_server_that_does_not_obey_starts_anew(
    newest: str, cache: Path, worker_id: str, short_tmp: Path
) -> None:
    with place("none", short_tmp) as root, Agent(root, cache) as agent:
        node = agent.node(newest, port_of_server(worker_id, 30), SIZE)
        pid = node.pid
        assert pid is not None
        with (node.paths.log / "ballast").open("wb") as ballast:
            os.kill(pid, signal.SIGSTOP)
            os.posix_fallocate(ballast.fileno(), 0, SIZE + RESERVE)
        node.wait_for("closed")
        assert node.pid != pid
        agent.host.ensure_accepting(node.spec)
        with pytest.raises(Exception, match=r"pg_hba\.conf rejects|offline mode"):
            node.connect()


def test_a_limit_follows_what_snapshots_keep() -> None:
    """What was overwritten counts towards a limit for as long as a snapshot has it: a volume that is
    far from full must not meet it."""
    with place("quotas", Path()) as root:
        layout = Layout(root)
        pools = Pools(layout, {})
        pool = pools.default
        spec = NodeSpec(*(uuid4(), uuid4(), "PostgreSQL-18", "127.0.0.1", 1, None, 2**30))
        record = NodeRecord(replace(spec, volume_size=200 * MIB), "bundle")
        spaces = VolumeSpaces(layout, pools, 64 * MIB)
        volume = pool.volume(layout.node(spec.instance_id, spec.node_id).data)
        pool.path(volume).parent.mkdir(parents=True)
        pool.create(volume, Path.mkdir)
        for number in range(6):
            with (pool.path(volume) / "large").open("wb") as file:
                for _ in range(10):
                    used = spaces.used(record)
                    assert used is not None
                    spaces.limit(record, used)
                    file.write(os.urandom(10 * MIB))
            pool.snapshot(volume, Volume("default", f"snapshots/{number}"))
        spaces.limit(record, 100 * MIB)
        with pytest.raises(OSError, match="quota") as refused:
            (pool.path(volume) / "more").write_bytes(os.urandom(200 * MIB))
        assert refused.value.errno == errno.EDQUOT
