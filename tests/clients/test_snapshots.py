"""Snapshots and clones of instances at work, by the official SDK: what was acknowledged is in them."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import Instance, Snapshot
from scaleway.vpc.v2 import VpcV2API

from openrdb.host.bundles.cache import Bundles
from tests.support.service import (
    PASSWORD,
    Service,
    clone_plugin,
    gone,
    installed,
    ports_of_worker,
    ready,
    wait_until,
)
from tests.support.tenants import tenant_of

ROWS = 100
TOTAL = 2 * 1000 * ROWS
BLOCK = {"volume_type": "sbs_5k", "volume_size": 5_000_000_000}


def fill(service: Service, instance: Instance) -> None:
    with service.connection(instance) as session:
        for table in ("a", "b"):
            session.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int)")
            for row in range(ROWS):
                session.execute(f"INSERT INTO {table} VALUES (%s, 1000)", [row])
        session.execute("CREATE TABLE done (id int PRIMARY KEY)")


class Writer:
    """Moves one unit after the other from one table to the other, and notes what is acknowledged."""

    def __init__(self, service: Service, instance: Instance) -> None:
        self._service, self._instance = service, instance
        self._stop = threading.Event()
        self.acknowledged = 0

    def move_money(self) -> None:
        with self._service.connection(self._instance) as session:
            while not self._stop.is_set():
                count = self.acknowledged + 1
                session.execute("BEGIN")
                session.execute("UPDATE a SET v = v - 1 WHERE id = %s", [count % ROWS])
                session.execute("UPDATE b SET v = v + 1 WHERE id = %s", [count % ROWS])
                session.execute("INSERT INTO done VALUES (%s)", [count])
                session.execute("COMMIT")
                self.acknowledged = count

    def rebuild(self) -> None:
        with self._service.connection(self._instance) as session:
            while not self._stop.is_set():
                session.execute("CREATE TABLE passing AS SELECT * FROM a")
                session.execute("CREATE INDEX passing_v ON passing (v)")
                session.execute("DROP TABLE passing")

    @contextmanager
    def working(self) -> Iterator[None]:
        threads = [threading.Thread(target=one) for one in (self.move_money, self.rebuild)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: self.acknowledged > 20)
            yield
            assert all(thread.is_alive() for thread in threads)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def made(service: Service, snapshot_id: str) -> Snapshot:
    """The snapshot when it has settled, and must be ready then."""
    sdk = service.sdk()
    while (snapshot := sdk.get_snapshot(snapshot_id=snapshot_id)).status == "creating":
        pass  # the answer is held until the status settles
    assert snapshot.status == "ready"
    return snapshot


HEAPS = """SELECT * FROM pg_class, verify_heapam(pg_class.oid)
    WHERE relkind IN ('r', 'm', 't') AND relpersistence = 'p'"""
INDEXES = """SELECT bt_index_check(indexrelid, true) FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE amname = 'btree' AND relpersistence = 'p' AND indisvalid"""


def check_pages(service: Service, instance: Instance) -> None:
    """The engine's own checks find nothing."""
    if instance.engine.startswith("MySQL"):
        with service.connection(instance) as session:
            found = session.execute("CHECK TABLE a, b, done EXTENDED").fetchall()
        assert {row[-1] for row in found} == {"OK"}
        return
    with service.superuser(instance) as session:
        session.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        assert session.execute(HEAPS).fetchall() == []
        assert session.execute(INDEXES).fetchall()


def check(service: Service, instance: Instance, least: int) -> None:
    """The instance has everything up to some row, nothing by half, and works."""
    check_pages(service, instance)
    with service.connection(instance) as session:
        query = "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)"
        assert session.execute(query).fetchone() == (TOTAL,)
        count, highest = session.execute("SELECT count(*), max(id) FROM done").fetchone()
        assert count == highest >= least
        session.execute("INSERT INTO done VALUES (-1)")


def delete(service: Service, *instances: Instance) -> None:
    sdk = service.sdk()
    for one in instances:
        sdk.delete_instance(instance_id=one.id)
    for one in instances:
        wait_until(lambda one=one: gone(sdk, one.id))


def contents(service: Service, instance: Instance) -> Any:
    """The users, databases and privileges of an instance."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    return (
        sorted((one.name, one.is_admin) for one in sdk.list_users_all(**where)),
        sorted(one.name for one in sdk.list_databases_all(**where)),
        sorted(
            (one.user_name, one.database_name, str(one.permission))
            for one in sdk.list_privileges_all(**where)
        ),
    )


@pytest.mark.copies
def test_an_instance_of_a_snapshot_that_outlives_its_instance(
    service: Service, engine: str
) -> None:
    sdk = service.sdk()
    instance = service.create(engine, **BLOCK, tags=["one"], name="its")
    where = {"instance_id": instance.id}
    hot = tenant_of(engine).hot
    sdk.create_database(**where, name="shop")
    sdk.create_user(**where, name="clerk", password=PASSWORD, is_admin=False)
    sdk.set_privilege(**where, database_name="shop", user_name="clerk", permission="readonly")
    service.request(
        "PUT",
        f"/instances/{instance.id}/settings",
        json={"settings": [{"name": hot[0], "value": hot[1]}]},
    )
    ready(sdk, instance.id)
    fill(service, instance)
    writer = Writer(service, instance)
    with writer.working():
        acknowledged = writer.acknowledged
        asked = sdk.create_snapshot(**where, name="one")
        assert asked.status == "creating"
        assert sdk.get_instance(**where).status in ("snapshotting", "ready")
        snapshot = made(service, asked.id)
    assert snapshot.size == BLOCK["volume_size"]
    instance = ready(sdk, instance.id)
    inside, secret = contents(service, instance), service.superuser_secret(instance)
    certificate = service.certificate(instance).read_text()
    delete(service, instance)

    copies = []
    for number in range(2):
        copy = sdk.create_instance_from_snapshot(
            snapshot_id=snapshot.id, instance_name=f"copy{number}"
        )
        assert copy.status == "provisioning"
        copies.append(ready(sdk, copy.id))
        check(service, copies[-1], acknowledged)
    assert made(service, snapshot.id).instance_name == "its"
    first, second = copies
    assert (first.name, first.tags) == ("copy0", ["one"])
    assert first.settings == instance.settings
    assert first.volume == instance.volume
    assert [one.load_balancer is None for one in first.endpoints] == [False]
    assert contents(service, first) == inside
    secrets = {secret, *(service.superuser_secret(one) for one in copies)}
    certificates = {certificate, *(service.certificate(one).read_text() for one in copies)}
    assert len(secrets) == len(certificates) == 3
    identities = set()
    for one in copies:
        with service.connection(one) as session:
            identities.add(tenant_of(engine).identity(session))
    assert len(identities) == 2
    sdk.delete_snapshot(snapshot_id=snapshot.id)

    def is_gone() -> bool:
        with contextlib.suppress(ScalewayException):
            sdk.get_snapshot(snapshot_id=snapshot.id)
            return False
        return True

    wait_until(is_gone)
    assert not (service.data_dir / "snapshots" / snapshot.id).exists()
    sdk.restart_instance(instance_id=second.id)
    with service.connection(ready(sdk, second.id)) as session:
        assert session.execute("SELECT min(id) FROM done").fetchone() == (-1,)
    delete(service, *copies)


@pytest.mark.copies
def test_a_clone_of_an_instance_at_work(service: Service, newest: str) -> None:
    sdk = service.sdk()
    instance = service.create(newest, tags=["one"])
    fill(service, instance)
    writer = Writer(service, instance)
    with writer.working():
        acknowledged = writer.acknowledged
        asked = sdk.clone_instance(instance_id=instance.id, name="clone", node_type="db-dev-m")
        assert asked.status == "provisioning"
        clone = ready(sdk, asked.id)
        check(service, clone, acknowledged)
    instance = ready(sdk, instance.id)
    assert (clone.name, clone.node_type, clone.tags) == ("clone", "db-dev-m", ["one"])
    assert clone.settings == instance.settings
    assert clone.volume is not None
    assert clone.volume.size == 25_000_000_000
    assert contents(service, clone) == contents(service, instance)
    assert not list((service.data_dir / "snapshots").iterdir())
    delete(service, instance, clone)


@pytest.mark.copies
def test_a_copy_of_a_private_instance_stays_private(service: Service, newest: str) -> None:
    sdk, vpcs = service.sdk(), VpcV2API(service.sdk().client)
    network = vpcs.create_private_network(default_route_propagation_enabled=False, name="copies")
    private = {"private_network": {"private_network_id": network.id, "ipam_config": {}}}
    sent = {"engine": newest, "init_endpoints": [private], **BLOCK}
    sent |= {"user_name": "admin", "password": PASSWORD, "node_type": "db-dev-s"}
    answer = service.request("POST", "/instances", json=sent)
    instance = ready(sdk, answer.json()["id"])
    snapshot = made(service, sdk.create_snapshot(instance_id=instance.id, name="one").id)
    ready(sdk, instance.id)
    copy = ready(
        sdk, sdk.create_instance_from_snapshot(snapshot_id=snapshot.id, instance_name="x").id
    )
    (endpoint,) = copy.endpoints
    assert endpoint.private_network is not None
    assert endpoint.private_network.private_network_id == network.id
    assert endpoint.ip != instance.endpoints[0].ip
    assert service.login(copy).answers()
    delete(service, instance, copy)
    vpcs.delete_private_network(private_network_id=network.id)
    alone = ready(
        sdk, sdk.create_instance_from_snapshot(snapshot_id=snapshot.id, instance_name="y").id
    )
    assert alone.endpoints == []
    delete(service, alone)
    made(service, snapshot.id)
    sdk.delete_snapshot(snapshot_id=snapshot.id)


@pytest.mark.root
@pytest.mark.copies
def test_copies_belong_to_accounts_of_their_own(root_service: Service, newest: str) -> None:
    service = root_service
    service.start()
    sdk = service.sdk()
    instance = service.create(newest, **BLOCK)
    fill(service, instance)
    snapshot = made(service, sdk.create_snapshot(instance_id=instance.id, name="one").id)
    ready(sdk, instance.id)
    asked = [
        sdk.create_instance_from_snapshot(snapshot_id=snapshot.id, instance_name="copy"),
        sdk.clone_instance(instance_id=instance.id, name="clone"),
    ]
    copies = [ready(sdk, one.id) for one in asked]
    for one in copies:
        check_pages(service, one)
    owners = []
    for one in (instance, *copies):
        (data,) = service.data_dir.glob(f"instances/{one.id}/nodes/*/data")
        (owner,) = {path.lstat().st_uid for path in (data, *data.rglob("*"))}
        owners.append(owner)
    assert len({*owners, 0}) == 4
    (kept,) = (service.data_dir / "snapshots").iterdir()
    assert {path.lstat().st_uid for path in (kept, *kept.rglob("*"))} == {0}
    assert kept.parent.stat().st_mode & 0o077 == 0


@pytest.mark.copies
def test_tables_that_cannot_be_copied_are_named(service: Service, mysql_version: str) -> None:
    sdk = service.sdk()
    instance = service.create(mysql_version, **BLOCK)
    with service.connection(instance) as session:
        session.execute("CREATE TABLE old (id int) ENGINE = MyISAM")
    for ask in (sdk.create_snapshot, sdk.clone_instance):
        with pytest.raises(ScalewayException, match=r"rdb\.old is of the engine MyISAM") as refused:
            ask(instance_id=instance.id, name="one")
        assert refused.value.response.status_code == 412
    assert sdk.list_snapshots_all(instance_id=instance.id) == []
    assert sdk.get_instance(instance_id=instance.id).status == "ready"
    with service.connection(instance) as session:
        session.execute("ALTER TABLE old ENGINE = InnoDB")
    snapshot = made(service, sdk.create_snapshot(instance_id=instance.id, name="two").id)
    sdk.delete_snapshot(snapshot_id=snapshot.id)
    delete(service, ready(sdk, instance.id))


@pytest.fixture
def without_plugin(cache: Path, short_tmp: Path, worker_id: str) -> Iterator[Service]:
    """A service whose MySQL has no clone plugin, as MySQL 8 from `engines install`."""
    there = short_tmp / "cache"
    there.mkdir(mode=0o777)
    there.chmod(0o777)  # the load balancer's binaries are copied into it
    bundle = Bundles(cache).find(installed(cache, "MySQL-9"))
    plugin = clone_plugin(bundle)
    assert plugin is not None
    shutil.copytree(
        bundle.path,
        there / bundle.name,
        symlinks=True,
        ignore=shutil.ignore_patterns(plugin.name),
    )
    with Service(there, ports_of_worker(worker_id, 1)) as service:
        service.start()
        yield service


def test_without_the_plugin_it_is_said(without_plugin: Service) -> None:
    service, sdk = without_plugin, without_plugin.sdk()
    instance = service.create("MySQL-9", **BLOCK)
    for ask in (sdk.create_snapshot, sdk.clone_instance):
        with pytest.raises(ScalewayException, match="no clone plugin") as refused:
            ask(instance_id=instance.id, name="one")
        assert refused.value.response.status_code == 412
    assert [one.id for one in sdk.list_instances_all()] == [instance.id]
    fill(service, ready(sdk, instance.id))
    delete(service, instance)
