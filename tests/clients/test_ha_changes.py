"""Highly available instances in the trash, and recovered to a point in time."""

from __future__ import annotations

from tests.cli.test_undelete import delete, undelete
from tests.support.high_availability import kill_primary, primary, printed, remove
from tests.support.recovery_kinds import can_go_back, recovery, restore
from tests.support.service import Service, ready, wait_until

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
