"""High availability by the official SDK on real engines: made, enabled, killed, changed, removed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import Instance, InstanceSetting

from tests.support.held_service import HeldService
from tests.support.high_availability import kill_primary, nodes, primary, record, remove
from tests.support.kinds import last_error
from tests.support.programs import held
from tests.support.service import Service, ports_of_worker, ready, wait_until
from tests.support.tenants import tenant_of
from tests.support.writers import Writers

GB = 10**9


@pytest.fixture
def instance(service: Service, newest: str) -> Iterator[Instance]:
    """A highly available one."""
    made = service.create(newest, name="pair", is_ha_cluster=True)
    yield made
    remove(service, made)


def test_made_and_killed(service: Service, instance: Instance) -> None:
    """All that the API is for works on the other node; what users see of the instance stays."""
    assert instance.is_ha_cluster is True
    sdk = service.sdk()
    sdk.create_user(instance_id=instance.id, name="carol", password="Carols-pass-1", is_admin=False)
    certificate, rules = service.certificate(instance).read_bytes(), rules_of(service, instance)
    takes_innodb_only(service, instance)
    with Writers(service.login(instance)) as writers:
        writers.wait_for(50)
        before = kill_primary(service, instance)
        takes_innodb_only(service, instance)
        writers.wait_for(50)
    kept = ready(sdk, instance.id)
    assert writers.lost() == []
    assert primary(service, instance) != before
    told = protections(service, instance)
    assert told == ["ended", "began"] * (len(told) // 2)
    assert told
    assert kept.endpoints == instance.endpoints
    assert service.certificate(instance).read_bytes() == certificate
    assert rules_of(service, instance) == rules
    sdk.create_database(instance_id=instance.id, name="later")
    sdk.set_privilege(
        instance_id=instance.id, database_name="later", user_name="carol", permission="readwrite"
    )
    sdk.update_user(instance_id=instance.id, name="carol", password="Carols-pass-2")
    with service.connection(instance, "carol", "Carols-pass-2", "later") as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    sdk.delete_database(instance_id=instance.id, name="later")
    sdk.delete_user(instance_id=instance.id, name="carol")
    sdk.renew_instance_certificate(instance_id=instance.id)
    assert service.certificate(instance).read_bytes() != certificate
    with service.connection(instance) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    tells_that_it_is_not_protected(service, instance)


def protections(service: Service, instance: Instance) -> list[str]:
    """What the events say of both nodes' having each commit."""
    done = service.run(
        "events", instance.id, "--count", "100", "--json", "--data-dir", str(service.data_dir)
    )
    assert done.returncode == 0, done.stderr
    events = json.loads(done.stdout)
    return [one["outcome"] for one in events if one["action"] == "protection"]


def tells_that_it_is_not_protected(service: Service, instance: Instance) -> None:
    """By the API and the command line, for as long as its standby does nothing."""

    def status() -> str:
        return str(service.sdk().get_instance(instance_id=instance.id).status)

    def told() -> str:
        done = service.run("status", instance.id, "--data-dir", str(service.data_dir))
        assert done.returncode == 0, done.stderr
        return done.stdout

    with held(service, instance.id, f"node-{record(service, instance).standby}"):
        wait_until(lambda: status() == "autohealing")
        assert "not protected: " in told()
        with service.connection(instance) as session:  # it works on
            assert session.execute("SELECT 7").fetchone() == (7,)
    wait_until(lambda: status() == "ready", 120)
    assert "not protected" not in told()


def takes_innodb_only(service: Service, instance: Instance) -> None:
    if not instance.engine.startswith("MySQL"):
        return
    with service.connection(instance) as session:
        for kind in ("TABLE", "TEMPORARY TABLE"):
            with pytest.raises(pymysql.err.MySQLError, match="Table creation is disallowed"):
                session.execute(f"CREATE {kind} rdb.tale (a int) ENGINE=MyISAM")


def rules_of(service: Service, instance: Instance) -> list[str]:
    return [rule.ip for rule in service.sdk().list_instance_acl_rules_all(instance_id=instance.id)]


def last_events(service: Service, instance: Instance) -> str:
    """What the operator is shown of it."""
    done = service.run("events", instance.id, "-n", "5", "--data-dir", str(service.data_dir))
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


REMARKS = {
    "PostgreSQL": (
        "CREATE UNLOGGED TABLE fleeting (n int)",
        "unlogged tables of the database rdb are empty after a failover",
    ),
    "MySQL": (
        "CREATE TABLE keyless (n int)",
        "the table rdb.keyless has no primary key, which nodes on several hosts need",
    ),
}
"""By engine: what is in no one's way, and what is said of it when high availability is enabled."""


def test_enabled_on_an_instance_at_work(service: Service, newest: str) -> None:
    sdk, one = service.sdk(), service.create(newest, name="enabled")
    with Writers(service.login(one)) as writers, service.connection(one) as session:
        writers.wait_for(50)
        remarkable, said = REMARKS[one.engine.partition("-")[0]]
        session.execute(remarkable)
        answer = sdk.upgrade_instance(instance_id=one.id, enable_ha=True)
        assert (answer.status, answer.is_ha_cluster) == ("initializing", True)
        assert answer.endpoints == one.endpoints
        paired = ready(sdk, one.id)
        if newest.startswith("PostgreSQL"):  # MySQL's servers have to be started for it
            assert session.execute("SELECT 1").fetchone() == (1,)
        assert said in last_events(service, one)
        takes_innodb_only(service, paired)
        kill_primary(service, paired)
        writers.wait_for(50)
    assert ready(sdk, one.id).endpoints == one.endpoints
    assert writers.lost() == []
    assert sdk.upgrade_instance(instance_id=one.id, enable_ha=True).is_ha_cluster is True
    remove(service, one)


def test_changed_under_writers(service: Service, instance: Instance) -> None:
    """Restarts, settings that both nodes must have in an order, and another node type."""
    sdk, tenant = service.sdk(), tenant_of(instance.engine)

    def set_connections(number: str) -> None:
        setting = InstanceSetting("max_connections", number)
        sdk.add_instance_settings(instance_id=instance.id, settings=[setting])
        settled = ready(sdk, instance.id)
        assert setting in settled.settings
        with service.connection(instance) as session:
            assert tenant.setting(session, "max_connections") == number

    @contextmanager
    def moves() -> Iterator[None]:
        """The other node is the primary afterwards: nobody waits for a restart."""
        before = record(service, instance).epoch
        yield
        ready(sdk, instance.id)
        assert record(service, instance).epoch > before

    def set_cold(value: str) -> None:
        setting = InstanceSetting(tenant.cold[0], value)
        sdk.add_instance_settings(instance_id=instance.id, settings=[setting])

    with Writers(service.login(instance)) as writers:
        writers.wait_for(20)
        with moves():
            sdk.restart_instance(instance_id=instance.id)
        writers.wait_for(20)
        for number in ("150", "50"):
            set_connections(number)
            writers.wait_for(20)
        with moves():
            set_cold(tenant.cold[1])
        writers.wait_for(20)
        with moves():
            sdk.upgrade_instance(instance_id=instance.id, node_type="db-dev-m")
        assert ready(sdk, instance.id).node_type == "db-dev-m"
        writers.wait_for(20)
        kill_primary(service, instance)
        writers.wait_for(20)
        set_connections("120")
        writers.wait_for(20)
    assert writers.lost() == []


def test_copies_of_it(service: Service, newest: str) -> None:
    """A clone, and an instance of a snapshot, which is highly available if it is asked to be."""
    sdk = service.sdk()
    block: dict[str, Any] = {"volume_type": "sbs_5k", "volume_size": 10 * GB}
    source = service.create(newest, name="source", is_ha_cluster=True, **block)
    with service.connection(source) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    kill_primary(service, source)
    ready(sdk, source.id)
    snapshot = sdk.create_snapshot(instance_id=source.id, name="copy")
    wait_until(lambda: sdk.get_snapshot(snapshot_id=snapshot.id).status == "ready")
    restored = sdk.create_instance_from_snapshot(
        snapshot_id=snapshot.id, instance_name="restored", is_ha_cluster=True
    )
    clone = sdk.clone_instance(instance_id=source.id, name="clone")
    assert (restored.is_ha_cluster, clone.is_ha_cluster) == (True, False)
    for copy in (ready(sdk, restored.id), ready(sdk, clone.id)):
        with service.connection(copy) as session:
            assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    kill_primary(service, restored)
    with service.connection(ready(sdk, restored.id)) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    sdk.delete_snapshot(snapshot_id=snapshot.id)
    for one in (source, restored, clone):
        remove(service, one)


def test_a_backup_of_it(service: Service, instance: Instance) -> None:
    sdk = service.sdk()
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    kill_primary(service, instance)
    ready(sdk, instance.id)
    backup = sdk.create_database_backup(
        instance_id=instance.id, database_name="rdb", name="of-a-pair"
    )
    wait_until(lambda: sdk.get_database_backup(database_backup_id=backup.id).status == "ready")
    with service.connection(instance) as session:
        session.execute("DROP TABLE kept")
    ready(sdk, instance.id)
    sdk.restore_database_backup(
        database_backup_id=backup.id, instance_id=instance.id, database_name="rdb"
    )
    wait_until(lambda: sdk.get_database_backup(database_backup_id=backup.id).status == "ready")
    ready(sdk, instance.id)
    with service.connection(instance) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    sdk.delete_database_backup(database_backup_id=backup.id)


def test_what_is_in_the_way_is_named(service: Service) -> None:
    sdk = service.sdk()
    one = service.create("MySQL-9", name="obstructed")
    with service.connection(one) as session:
        session.execute("CREATE TABLE rdb.tale (a int) ENGINE=MyISAM")
    with pytest.raises(ScalewayException, match="tale") as refused:
        sdk.upgrade_instance(instance_id=one.id, enable_ha=True)
    assert refused.value.status_code == 412
    kept = sdk.get_instance(instance_id=one.id)
    assert (kept.status, kept.is_ha_cluster) == ("ready", False)
    assert len(nodes(service, one)) == 1
    remove(service, one)


@contextmanager
def in_the_way(service: Service, instance: Instance) -> Iterator[None]:
    """Let there be what no standby can be made of, as the API does not see it any more."""
    if instance.engine.startswith("MySQL"):
        with service.connection(instance) as session:
            session.execute("CREATE TABLE rdb.tale (a int) ENGINE=MyISAM")
            yield
            session.execute("DROP TABLE rdb.tale")
    else:
        fifo = nodes(service, instance)[0] / "data" / "fifo"
        os.mkfifo(fifo)
        yield
        fifo.unlink()


def test_a_pair_that_cannot_be_made_is_taken_back(cache: Path, worker_id: str, newest: str) -> None:
    with HeldService(cache, ports_of_worker(worker_id, 1)) as service:
        service.start()
        sdk, one = service.sdk(), service.create(newest, name="taken-back")
        before = nodes(service, one)
        service.hold("enable_high_availability", 0)
        sdk.upgrade_instance(instance_id=one.id, enable_ha=True)
        assert service.wait_begun() == "ensure_free_ports"
        with in_the_way(service, one):
            service.let_go()
            kept = ready(sdk, one.id)
        assert (kept.is_ha_cluster, kept.endpoints) == (False, one.endpoints)
        assert nodes(service, one) == before
        status, error = last_error(service, "enable_high_availability")
        assert (status, bool(error)) == ("failed", True)
        with service.connection(one) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
        sdk.upgrade_instance(instance_id=one.id, enable_ha=True)
        assert ready(sdk, one.id).is_ha_cluster is True
        remove(service, one)
