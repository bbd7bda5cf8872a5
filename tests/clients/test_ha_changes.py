"""Highly available instances: deleted and brought back, recovered, with another master key, with moved
endpoints, and upgraded to another major version."""

from __future__ import annotations

import signal
from pathlib import Path

from scaleway.rdb.v1 import UpgradeInstanceRequestMajorUpgradeWorkflow

from tests.cli.test_keys import keys
from tests.cli.test_undelete import delete, undelete
from tests.support.high_availability import kill_primary, primary, printed, remove
from tests.support.recovery_kinds import can_go_back, recovery, restore
from tests.support.replicas import following, login_of, made, shows
from tests.support.service import Service, installed, ready, wait_until
from tests.support.writers import Writers

MOMENTS = 120.0
"""Seconds in which a base backup is there."""


def test_deleted_and_brought_back(fresh_service: Service, newest: str) -> None:
    """With all that it had, whichever node was the primary; and it is protected again."""
    service = fresh_service
    service.start()
    instance = service.create(newest, name="back", is_ha_cluster=True)
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    kill_primary(service, instance)
    before = primary(service, instance)
    delete(service, instance.id)
    undelete(service, instance.id)
    back = ready(service.sdk(), instance.id)
    assert (primary(service, back), printed(service, back)["is_protected"]) == (before, True)
    kill_primary(service, back)
    ready(service.sdk(), back.id)
    with service.connection(back) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)


def last_begins(service: Service, instance_id: str) -> str:
    """When the last window begins; a failover ends it, and another one begins later."""
    return str(recovery(service, instance_id)["windows"][-1]["begins"])


def test_recovered_to_before_a_failover(fresh_service: Service, newest: str) -> None:
    """What was written on either node; the recovered instance stands alone."""
    service = fresh_service
    service.keep_recovery(new_instances=True)
    service.start()
    sdk, instance = service.sdk(), service.create(newest, name="source", is_ha_cluster=True)
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    wait_until(lambda: can_go_back(service, instance.id), MOMENTS)
    before = last_begins(service, instance.id)
    kill_primary(service, instance)
    ready(sdk, instance.id)
    wait_until(lambda: last_begins(service, instance.id) > before, MOMENTS)
    wait_until(lambda: can_go_back(service, instance.id), MOMENTS)
    with service.connection(instance) as session:
        session.execute("UPDATE kept SET n = 8")
    made = restore(service, instance.id, name="later")
    assert made.status_code == 200, made.text
    recovered = ready(sdk, made.json()["id"])
    assert recovered.is_ha_cluster is False
    with service.connection(recovered) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (8,)
    for one in (recovered, instance):
        remove(service, one)


def test_kept_through_another_master_key(fresh_service: Service, newest: str) -> None:
    """The nodes' own secrets are sealed with it; the pair has no others."""
    service = fresh_service
    service.start()
    instance = service.create(newest, name="rotated", is_ha_cluster=True)
    with Writers(service.login(instance)) as writers:
        writers.wait_for(20)
        service.kill(signal.SIGTERM)
        done = keys(service, "rotate-master")
        assert done.returncode == 0, done.stderr
        service.start()
        kill_primary(service, instance)
        writers.wait_for(20)
        wait_until(lambda: printed(service, instance)["is_protected"], 120)
    assert writers.lost() == []


def test_endpoints_move_from_it_and_back(service: Service, newest: str) -> None:
    sdk = service.sdk()
    pair = service.create(newest, name="pair", is_ha_cluster=True)
    alone = service.create(newest, name="alone")
    (endpoint,) = pair.endpoints
    for one in (pair, alone):
        with service.connection(one) as session:
            session.execute(f"CREATE TABLE named AS SELECT '{one.name}' AS name")

    sdk.delete_endpoint(endpoint_id=alone.endpoints[0].id)
    ready(sdk, alone.id)
    for target, other in ((alone, pair), (pair, alone)):
        sdk.migrate_endpoint(endpoint_id=endpoint.id, instance_id=target.id)
        assert ready(sdk, other.id).endpoints == []
        assert ready(sdk, target.id).endpoints == [endpoint]
        kill_primary(service, pair)
        with service.connection(ready(sdk, target.id)) as session:
            assert session.execute("SELECT name FROM named").fetchone() == (target.name,)
    for one in (pair, alone):
        remove(service, one)


def test_another_major_version_of_it(service: Service, cache: Path) -> None:
    """The new instance stands alone; the old one keeps its standby and its replica."""
    sdk, newer = service.sdk(), installed(cache, "PostgreSQL-18")
    old = service.create(installed(cache, "PostgreSQL-17"), name="majors", is_ha_cluster=True)
    with service.connection(old) as session:
        session.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
    replica = made(service, old)
    login = login_of(service, old, replica)
    (version,) = ready(sdk, old.id).upgradable_version
    workflow = UpgradeInstanceRequestMajorUpgradeWorkflow(version.id, with_endpoints=False)
    answer = sdk.upgrade_instance(instance_id=old.id, major_upgrade_workflow=workflow)
    assert (answer.engine, answer.is_ha_cluster, answer.read_replicas) == (newer, False, [])
    new = ready(sdk, answer.id)
    assert new.is_ha_cluster is False
    kept = ready(sdk, old.id)
    assert (kept.is_ha_cluster, len(kept.read_replicas)) == (True, 1)
    kill_primary(service, kept)
    ready(sdk, old.id)
    with service.connection(kept) as session:
        session.execute("INSERT INTO numbers VALUES (7)")
    wait_until(lambda: shows(login, 1), 120)
    following(service, replica.id)
    with service.connection(new) as session:
        assert session.execute("SELECT count(*) FROM numbers").fetchone() == (0,)
    for one in (new, kept):
        remove(service, one)


def test_another_major_version_of_it_with_its_endpoints(service: Service, cache: Path) -> None:
    """Clients go on with the new instance; the old one keeps its standby, and its replica its own."""
    sdk, newer = service.sdk(), installed(cache, "PostgreSQL-18")
    old = service.create(installed(cache, "PostgreSQL-17"), name="moved", is_ha_cluster=True)
    replica = made(service, old)
    login = login_of(service, old, replica)
    (version,) = ready(sdk, old.id).upgradable_version
    with service.connection(old) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    workflow = UpgradeInstanceRequestMajorUpgradeWorkflow(version.id, with_endpoints=True)
    answer = sdk.upgrade_instance(instance_id=old.id, major_upgrade_workflow=workflow)
    new = ready(sdk, answer.id)
    assert (new.engine, new.is_ha_cluster, new.read_replicas) == (newer, False, [])
    assert new.endpoints == old.endpoints
    with service.connection(new) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    kept = ready(sdk, old.id)
    assert (kept.endpoints, kept.is_ha_cluster, len(kept.read_replicas)) == ([], True, 1)
    kill_primary(service, kept)
    ready(sdk, old.id)
    following(service, replica.id)
    assert login.answers()
    for one in (new, kept):
        remove(service, one)
