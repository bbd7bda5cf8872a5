"""Snapshots of servers at work, each started: what was committed before is in it, all or nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from openrdb import certificates
from openrdb.engines import rules_of, server_of, templates_of
from openrdb.host.bundles.cache import Bundles
from openrdb.host.volumes import Pool, open_pool
from openrdb.spec import Administrator, NodeSpec
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths
from tests.support.mounts import btrfs, unmount
from tests.support.service import PASSWORD, ports_of_worker
from tests.support.tenants import Login, Session
from tests.support.volumes import TEMPLATE

pytestmark = [pytest.mark.root, pytest.mark.slow]

SECRETS = ("a-secret-of-the-template", "a-secret-of-the-tests", "a-secret-of-the-nodes")
ROWS = 100
SNAPSHOTS = 3


class Node:
    """A server on a volume of a pool, without an agent around it; runs within its context."""

    def __init__(self, pool: Pool, root: Path, name: str, bundle: Bundle, spec: NodeSpec) -> None:
        self.bundle, self.spec = bundle, spec
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
        self._process = subprocess.Popen(
            accounts.as_account(spec.uid, self.engine.command()),
            cwd="/",
            env={"LC_ALL": "C.UTF-8"} | self.bundle.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert self.engine.wait_accepting(self._process.pid, 120)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(self.engine.abort_signal)
        self._process.wait(60)

    def session(self) -> Session:
        spec = self.spec
        where = (spec.engine, spec.address, spec.port, "admin", PASSWORD, self.paths.authority)
        return Login(*where).connect()


@pytest.fixture
def root() -> Iterator[Path]:
    place = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
    place.mkdir(mode=0o755)
    try:
        directory = btrfs(place) / "data"
        (directory / "instances").mkdir(parents=True)
        (directory / "templates").mkdir()
        (directory / TEMPLATE.key).parent.mkdir()
        yield directory
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


def without_identity(data: Path) -> None:
    """Let a copy be a server of its own; recovery needs the rest to be the source's."""
    for name in ("postmaster.pid", "auto.cnf"):
        (data / name).unlink(missing_ok=True)


def test_each_can_be_started(root: Path, cache: Path, newest: str, worker_id: str) -> None:
    bundle, pool, port = (
        Bundles(cache).find(newest),
        open_pool(root),
        ports_of_worker(worker_id, 1)[3],
    )
    maker, uid = templates_of(newest), accounts.template_account()
    spec = NodeSpec(uuid4(), uuid4(), newest, "127.0.0.1", port, uid, 2**29)
    pool.create(TEMPLATE, lambda data: maker.make(bundle, data, uid, SECRETS[0], {}))
    source = Node(pool, root, "source", bundle, spec)
    pool.clone(TEMPLATE, source.volume, uid, maker.renew_identity)
    assert pool.is_atomic(source.volume)
    stop, acknowledged, committed = threading.Event(), list[int](), list[int]()
    snapshots = [pool.volume(root / f"snapshots/{number}") for number in range(SNAPSHOTS)]
    with source:
        verifier = rules_of(newest).verifier(PASSWORD)
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
            for snapshot in snapshots:
                before = len(acknowledged)
                while len(acknowledged) < before + 20:
                    assert all(thread.is_alive() for thread in threads)
                    stop.wait(0.01)
                committed.append(acknowledged[-1])
                pool.snapshot(source.volume, snapshot)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    pool.delete_below(source.paths.root)
    for snapshot, last in zip(snapshots, committed, strict=True):
        copy = Node(
            pool, root, snapshot.key.replace("/", "-"), bundle, replace(spec, node_id=uuid4())
        )
        pool.clone(snapshot, copy.volume, uid, without_identity)
        with copy, copy.session() as session:
            (total,) = session.execute(
                "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)"
            ).fetchone() or (0,)
            count, highest = session.execute("SELECT count(*), max(id) FROM done").fetchone() or ()
            assert total == 2 * 1000 * ROWS
            assert count == highest >= last
