"""Users, databases, privileges, settings, ACL and endpoints by the official SDK, seen by psycopg."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors
from scaleway import ScalewayException
from scaleway.rdb.v1 import (
    ACLRuleRequest,
    EndpointSpec,
    EndpointSpecLoadBalancer,
    Instance,
    InstanceSetting,
)

from tests.service import PASSWORD, Service, gone, ready, wait_until


@pytest.fixture
def instance(service: Service, engine: str) -> Iterator[Instance]:
    made = service.create(engine, name="inside")
    yield made
    sdk = service.sdk()
    sdk.delete_instance(instance_id=made.id)
    wait_until(lambda: gone(sdk, made.id))


def test_levels_hold_for_later_tables_too(service: Service, instance: Instance) -> None:
    sdk, where = service.sdk(), {"instance_id": instance.id}
    sdk.create_database(**where, name="shop")
    sdk.create_user(**where, name="bob", password=PASSWORD, is_admin=False)
    admin = service.connection_line(instance).replace("dbname=rdb", "dbname=shop")
    bob = service.connection_line(instance, "bob").replace("dbname=rdb", "dbname=shop")
    with psycopg.connect(admin, autocommit=True) as owner:
        owner.execute("CREATE SCHEMA s")
        owner.execute("CREATE TABLE s.before (id serial)")
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(bob)
        for level in ("readonly", "readwrite", "all", "readonly"):
            privilege = {"database_name": "shop", "user_name": "bob"}
            sdk.set_privilege(**where, **privilege, permission=level)
            owner.execute(f"DROP TABLE IF EXISTS s.{level}")
            owner.execute(f"CREATE TABLE s.{level} (id serial)")
            (listed,) = sdk.list_privileges(**where, **privilege).privileges
            assert listed.permission == level
            with psycopg.connect(bob, autocommit=True) as session:
                for table in ("before", level):
                    session.execute(f"SELECT * FROM s.{table}")
                    if level == "readonly":
                        with pytest.raises(errors.InsufficientPrivilege):
                            session.execute(f"INSERT INTO s.{table} DEFAULT VALUES")
                    else:
                        session.execute(f"INSERT INTO s.{table} DEFAULT VALUES")
        owner.execute("GRANT INSERT ON s.before TO bob")
        (listed,) = sdk.list_privileges(**where, **privilege).privileges
        assert listed.permission == "custom"
    sdk.delete_database(**where, name="shop")
    sdk.delete_user(**where, name="bob")
    assert [user.name for user in sdk.list_users(**where).users] == ["admin"]


def test_orphans_are_nobodys_superpower(service: Service, instance: Instance) -> None:
    """What a deleted user leaves behind does not run as superuser."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    sdk.create_user(**where, name="eve", password=PASSWORD, is_admin=True)
    with service.connection(instance, "eve") as eve:
        eve.execute(
            "CREATE FUNCTION who() RETURNS text LANGUAGE sql SECURITY DEFINER "
            "AS 'SELECT current_user::text'"
        )
    sdk.delete_user(**where, name="eve")
    with service.connection(instance) as admin:
        assert admin.execute("SELECT who()").fetchone() == ("pg_database_owner",)


def test_settings_are_in_force_when_ready(service: Service, instance: Instance) -> None:
    sdk, where = service.sdk(), {"instance_id": instance.id}
    wanted = {"max_connections": "77", "work_mem": "9"}
    sdk.set_instance_settings(**where, settings=[InstanceSetting(*one) for one in wanted.items()])
    assert {one.name: one.value for one in ready(sdk, instance.id).settings} == wanted
    with service.connection(instance) as session:
        assert session.execute("SHOW max_connections").fetchone() == ("77",)
        assert session.execute("SHOW work_mem").fetchone() == ("9MB",)
    with pytest.raises(ScalewayException) as refused:
        sdk.set_instance_settings(**where, settings=[InstanceSetting("work_mem", "much")])
    assert refused.value.status_code == 400


def test_settings_that_the_engine_refuses(service: Service, instance: Instance) -> None:
    """What it sees when it reads its files is refused; what it finds at its start, taken back."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    with pytest.raises(ScalewayException, match="must be between") as refused:
        sdk.set_instance_settings(**where, settings=[InstanceSetting("random_page_cost", "-1")])
    assert refused.value.status_code == 400
    assert sdk.get_instance(**where).status == "ready"
    too_many = [InstanceSetting("max_locks_per_transaction", "2147483647")]
    sdk.set_instance_settings(**where, settings=too_many)
    assert ready(sdk, instance.id).settings == instance.settings
    with service.connection(instance) as session:
        assert session.execute("SHOW max_locks_per_transaction").fetchone() == ("64",)
    sdk.add_instance_settings(**where, settings=[InstanceSetting("work_mem", "9")])
    ready(sdk, instance.id)
    with service.connection(instance) as session:
        assert session.execute("SHOW work_mem").fetchone() == ("9MB",)
        sdk.delete_instance_settings(**where, setting_names=["work_mem"])
        left = {setting.name for setting in instance.settings} - {"work_mem"}
        assert {setting.name for setting in ready(sdk, instance.id).settings} == left
        assert session.execute("SHOW work_mem").fetchone() != ("9MB",), "a reload ends no session"


def test_rules_cut_only_whom_they_shut_out(service: Service, instance: Instance) -> None:
    sdk, where = service.sdk(), {"instance_id": instance.id}
    with service.connection(instance) as session:
        sdk.set_instance_acl_rules(**where, rules=[ACLRuleRequest("127.0.0.0/8", "")])
        ready(sdk, instance.id)
        assert session.execute("SELECT 1").fetchone() == (1,)
        sdk.set_instance_acl_rules(**where, rules=[ACLRuleRequest("192.0.2.0/24", "")])
        ready(sdk, instance.id)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(service.connection_line(instance), connect_timeout=5)


def test_deleted_rules_shut_out(service: Service, instance: Instance) -> None:
    sdk, where = service.sdk(), {"instance_id": instance.id}
    sdk.add_instance_acl_rules(**where, rules=[ACLRuleRequest("2001:db8::/32", "six")])
    ready(sdk, instance.id)
    sdk.delete_instance_acl_rules(**where, acl_rule_ips=["0.0.0.0/0"])
    ready(sdk, instance.id)
    assert [rule.ip for rule in sdk.list_instance_acl_rules(**where).rules] == ["2001:db8::/32"]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(service.connection_line(instance), connect_timeout=5)


def test_an_endpoint_migrates(service: Service, instance: Instance, engine: str) -> None:
    """The address stays, and leads to the other instance with its certificate."""
    sdk = service.sdk()
    other = service.create(engine, name="other", init_endpoints=[])
    try:
        with service.connection(instance) as session:
            session.execute("CREATE TABLE here ()")
            (before,) = instance.endpoints
            with pytest.raises(ScalewayException) as refused:
                sdk.migrate_endpoint(endpoint_id=before.id, instance_id=instance.id)
            assert refused.value.status_code == 400
            if other.endpoints:
                sdk.delete_endpoint(endpoint_id=other.endpoints[0].id)
                ready(sdk, other.id)
            moved = sdk.migrate_endpoint(endpoint_id=before.id, instance_id=other.id)
            assert (moved.id, moved.ip, moved.port) == (before.id, before.ip, before.port)
            other = ready(sdk, other.id)
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
        assert ready(sdk, instance.id).endpoints == []
        assert [endpoint.id for endpoint in other.endpoints] == [before.id]
        with service.connection(other) as session:
            assert session.execute("SELECT to_regclass('here')").fetchone() == (None,)
    finally:
        sdk.delete_instance(instance_id=other.id)
        wait_until(lambda: gone(sdk, other.id))


def test_another_endpoint(service: Service, instance: Instance) -> None:
    sdk = service.sdk()
    sdk.delete_endpoint(endpoint_id=instance.endpoints[0].id)
    assert ready(sdk, instance.id).endpoints == []
    spec = EndpointSpec(load_balancer=EndpointSpecLoadBalancer())
    sdk.create_endpoint(instance_id=instance.id, endpoint_spec=spec)
    with service.connection(ready(sdk, instance.id)) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
