"""Read replicas by the official SDK: made of an instance at work, reading only, reset and promoted."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from scaleway import ScalewayException
from scaleway.ipam.v1 import IpamV1API
from scaleway.rdb.v1 import (
    ACLRuleRequest,
    Instance,
    InstanceSetting,
)
from scaleway.vpc.v2 import VpcV2API

from openrdb.engines.mysql.reserved import REPLICATION
from openrdb.engines.mysql.sql import quoted_account
from tests.support.held_service import HeldService
from tests.support.replicas import (
    DIRECT,
    count,
    execute_as_superuser,
    following,
    gone_replica,
    login_of,
    made,
    nodes_of,
    private,
    shows,
)
from tests.support.service import Service, gone, kill, ports_of_worker, ready, wait_until
from tests.support.tenants import Login


class Writer:
    """Inserts numbers from 1 on; all up to `done` were acknowledged."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._ending = threading.Event()
        self.done = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            wait_until(lambda: self.done > 20)
            yield
            assert thread.is_alive()
        finally:
            self._ending.set()
            thread.join()

    def _work(self) -> None:
        with self._login.connect() as session:
            while not self._ending.wait(0.005):
                session.execute("INSERT INTO numbers VALUES (%s)", [self.done + 1])
                self.done += 1


@pytest.fixture
def instance(service: Service, newest: str) -> Iterator[Instance]:
    made = service.create(newest, name="replicated")
    with service.connection(made) as session:
        session.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
    yield made
    sdk = service.sdk()

    def is_deleted() -> bool:
        try:
            sdk.delete_instance(instance_id=made.id)
        except ScalewayException as refused:
            return refused.status_code == 404
        return False

    wait_until(is_deleted)


@pytest.mark.copies
def test_replica_of_an_instance_at_work(service: Service, instance: Instance) -> None:
    writer = Writer(service.login(instance))
    with writer.working():
        replica = made(service, instance)
        (endpoint,) = replica.endpoints
        assert endpoint.direct_access is not None
        login, done = login_of(service, instance, replica), writer.done
        wait_until(lambda: shows(login, done))
    wait_until(lambda: shows(login, writer.done))
    (shown,) = ready(service.sdk(), instance.id).read_replicas
    assert (shown.id, shown.status) == (replica.id, "ready")

    with login.connect() as session, pytest.raises(Exception, match=r"read-only|read only"):
        session.execute("INSERT INTO numbers VALUES (-1)")
    with login.connect() as session, pytest.raises(Exception, match=r"read-only|read only"):
        session.execute(login.tenant.create_user("somebody", "S0mebody-of-them"))

    # The instance's rules are the direct access's as well; no rules let nobody in.
    sdk = service.sdk()
    sdk.set_instance_acl_rules(instance_id=instance.id, rules=[])
    ready(sdk, instance.id)
    assert not login.answers()
    rules = [ACLRuleRequest(ip="0.0.0.0/0", description="all")]
    sdk.set_instance_acl_rules(instance_id=instance.id, rules=rules)
    ready(sdk, instance.id)
    assert login.answers()

    assert sdk.delete_read_replica(read_replica_id=replica.id).status == "deleting"
    wait_until(lambda: gone_replica(service, replica.id))
    assert not login.answers()
    assert ready(sdk, instance.id).read_replicas == []
    assert service.login(instance).answers()


@pytest.mark.copies
def test_replica_follows_what_is_done_to_its_instance(service: Service, instance: Instance) -> None:
    sdk = service.sdk()
    replica = made(service, instance, endpoint_spec=[DIRECT])
    login = login_of(service, instance, replica)
    name, value = login.tenant.cold
    for changed in (value, str(int(value) * 2), value):
        setting = InstanceSetting(name=name, value=changed)
        sdk.set_instance_settings(instance_id=instance.id, settings=[setting])
        ready(sdk, instance.id)
        following(service, replica.id)
        with login.connect() as session:
            assert login.tenant.setting(session, name) == changed
    sdk.restart_instance(instance_id=instance.id)
    ready(sdk, instance.id)
    sdk.renew_instance_certificate(instance_id=instance.id)
    ready(sdk, instance.id)
    following(service, replica.id)
    login = login_of(service, instance, replica)  # which trusts the new certificate only
    with service.connection(instance) as session:
        session.execute("INSERT INTO numbers VALUES (1)")
    wait_until(lambda: shows(login, 1))

    # A killed one comes back, and is not shown as ready before.
    (node,) = nodes_of(service, instance, "replica")
    kill(service.processes(login.tenant.process, node))
    with service.connection(instance) as session:
        session.execute("INSERT INTO numbers VALUES (2)")
    wait_until(lambda: shows(login, 2))
    following(service, replica.id)


@pytest.mark.copies
def test_replica_that_is_behind_gets_lower_settings(service: Service, instance: Instance) -> None:
    if instance.engine.startswith("MySQL"):
        pytest.skip("its followers start with whatever they are given")
    sdk = service.sdk()
    replica = made(service, instance, endpoint_spec=[DIRECT])
    login, replay = login_of(service, instance, replica), "SELECT pg_wal_replay_{}()"
    name, value = login.tenant.cold

    def primary_has_it() -> bool:
        try:
            with service.connection(instance) as session:
                return login.tenant.setting(session, name) == value
        except login.tenant.failed:
            return False  # it is being started again

    execute_as_superuser(service, instance, replay.format("pause"), role="replica")
    setting = InstanceSetting(name=name, value=value)
    sdk.set_instance_settings(instance_id=instance.id, settings=[setting])
    wait_until(primary_has_it)
    time.sleep(1.0)  # in which it was started again too early, though it had heard of nothing
    execute_as_superuser(service, instance, replay.format("resume"), role="replica")
    ready(sdk, instance.id)
    following(service, replica.id)
    with login.connect() as session:
        assert login.tenant.setting(session, name) == value


_BREAKING = {
    "PostgreSQL": "ALTER ROLE _rdb_replication NOLOGIN",
    "MySQL": f"ALTER USER {quoted_account(REPLICATION)} ACCOUNT LOCK",
}
_MENDING = {
    "PostgreSQL": "ALTER ROLE _rdb_replication LOGIN",
    "MySQL": f"ALTER USER {quoted_account(REPLICATION)} ACCOUNT UNLOCK",
}


@pytest.mark.copies
def test_replica_that_is_cut_off_is_not_shown_as_ready(
    service: Service, instance: Instance
) -> None:
    sdk = service.sdk()
    replica = made(service, instance)
    login = login_of(service, instance, replica)
    (node,) = nodes_of(service, instance, "replica")
    execute_as_superuser(service, instance, _BREAKING[login.tenant.name])
    kill(service.processes(login.tenant.process, node))
    status = partial(sdk.get_read_replica, read_replica_id=replica.id)
    wait_until(lambda: status().status == "initializing")
    told = service.run("status", instance.id, "--data-dir", str(service.data_dir))
    assert f"{replica.id[:8]} (initializing: " in told.stdout, told.stdout
    with pytest.raises(ScalewayException) as refused:
        sdk.promote_read_replica(read_replica_id=replica.id)
    assert refused.value.status_code == 409
    assert ready(sdk, instance.id).status == "ready"  # it has nothing to do with its replicas
    execute_as_superuser(service, instance, _MENDING[login.tenant.name])
    with service.connection(instance) as session:
        session.execute("INSERT INTO numbers VALUES (1)")
    assert following(service, replica.id).endpoints == replica.endpoints
    wait_until(lambda: shows(login, 1))
    scraped = service.request("GET", "//metrics").text
    assert re.search(rf'^openrdb_node_lag_seconds{{.*node="{node}".*}} ', scraped, re.MULTILINE)
    assert 'openrdb_read_replicas{region="fr-par",status="ready"}' in scraped


@pytest.mark.copies
def test_private_replicas_reset_and_promoted(service: Service, instance: Instance) -> None:
    sdk = service.sdk()
    vpc, ipam = VpcV2API(sdk.client), IpamV1API(sdk.client)
    network = vpc.create_private_network(default_route_propagation_enabled=False)
    replica = sdk.create_read_replica(
        instance_id=instance.id, endpoint_spec=[DIRECT, private(network.id)], same_zone=False
    )
    (endpoint,) = replica.endpoints
    assert endpoint.private_network is not None
    assert replica.same_zone is False
    replica = following(service, replica.id)
    own, direct = replica.endpoints
    assert own.id == endpoint.id
    assert direct.direct_access is not None
    for one in (own, direct):
        assert sdk.get_endpoint(endpoint_id=str(one.id)).port == one.port
        at = replace(service.login(instance), host=str(one.ip), port=int(one.port))
        assert at.answers()
    (listed,) = ipam.list_i_ps_all(resource_id=replica.id)
    assert listed.resource is not None
    assert listed.resource.name == f"read-replica-{replica.id[:8]}"
    with pytest.raises(ScalewayException) as refused:
        vpc.delete_private_network(private_network_id=network.id)
    assert refused.value.status_code == 412

    with service.connection(instance) as session:
        for number in range(10):
            session.execute("INSERT INTO numbers VALUES (%s)", [number])
    reset = sdk.reset_read_replica(read_replica_id=replica.id)
    assert reset.status == "initializing"
    assert [one.id for one in reset.endpoints] == [own.id, direct.id]
    replica = following(service, replica.id)
    assert [one.id for one in replica.endpoints] == [own.id, direct.id]
    login = login_of(service, instance, replica)
    wait_until(lambda: shows(login, 10))

    sdk.delete_endpoint(endpoint_id=str(direct.id))
    assert following(service, replica.id).endpoints == [own]
    assert not login.answers()
    added = sdk.create_read_replica_endpoint(read_replica_id=replica.id, endpoint_spec=[DIRECT])
    assert added.status == "initializing"
    replica = following(service, replica.id)
    assert len(replica.endpoints) == 2

    promoted = sdk.promote_read_replica(read_replica_id=replica.id)
    assert promoted.name == "promoted - replicated"
    assert promoted.status == "initializing"
    assert promoted.settings == instance.settings
    promoted = ready(sdk, promoted.id)
    wait_until(lambda: gone_replica(service, replica.id))
    kinds = [one.load_balancer is not None for one in promoted.endpoints]
    assert sorted(kinds) == [False, True]
    with service.connection(promoted) as session:
        assert count(session) == 10
        session.execute("INSERT INTO numbers VALUES (-1)")
    with service.connection(instance) as session:
        assert count(session) == 10
    assert service.superuser_secret(promoted) != service.superuser_secret(instance)
    users = [
        {one.name for one in sdk.list_users_all(instance_id=i.id)} for i in (instance, promoted)
    ]
    assert users[0] == users[1]
    sdk.create_user(
        instance_id=promoted.id, name="another", password="An0ther-of-them", is_admin=False
    )
    sdk.delete_instance(instance_id=promoted.id)
    wait_until(lambda: gone(sdk, promoted.id))
    vpc.delete_private_network(private_network_id=network.id)


@pytest.mark.copies
def test_a_replica_is_away_while_it_is_reset(cache: Path, worker_id: str, newest: str) -> None:
    with HeldService(cache, ports_of_worker(worker_id, 1)) as service:
        service.start()
        sdk, instance = service.sdk(), service.create(newest)
        replica = made(service, instance)
        login = login_of(service, instance, replica)
        service.hold("reset_read_replica", 1)
        with login.connect() as session:
            sdk.reset_read_replica(read_replica_id=replica.id)
            assert service.wait_begun() == "reset"
            service.wait_done()
            with pytest.raises(login.tenant.failed):
                session.execute("SELECT 1")
        assert not login.answers()
        held = sdk.get_read_replica(read_replica_id=replica.id)
        assert (held.status, held.endpoints) == ("initializing", replica.endpoints)
        service.let_go()
        assert following(service, replica.id).endpoints == replica.endpoints
        assert login.answers()


@pytest.mark.copies
def test_instance_is_deleted_with_its_replicas(service: Service, instance: Instance) -> None:
    sdk = service.sdk()
    replicas = [made(service, instance) for _ in range(3)]
    with pytest.raises(ScalewayException) as refused:
        sdk.create_read_replica(instance_id=instance.id)
    assert refused.value.status_code == 403
    logins = [login_of(service, instance, one) for one in replicas]
    assert all(one.answers() for one in logins)
    sdk.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(sdk, instance.id))
    assert all(gone_replica(service, one.id) for one in replicas)
    assert not any(one.answers() for one in logins)
