"""Snapshots of servers at work, each started: what was committed before is in it, all or nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from openrdb import certificates
from openrdb.engines import rules_of, server_of, templates_of
from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import session as superuser_session
from openrdb.host.bundles.cache import Bundles
from openrdb.host.snapshots import Copier
from openrdb.host.volumes import Pool, Volume, open_pool
from openrdb.spec import Administrator, NodeSpec
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths
from tests.support.mounts import btrfs, ext4, unmount, xfs
from tests.support.service import PASSWORD, port_of_server
from tests.support.tenants import Login, Session
from tests.support.volumes import TEMPLATE, data_directory

pytestmark = [pytest.mark.root, pytest.mark.slow]

SECRETS = ("a-secret-of-the-template", "a-secret-of-the-tests", "a-secret-of-the-nodes")
ROWS = 100
SIZE = 6 * 2**30
"""Of a file system: twenty copies that MySQL has written fit in."""


class Node:
    """A server on a volume of a pool, without an agent around it; runs within its context."""

    def __init__(self, pool: Pool, root: Path, name: str, bundle: Bundle, spec: NodeSpec) -> None:
        self.pool, self.root, self.bundle, self.spec = pool, root, bundle, spec
        self.paths = NodePaths(root / f"instances/{name}", root / f"s{spec.port}")
        self.engine = server_of(spec, bundle, self.paths, SECRETS[1])
        self.volume = pool.volume(self.paths.data)
        accounts.ensure_passage(self.paths.root, spec.uid)

    def __enter__(self) -> Node:
        spec, paths = self.spec, self.paths
        accounts.ensure_passage(paths.configuration, spec.uid)
        for directory in (paths.log, paths.sockets):
            accounts.ensure_directory(directory, spec.uid)
        of_instance = (spec.instance_id, "fr-par", [spec.address])
        made = certificates.issue(certificates.make_authority(*of_instance), *of_instance)
        texts = {paths.certificate: made.presented, paths.key: made.key}
        texts |= {paths.authority: made.authority}
        configuration = self.engine.configuration()
        texts |= {paths.configuration / name: text for name, text in configuration.items()}
        for path, text in texts.items():
            accounts.write_file(path, text, spec.uid)
        self.engine.prepare_start()
        self._process = self.launch()
        assert self.engine.wait_accepting(self._process.pid, 120)
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            accounts.as_account(self.spec.uid, self.engine.command()),
            cwd="/",
            env={"LC_ALL": "C.UTF-8"} | self.bundle.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(self.engine.abort_signal)
        self._process.wait(60)

    def check_structures(self) -> None:
        """Let the server look at every page of what was in use."""
        if self.spec.engine.startswith("MySQL"):
            with self.session() as session:
                for row in session.execute("CHECK TABLE a, b, done EXTENDED").fetchall():
                    assert row[2:] == ("status", "OK"), row
            return
        engine_node = EngineNode(self.spec, self.bundle, self.paths, SECRETS[1])
        with superuser_session.connect(engine_node, "rdb") as session:
            session.execute("CREATE EXTENSION amcheck")
            session.execute(
                "SELECT bt_index_parent_check(indexrelid, true, true) FROM pg_index i "
                "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
                "WHERE amname = 'btree' AND indisvalid AND relpersistence = 'p'"
            )

    def session(self) -> Session:
        spec = self.spec
        where = (spec.engine, spec.address, spec.port, "admin", PASSWORD, self.paths.authority)
        return Login(*where).connect()


@contextmanager
def mounted(make: Callable[[Path, int], Path]) -> Iterator[Path]:
    place = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
    place.mkdir(mode=0o755)
    try:
        yield data_directory(make(place, SIZE) / "data")
    finally:
        unmount(place)
        shutil.rmtree(place)


def move_money(node: Node, stop: threading.Event, acknowledged: list[int]) -> None:
    """Move one unit after the other from one table to the other, each in a transaction."""
    with node.session() as session:
        count = 0
        while not stop.is_set():
            count += 1
            session.execute("BEGIN")
            session.execute("UPDATE a SET v = v - 1 WHERE id = %s", [count % ROWS])
            session.execute("UPDATE b SET v = v + 1 WHERE id = %s", [count % ROWS])
            session.execute("INSERT INTO done VALUES (%s)", [count])
            session.execute("COMMIT")
            acknowledged.append(count)


def rebuild(node: Node, stop: threading.Event) -> None:
    """Make, fill and drop tables, as only a copy of one moment bears it."""
    with node.session() as session:
        while not stop.is_set():
            session.execute("CREATE TABLE passing AS SELECT * FROM a")
            session.execute("CREATE INDEX passing_v ON passing (v)")
            session.execute("DROP TABLE passing")


def born(root: Path, bundle: Bundle, engine: str, port: int) -> Node:
    """Return a node whose volume is made as an instance's is."""
    pool, maker, uid = open_pool(root), templates_of(engine), accounts.template_account()
    spec = NodeSpec(uuid4(), uuid4(), engine, "127.0.0.1", port, uid, 2**29)
    node = Node(pool, root, "source", bundle, spec)
    pool.create(TEMPLATE, lambda data: maker.make(bundle, data, uid, SECRETS[0], {}))
    pool.clone(TEMPLATE, node.volume, uid, maker.renew_identity)
    return node


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """How many snapshots are taken of one server."""
    return 20 if request.config.getoption("--all-faults") else 3


def snapshots_under_load(
    source: Node, count: int, take: Callable[[Volume], None]
) -> dict[Volume, int]:
    """Return snapshots of a server at work, each with the last move that was committed before."""
    stop, acknowledged = threading.Event(), list[int]()
    taken: dict[Volume, int] = {}
    with source:
        verifier = rules_of(source.spec.engine).verifier(PASSWORD)
        source.engine.bootstrap(SECRETS[0], SECRETS[2], Administrator("admin", verifier))
        with source.session() as session:
            for table in ("a", "b"):
                session.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int)")
                for row in range(ROWS):
                    session.execute(f"INSERT INTO {table} VALUES (%s, 1000)", [row])
            session.execute("CREATE TABLE done (id int PRIMARY KEY)")
        threads = [
            threading.Thread(target=move_money, args=(source, stop, acknowledged)),
            threading.Thread(target=rebuild, args=(source, stop)),
        ]
        for thread in threads:
            thread.start()
        try:
            for number in range(count):
                before = len(acknowledged)
                while len(acknowledged) < before + 20:
                    assert all(thread.is_alive() for thread in threads)
                    stop.wait(0.01)
                snapshot = Volume("default", f"snapshots/{number}")
                taken[snapshot] = acknowledged[-1]
                take(snapshot)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    return taken


def check_each(source: Node, snapshots: dict[Volume, int]) -> None:
    """Start a clone of each, after the source is gone, and look for what was committed."""
    pool, uid = source.pool, source.spec.uid
    maker = templates_of(source.spec.engine)
    pool.delete_below(source.paths.root)
    for snapshot, last in snapshots.items():
        spec = replace(source.spec, node_id=uuid4())
        copy = Node(pool, source.root, Path(snapshot.key).name, source.bundle, spec)
        pool.clone(snapshot, copy.volume, uid, maker.renew_identity)
        with copy, copy.session() as session:
            found = session.execute("SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)")
            assert found.fetchone() == (2 * 1000 * ROWS,)
            found = session.execute("SELECT count(*), max(id) FROM done")
            count, highest = found.fetchone() or ()
            assert count == highest >= last
            copy.check_structures()
        pool.delete_below(copy.paths.root)
        pool.remove_deleted()


def test_an_atomic_one_recovers(cache: Path, newest: str, worker_id: str, count: int) -> None:
    with mounted(btrfs) as root:
        port = port_of_server(worker_id, 20)
        source = born(root, Bundles(cache).find(newest), newest, port)
        assert source.pool.is_atomic(source.volume)
        take = partial(source.pool.snapshot, source.volume)
        taken = snapshots_under_load(source, count, take)
        check_each(source, taken)


@pytest.mark.copies
@pytest.mark.parametrize("file_system", [ext4, xfs])
def test_a_copied_one_is_whole(
    cache: Path,
    engine: str,
    worker_id: str,
    count: int,
    file_system: Callable[[Path, int], Path],
) -> None:
    """By backup mode, or by the server itself."""
    with mounted(file_system) as root:
        port = port_of_server(worker_id, 20)
        source = born(root, Bundles(cache).find(engine), engine, port)
        assert not source.pool.is_atomic(source.volume)
        check_each(source, snapshots_under_load(source, count, partial(copied, source)))


def test_a_recovery_that_is_cut_off_begins_again(
    cache: Path, postgresql: str, worker_id: str
) -> None:
    """The server puts `backup_label` aside when it begins, so the next start has none."""
    with mounted(xfs) as root:
        port = port_of_server(worker_id, 20)
        source = born(root, Bundles(cache).find(postgresql), postgresql, port)
        taken = snapshots_under_load(source, 3, partial(copied, source))
        for snapshot in taken:
            data = root / snapshot.key
            account = source.spec.uid
            source.pool.delete(source.volume)
            source.pool.clone(snapshot, source.volume, account)
            source.engine.prepare_start()
            started = source.launch()
            aside = source.paths.data / "backup_label.old"
            while not aside.exists() and started.poll() is None:
                pass
            started.send_signal(source.engine.abort_signal)
            started.wait(60)
            assert (data / "backup_label").exists()
            source.pool.delete(snapshot)
            source.pool.clone(source.volume, snapshot, None)
        check_each(source, taken)


def copied(source: Node, target: Volume) -> None:
    source.engine.copy_data(Copier(source.pool, source.volume, target))
