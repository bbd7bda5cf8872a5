"""Upgrades by the official SDK on real engines: a node type, a larger volume, newer binaries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import (
    Instance,
    InstanceSetting,
    UpgradeInstanceRequestMajorUpgradeWorkflow,
)

from openrdb.host.bundles.cache import Bundles
from openrdb.system.bundle import Bundle
from openrdb.system.layout import Layout
from tests.support import minors, replicas
from tests.support.held_service import HeldService
from tests.support.high_availability import nodes, primary
from tests.support.kinds import last_error
from tests.support.recovery_kinds import can_go_back, recovery, restore
from tests.support.service import Service, gone, installed, ports_of_worker, ready, wait_until
from tests.support.tenants import tenant_of
from tests.support.writers import Writers

GB = 10**9
BUFFERS = {
    "PostgreSQL": "SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers'",
    "MySQL": "SELECT @@innodb_buffer_pool_size",
}
"""Memory that each engine takes by its node type."""


def remove(service: Service, instance: Instance) -> None:
    sdk = service.sdk()
    sdk.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(sdk, instance.id))


@pytest.fixture
def instance(service: Service, newest: str) -> Iterator[Instance]:
    made = service.create(newest, name="upgrades")
    yield made
    remove(service, made)


def buffers(service: Service, instance: Instance) -> int:
    with service.connection(instance) as session:
        query = BUFFERS[instance.engine.partition("-")[0]]
        return int(session.execute(query).fetchone()[0])


def test_a_larger_node_type(service: Service, instance: Instance) -> None:
    sdk, tenant = service.sdk(), tenant_of(instance.engine)
    own = InstanceSetting(*tenant.hot)
    sdk.add_instance_settings(instance_id=instance.id, settings=[own])
    instance = ready(sdk, instance.id)
    before = buffers(service, instance)
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")

    answer = sdk.upgrade_instance(instance_id=instance.id, node_type="db-dev-m")
    assert (answer.status, answer.node_type) == ("initializing", "db-dev-m")
    assert answer.endpoints == instance.endpoints
    larger = ready(sdk, instance.id)
    assert larger.volume is not None
    assert (larger.node_type, larger.volume.size) == ("db-dev-m", 25 * GB)
    assert larger.endpoints == instance.endpoints
    assert larger.settings == instance.settings
    assert buffers(service, larger) == 2 * before
    with service.connection(larger) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
        assert tenant.setting(session, own.name) == own.value


def test_a_larger_volume_ends_no_session(service: Service, newest: str) -> None:
    sdk = service.sdk()
    instance = service.create(newest, name="upgrades", volume_type="sbs_5k", volume_size=10 * GB)
    with service.connection(instance) as session:
        sdk.upgrade_instance(instance_id=instance.id, volume_size=20 * GB)
        larger = ready(sdk, instance.id)
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert larger.volume is not None
    assert (larger.volume.size, larger.volume.type_) == (20 * GB, "sbs_5k")
    with pytest.raises(ScalewayException, match="invalid argument"):
        sdk.upgrade_instance(instance_id=instance.id, volume_size=15 * GB)
    remove(service, instance)


def test_settings_that_do_not_fit_are_found_before(service: Service) -> None:
    """A table of locks that the smaller node type has no memory for."""
    sdk = service.sdk()
    instance = service.create(node_type="db-dev-m", volume_type="sbs_5k")
    sdk.add_instance_settings(
        instance_id=instance.id,
        settings=[InstanceSetting("max_locks_per_transaction", "20000")],
    )
    ready(sdk, instance.id)
    with pytest.raises(ScalewayException, match=r"node_type.*max_locks_per_transaction"):
        sdk.upgrade_instance(instance_id=instance.id, node_type="db-dev-s")
    assert sdk.get_instance(instance_id=instance.id).status == "ready"
    remove(service, instance)


def test_a_node_type_that_the_engine_does_not_start_with(cache: Path, worker_id: str) -> None:
    """It is taken back: the instance serves as before, and the operation says why."""
    with HeldService(cache, ports_of_worker(worker_id, 1)) as service:
        service.start()
        instance = service.create("PostgreSQL-17")
        sdk, before = service.sdk(), buffers(service, instance)
        (data,) = Layout(service.data_dir).instance(UUID(instance.id)).glob("nodes/*/data")
        overriding = data / "postgresql.auto.conf"
        usual = overriding.read_bytes()
        overriding.write_bytes(usual + b"superuser_reserved_connections = 500\n")
        service.hold("upgrade_instance", 1)
        sdk.upgrade_instance(instance_id=instance.id, node_type="db-dev-m")
        assert service.wait_begun() == "put_back"
        overriding.write_bytes(usual)
        service.let_go()
        kept = ready(sdk, instance.id)
        assert (kept.node_type, kept.volume) == (instance.node_type, instance.volume)
        assert buffers(service, kept) == before
        status, error = last_error(service, "upgrade_instance")
        assert status == "failed"
        assert "superuser_reserved_connections" in str(error)


both = pytest.mark.parametrize("older", ["PostgreSQL-18", "MySQL-9"], indirect=True)


class Older(NamedTuple):
    service: HeldService
    engine: str
    newest: Bundle
    later: Path
    """Where the newest binaries are not installed yet."""


@pytest.fixture
def older(
    cache: Path, short_tmp: Path, worker_id: str, request: pytest.FixtureRequest
) -> Iterator[Older]:
    """A service whose binaries of an engine (default: PostgreSQL) are named for an earlier minor
    version, and the same binaries by their own name."""
    there = short_tmp / "cache"
    there.mkdir(mode=0o777)
    there.chmod(0o777)  # the load balancer's binaries are copied into it
    engine = getattr(request, "param", "PostgreSQL-18")
    newest = Bundles(cache).find(installed(cache, engine))
    shutil.copytree(newest.path, there / minors.older(newest), symlinks=True)
    with HeldService(there, ports_of_worker(worker_id, 1)) as service:
        service.start()
        yield Older(service, engine, newest, there / newest.name)


@both
def test_a_newer_minor_version(older: Older) -> None:
    service, engine, newest, later = older
    instance = service.create(engine)
    assert instance.upgradable_version == []
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    service.kill()
    shutil.copytree(newest.path, later, symlinks=True)
    service.start()

    sdk = service.sdk()
    (offered,) = sdk.get_instance(instance_id=instance.id).upgradable_version
    assert (offered.name, offered.version) == (engine, engine.rpartition("-")[2])
    assert offered.minor_version == newest.version
    workflow = UpgradeInstanceRequestMajorUpgradeWorkflow(offered.id, with_endpoints=True)
    with pytest.raises(ScalewayException, match="major_upgrade_workflow"):
        sdk.upgrade_instance(instance_id=instance.id, major_upgrade_workflow=workflow)

    answer = sdk.upgrade_instance(instance_id=instance.id, upgradable_version_id=offered.id)
    assert (answer.id, answer.status) == (instance.id, "initializing")
    upgraded = ready(sdk, instance.id)
    assert (upgraded.upgradable_version, upgraded.endpoints) == ([], instance.endpoints)
    assert service.processes(str(later), instance.id)
    with service.connection(upgraded) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)


@both
def test_a_newer_minor_version_of_a_pair(older: Older) -> None:
    """Both nodes run it, and no acknowledged row is lost."""
    service, engine, newest, later = older
    instance = service.create(engine, is_ha_cluster=True)
    service.kill()
    shutil.copytree(newest.path, later, symlinks=True)
    service.start()
    sdk = service.sdk()
    (offered,) = sdk.get_instance(instance_id=instance.id).upgradable_version
    with Writers(service.login(instance)) as writers:
        writers.wait_for(20)
        sdk.upgrade_instance(instance_id=instance.id, upgradable_version_id=offered.id)
        upgraded = ready(sdk, instance.id)
        writers.wait_for(20)
    assert (upgraded.upgradable_version, upgraded.endpoints) == ([], instance.endpoints)
    primary(service, instance)
    assert writers.lost() == []
    for node in nodes(service, instance):
        assert service.processes(str(later), node.name)


@both
@pytest.mark.copies
def test_a_newer_minor_version_of_a_replica(older: Older) -> None:
    """It runs what its instance runs, and follows."""
    service, engine, newest, later = older
    instance = service.create(engine)
    replica = replicas.made(service, instance)
    service.kill()
    shutil.copytree(newest.path, later, symlinks=True)
    service.start()
    sdk = service.sdk()
    (offered,) = sdk.get_instance(instance_id=instance.id).upgradable_version
    sdk.upgrade_instance(instance_id=instance.id, upgradable_version_id=offered.id)
    ready(sdk, instance.id)
    with service.connection(instance) as session:
        session.execute("CREATE TABLE numbers AS SELECT 7 AS n")
    login = replicas.login_of(service, instance, replica)
    wait_until(lambda: replicas.shows(login, 1))
    replicas.following(service, replica.id)
    for node in nodes(service, instance):
        assert service.processes(str(later), node.name)


@both
def test_a_minor_version_leaves_the_window_of_recovery_open(older: Older) -> None:
    service, engine, newest, later = older
    service.kill()
    service.keep_recovery(new_instances=True)
    service.start()
    instance = service.create(engine)
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    wait_until(lambda: can_go_back(service, instance.id))
    (before,) = recovery(service, instance.id)["windows"]
    service.kill()
    shutil.copytree(newest.path, later, symlinks=True)
    service.start()

    sdk = service.sdk()
    (offered,) = sdk.get_instance(instance_id=instance.id).upgradable_version
    sdk.upgrade_instance(instance_id=instance.id, upgradable_version_id=offered.id)
    with service.connection(ready(sdk, instance.id)) as session:
        session.execute("UPDATE kept SET n = 8")
    wait_until(lambda: can_go_back(service, instance.id))
    (after,) = recovery(service, instance.id)["windows"]
    assert after["begins"] == before["begins"]
    for moment, number in ((before["ends"], 7), (None, 8)):
        made = restore(service, instance.id, name=f"of-{number}", to=moment)
        with service.connection(ready(sdk, made.json()["id"])) as session:
            assert session.execute("SELECT n FROM kept").fetchone() == (number,)


def test_binaries_that_do_not_start(older: Older) -> None:
    """The instance serves with those that it had."""
    service, engine, newest, later = older
    instance = service.create(engine)
    service.kill()
    shutil.copytree(newest.path, later, symlinks=True)
    (replace(newest, path=later).share / "timezonesets" / "Default").unlink()
    service.start()

    sdk = service.sdk()
    (offered,) = sdk.get_instance(instance_id=instance.id).upgradable_version
    sdk.upgrade_instance(instance_id=instance.id, upgradable_version_id=offered.id)
    kept = ready(sdk, instance.id)
    assert kept.upgradable_version == [offered]
    assert not service.processes(str(later))
    with service.connection(kept) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert last_error(service, "upgrade_instance")[0] == "failed"
