"""Upgrades to another major version by the official SDK, with clients that go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import (
    ACLRuleRequest,
    Instance,
    InstanceSetting,
    UpgradableVersion,
    UpgradeInstanceRequestMajorUpgradeWorkflow,
)

from openrdb.system.layout import Layout
from tests.support.clients import TABLE, Maker, Reader, Writer
from tests.support.kinds import last_error, remarks
from tests.support.service import PASSWORD, Service, gone, installed, ready, wait_until
from tests.support.upgrade_kinds import FOLLOWED

OLD, NEW = "PostgreSQL-14", "PostgreSQL-18"


@pytest.fixture
def old(service: Service, cache: Path) -> Iterator[Instance]:
    installed(cache, NEW)
    made = service.create(installed(cache, OLD), name="majors", tags=["kept"])
    yield made
    sdk = service.sdk()
    for one in sdk.list_instances_all(name="majors"):
        sdk.delete_instance(instance_id=one.id)
        wait_until(lambda one=one: gone(sdk, one.id))


def newest(instance: Instance) -> UpgradableVersion:
    majors = [one.version for one in instance.upgradable_version]
    assert majors == sorted(majors, key=int)
    assert int(majors[0]) > 14
    return instance.upgradable_version[-1]


def test_all_that_was_written_is_there(service: Service, old: Instance) -> None:
    sdk, where = service.sdk(), {"instance_id": old.id}
    sdk.create_user(**where, name="reader", password=PASSWORD, is_admin=False)
    sdk.create_database(**where, name="shop")
    sdk.set_privilege(**where, database_name="shop", user_name="reader", permission="readonly")
    sdk.add_instance_settings(**where, settings=[InstanceSetting("work_mem", "9")])
    ready(sdk, old.id)
    sdk.set_instance_acl_rules(**where, rules=[ACLRuleRequest("127.0.0.0/8", "here")])
    old = ready(sdk, old.id)
    privileges = sdk.list_privileges_all(**where)
    with service.connection(old) as session:
        session.execute(TABLE)
        session.execute("CREATE EXTENSION rdb_logical")
        session.execute("SELECT rdb_logical.create_slot('left_behind')")
    known = Layout(service.data_dir).slots(UUID(old.id))
    wait_until(known.exists)
    workflow = UpgradeInstanceRequestMajorUpgradeWorkflow(newest(old).id, with_endpoints=True)
    with Writer(service, old) as writer, Reader(service, old) as reader:
        answer = sdk.upgrade_instance(**where, major_upgrade_workflow=workflow)
        assert answer.id != old.id
        assert (answer.status, answer.engine, answer.endpoints) == ("provisioning", NEW, [])
        assert (answer.name, answer.tags, answer.settings) == ("majors", ["kept"], old.settings)
        wait_until(lambda: writer.refusals["ReadOnlySqlTransaction"])
        before = reader.answered.copy()
        wait_until(lambda: reader.answered > before)
        assert reader.answered[14] > before[14]
        new = ready(sdk, answer.id)
        done = writer.done
        wait_until(lambda: writer.done > done)
    assert new.endpoints == old.endpoints
    assert (new.upgradable_version, new.settings) == ([], old.settings)
    (rule,) = sdk.list_instance_acl_rules_all(instance_id=new.id)
    assert (rule.ip, rule.description) == ("127.0.0.0/8", "here")
    assert sdk.list_privileges_all(instance_id=new.id) == privileges
    with service.connection(new) as session:
        assert writer.found(session) == writer.done
        assert session.execute("SELECT FROM pg_replication_slots").fetchall() == []
    wait_until(lambda: "slot left_behind of the database rdb" in remarks(service, new.id, "lost"))
    kept = ready(sdk, old.id)
    assert (kept.engine, kept.endpoints) == (OLD, [])
    with service.superuser(kept) as session:
        assert session.execute("SELECT count(*) > 10 FROM public.written").fetchone() == (True,)
        assert session.execute("SHOW autovacuum").fetchone() == ("on",)


@pytest.fixture
def followed(service: Service, cache: Path) -> Iterator[Instance]:
    """An instance that an upgraded copy can catch up with."""
    installed(cache, NEW)
    sdk, made = service.sdk(), service.create(installed(cache, OLD), name="majors")
    with service.connection(made) as session:
        session.execute(TABLE)
        session.execute("ALTER TABLE written ADD PRIMARY KEY (n)")
        session.execute("CREATE TABLE counted (n bigserial PRIMARY KEY)")
    yield made
    for one in sdk.list_instances_all(name="majors"):
        sdk.delete_instance(instance_id=one.id)
        wait_until(lambda one=one: gone(sdk, one.id))


def test_the_new_one_catches_up(service: Service, followed: Instance) -> None:
    counting = "INSERT INTO counted DEFAULT VALUES"
    with Writer(service, followed, counting) as writer:
        new = upgraded(service, followed)
        done = writer.done
        wait_until(lambda: writer.done > done)
    said = remarks(service, new.id)
    assert "catches up" in said
    assert "cannot" not in said
    with service.connection(new) as session:
        assert writer.found(session) == writer.done
        session.execute(counting)
        query = "SELECT count(*) = max(n) AND count(*) > 1 FROM counted"
        assert session.execute(query).fetchone() == (True,)
    for one in (new, ready(service.sdk(), followed.id)):
        with service.superuser(one) as session:
            assert session.execute(FOLLOWED).fetchall() == []


def test_what_is_no_change_of_rows_is_there(service: Service, followed: Instance) -> None:
    """While a client creates tables, catching up is impossible; no table is lost."""
    with Maker(service, followed) as maker, Writer(service, followed) as writer:
        new = upgraded(service, followed)
        done = maker.done
        wait_until(lambda: maker.done > done)
    assert "cannot catch up" in remarks(service, new.id)
    with service.connection(new) as session:
        assert writer.found(session) == writer.done
        query = "SELECT count(*) >= %s FROM pg_class WHERE relname ~ '^made_[0-9]+$'"
        assert session.execute(query, [maker.done]).fetchone() == (True,)
    with service.superuser(ready(service.sdk(), followed.id)) as session:
        assert session.execute(FOLLOWED).fetchall() == []


def upgraded(service: Service, instance: Instance) -> Instance:
    """Upgrade an instance; return the new one."""
    sdk, wanted = service.sdk(), newest(instance).id
    answer = sdk.upgrade_instance(instance_id=instance.id, upgradable_version_id=wanted)
    return ready(sdk, answer.id)


def test_what_a_session_that_asks_for_it_writes_is_there(service: Service, old: Instance) -> None:
    """Reading only is what sessions begin with, and drivers change it: the copy is made again."""
    sdk = service.sdk()
    with service.connection(old) as session:
        session.execute(TABLE)
    with Writer(service, old, "SET default_transaction_read_only = off") as writer:
        answer = sdk.upgrade_instance(instance_id=old.id, upgradable_version_id=newest(old).id)
        new = ready(sdk, answer.id)
        done = writer.done
        wait_until(lambda: writer.done > done)
    assert not writer.refusals["ReadOnlySqlTransaction"]
    with service.connection(new) as session:
        assert writer.found(session) == writer.done


def test_without_endpoints_both_serve(service: Service, old: Instance) -> None:
    """Nothing has to be held: the copy is what was there at some moment."""
    sdk = service.sdk()
    with service.connection(old) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
        session.execute(TABLE)
    workflow = UpgradeInstanceRequestMajorUpgradeWorkflow(newest(old).id, with_endpoints=False)
    with Writer(service, old) as writer:
        answer = sdk.upgrade_instance(instance_id=old.id, major_upgrade_workflow=workflow)
        new, kept = ready(sdk, answer.id), ready(sdk, old.id)
    assert not writer.refusals
    assert kept.endpoints == old.endpoints
    assert new.endpoints != old.endpoints
    for instance in (new, kept):
        with service.connection(instance) as session:
            assert session.execute("SELECT n FROM kept").fetchone() == (7,)


def test_what_pg_upgrade_refuses_leaves_the_old_one_serving(
    service: Service, old: Instance
) -> None:
    sdk = service.sdk()
    with service.connection(old) as session:
        session.execute("CREATE TABLE refused (x regprocedure)")
    answer = sdk.upgrade_instance(instance_id=old.id, upgradable_version_id=newest(old).id)

    def failed() -> bool:
        return str(sdk.get_instance(instance_id=answer.id).status) == "error"

    wait_until(failed)
    kept = ready(sdk, old.id)
    assert kept.endpoints == old.endpoints
    with service.connection(kept) as session:
        assert session.execute("SELECT count(*) FROM refused").fetchone() == (0,)
        session.execute("INSERT INTO refused VALUES ('now()'::regprocedure)")
    status, error = last_error(service, "upgrade_major_version")
    assert status == "failed"
    assert "reg" in str(error)


def test_an_unknown_version_is_refused(service: Service, old: Instance) -> None:
    unknown = UpgradeInstanceRequestMajorUpgradeWorkflow(old.id, with_endpoints=True)
    with pytest.raises(ScalewayException, match=r"major_upgrade_workflow\.upgradable_version_id"):
        service.sdk().upgrade_instance(instance_id=old.id, major_upgrade_workflow=unknown)


@pytest.mark.root
def test_by_accounts_that_the_host_does_not_know(root_service: Service, cache: Path) -> None:
    """As root each instance has an account without an entry, which pg_upgrade refuses."""
    installed(cache, NEW)
    service = root_service
    service.start()
    sdk, made = service.sdk(), service.create(installed(cache, OLD))
    with service.connection(made) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    answer = sdk.upgrade_instance(instance_id=made.id, upgradable_version_id=newest(made).id)
    new = ready(sdk, answer.id)
    with service.connection(new) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    (data,) = service.data_dir.glob(f"instances/{new.id}/nodes/*/data")
    owners = {path.stat().st_uid for path in (data, *data.rglob("*"))}
    (former,) = service.data_dir.glob(f"instances/{made.id}/nodes/*/data")
    assert len(owners) == 1
    assert owners.isdisjoint({0, former.stat().st_uid})
