"""Users, databases, privileges, settings, ACL and endpoints by the official SDK, seen by tenants."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import (
    ACLRuleRequest,
    EndpointSpec,
    EndpointSpecLoadBalancer,
    Instance,
    InstanceSetting,
)

from tests.support.service import PASSWORD, Service, gone, ready, wait_until
from tests.support.tenants import Tenant, tenant_of


@pytest.fixture
def instance(service: Service, engine: str) -> Iterator[Instance]:
    made = service.create(engine, name="inside")
    yield made
    sdk = service.sdk()
    sdk.delete_instance(instance_id=made.id)
    wait_until(lambda: gone(sdk, made.id))


@pytest.fixture
def tenant(engine: str) -> Tenant:
    return tenant_of(engine)


def test_levels_hold_for_later_tables_too(
    service: Service, instance: Instance, tenant: Tenant
) -> None:
    sdk, where = service.sdk(), {"instance_id": instance.id}
    sdk.create_database(**where, name="shop")
    sdk.create_user(**where, name="bob", password=PASSWORD, is_admin=False)
    bob = service.login(instance, "bob", database="shop")
    privilege = {"database_name": "shop", "user_name": "bob"}

    def listed() -> str:
        (only,) = sdk.list_privileges(**where, **privilege).privileges
        return str(only.permission)

    with service.connection(instance, database="shop") as owner:
        owner.execute("CREATE TABLE before_all (id serial, n int)")
        with tenant.refuses("database"):
            bob.connect()
        for level in ("readonly", "readwrite", "all", "readonly"):
            sdk.set_privilege(**where, **privilege, permission=level)
            owner.execute(f"DROP TABLE IF EXISTS made_{level}")
            owner.execute(f"CREATE TABLE made_{level} (id serial, n int)")
            assert listed() == level
            with bob.connect() as session:
                for table in ("before_all", f"made_{level}"):
                    session.execute(f"SELECT * FROM {table}")
                    insert = f"INSERT INTO {table} (n) VALUES (1)"
                    if level == "readonly":
                        with tenant.refuses("right"):
                            session.execute(insert)
                    else:
                        session.execute(insert)
        owner.execute("GRANT INSERT ON before_all TO bob")
        assert listed() == "custom"
    sdk.delete_database(**where, name="shop")
    sdk.delete_user(**where, name="bob")
    assert [user.name for user in sdk.list_users(**where).users] == ["admin"]
    with tenant.refuses("password"):
        bob.connect()


def test_users_and_databases(service: Service, instance: Instance, tenant: Tenant) -> None:
    """What SQL made is listed too, a database as unmanaged; rights and passwords change at once."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    sdk.create_database(**where, name="shop")
    sdk.create_user(**where, name="bob", password=PASSWORD, is_admin=True)
    bob = service.login(instance, "bob", database="shop")
    with bob.connect() as session:
        session.execute("CREATE TABLE kept (id int)")
        session.execute("CREATE DATABASE own")
        session.execute(tenant.create_user("reader", PASSWORD))
    users = {user.name: user.is_admin for user in sdk.list_users_all(**where)}
    assert users == {"admin": True, "bob": True, "reader": False}
    managed = {one.name: one.managed for one in sdk.list_databases_all(**where)}
    assert managed == {"rdb": True, "shop": True, "own": False}
    with pytest.raises(ScalewayException) as refused:
        sdk.set_privilege(**where, database_name="own", user_name="reader", permission="all")
    assert refused.value.status_code == 400

    another = PASSWORD + "-2"
    # What they have when they are no administrator any more.
    sdk.set_privilege(**where, database_name="shop", user_name="bob", permission="readwrite")
    sdk.update_user(**where, name="bob", password=another, is_admin=False)
    with tenant.refuses("password"):
        bob.connect()
    bob = replace(bob, password=another)
    sdk.set_privilege(**where, database_name="shop", user_name="bob", permission="all")
    with bob.connect() as session, tenant.refuses("right"):
        session.execute("CREATE DATABASE more")
    for name in ("own", "shop"):
        sdk.delete_database(**where, name=name)
    assert [one.name for one in sdk.list_databases_all(**where)] == ["rdb"]
    for name in ("bob", "reader"):
        sdk.delete_user(**where, name=name)
    assert [one.name for one in sdk.list_users_all(**where)] == ["admin"]


def test_what_is_created_can_be_addressed(
    service: Service, instance: Instance, tenant: Tenant
) -> None:
    """The SDK writes names into paths as they are: `a#b` would be `a` there."""
    sdk, where = service.sdk(), {"instance_id": instance.id}

    def listed() -> tuple[set[str], set[str]]:
        users = {one.name for one in sdk.list_users_all(**where)}
        return users, {one.name for one in sdk.list_databases_all(**where)}

    before = listed()
    sdk.create_user(**where, name="a", password=PASSWORD, is_admin=False)
    sdk.create_database(**where, name="a")
    both = listed()
    for name in ("a#b", "a?b", "a/b", "a%2Fb", "50%", ".", ".."):
        for create in (
            lambda n=name: sdk.create_user(**where, name=n, password=PASSWORD, is_admin=False),
            lambda n=name: sdk.create_database(**where, name=n),
        ):
            with pytest.raises(ScalewayException) as refused:
                create()
            assert refused.value.status_code == 400
    odd = "a" + "".join(sign for sign in string.punctuation if sign not in "/?#%") + " é名"
    sdk.create_database(**where, name=odd)
    sdk.create_user(**where, name="a$-_9", password=PASSWORD, is_admin=False)
    sdk.delete_database(**where, name=odd)
    sdk.delete_user(**where, name="a$-_9")
    assert listed() == both

    with service.connection(instance) as admin:  # what SQL made, by a path with its signs escaped
        admin.execute(tenant.create_user(tenant.quoted("a/b#c?d%2F"), PASSWORD))
        admin.execute(f"CREATE DATABASE {tenant.quoted('a/b#c?d%2F')}")
    path = f"/instances/{instance.id}/{{}}/{quote('a/b#c?d%2F', safe='')}"
    changed = service.request("PATCH", path.format("users"), json={"password": PASSWORD + "-2"})
    assert changed.json() == {"name": "a/b#c?d%2F", "is_admin": False}
    for what in ("users", "databases"):
        assert service.request("DELETE", path.format(what)).status_code == 204
    assert listed() == both
    sdk.delete_user(**where, name="a")
    sdk.delete_database(**where, name="a")
    assert listed() == before


def test_settings_are_in_force_when_ready(
    service: Service, instance: Instance, tenant: Tenant
) -> None:
    """A hot one without a restart; what does not fit is refused, or taken back."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    (hot, value), before = tenant.hot, {one.name: one.value for one in instance.settings}

    def shown(name: str) -> str:
        with service.connection(instance) as session:
            return tenant.setting(session, name)

    default = shown(hot)
    with service.connection(instance) as early:
        sdk.add_instance_settings(**where, settings=[InstanceSetting(hot, value)])
        settled = {one.name: one.value for one in ready(sdk, instance.id).settings}
        assert settled == before | {hot: value}
        assert shown(hot) == value
        sdk.delete_instance_settings(**where, setting_names=[hot])
        left = {one.name for one in ready(sdk, instance.id).settings}
        assert left == before.keys() - {hot}
        assert shown(hot) != value
        assert early.execute("SELECT 1").fetchone() == (1,), "a reload ends no session"
    assert default != value

    both = dict([tenant.hot, tenant.cold])
    sdk.set_instance_settings(**where, settings=[InstanceSetting(*one) for one in both.items()])
    assert {one.name: one.value for one in ready(sdk, instance.id).settings} == both
    assert {name: shown(name) for name in both} == both

    with pytest.raises(ScalewayException) as refused:
        sdk.add_instance_settings(**where, settings=[InstanceSetting(hot, "much")])
    assert refused.value.status_code == 400
    for name, fatal in tenant.fatal.items():
        service.make_fatal(instance)
        sdk.add_instance_settings(**where, settings=[InstanceSetting(name, fatal)])
        assert {one.name: one.value for one in ready(sdk, instance.id).settings} == both
        assert shown(name) != fatal
    assert {name: shown(name) for name in both} == both


def test_deleted_settings_have_the_catalogues_defaults(
    service: Service, instance: Instance, tenant: Tenant
) -> None:
    """Those of an instance's birth suit its node type, and are its own like others."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    name, _, version = instance.engine.partition("-")
    (engine,) = sdk.list_database_engines_all(name=name, version=version)
    defaults = {one.name: one.default_value for one in engine.versions[0].available_settings}
    born = [one.name for one in instance.settings]
    assert born
    deleted = sdk.delete_instance_settings(**where, setting_names=born)
    assert [one.name for one in deleted.settings] == born
    assert ready(sdk, instance.id).settings == []
    with service.connection(instance) as session:
        found = {one: tenant.setting(session, one) for one in born}
    assert found == {one: defaults[one] for one in born}


def test_rules_cut_only_whom_they_shut_out(
    service: Service, instance: Instance, tenant: Tenant
) -> None:
    sdk, where = service.sdk(), {"instance_id": instance.id}
    with service.connection(instance) as session:
        sdk.set_instance_acl_rules(**where, rules=[ACLRuleRequest("127.0.0.0/8", "")])
        ready(sdk, instance.id)
        assert session.execute("SELECT 1").fetchone() == (1,)
        sdk.set_instance_acl_rules(**where, rules=[ACLRuleRequest("192.0.2.0/24", "")])
        ready(sdk, instance.id)
        with tenant.refuses("gone"):
            session.execute("SELECT 1")
    with tenant.refuses("gone"):
        service.login(instance).connect(connect_timeout=5)
    sdk.set_instance_acl_rules(**where, rules=[ACLRuleRequest("127.0.0.1", "")])
    ready(sdk, instance.id)
    assert service.login(instance).answers()
    sdk.add_instance_acl_rules(**where, rules=[ACLRuleRequest("2001:db8::/32", "six")])
    ready(sdk, instance.id)
    sdk.delete_instance_acl_rules(**where, acl_rule_ips=["127.0.0.1/32"])
    ready(sdk, instance.id)
    assert [rule.ip for rule in sdk.list_instance_acl_rules(**where).rules] == ["2001:db8::/32"]
    with tenant.refuses("gone"):
        service.login(instance).connect(connect_timeout=5)


def test_an_endpoint_migrates(
    service: Service, instance: Instance, engine: str, tenant: Tenant
) -> None:
    """The address stays, and leads to the other instance with its certificate; one comes anew."""
    sdk = service.sdk()
    other = service.create(engine, name="other")
    try:
        with service.connection(instance) as session:
            session.execute("CREATE TABLE here (id int)")
            (before,) = instance.endpoints
            with pytest.raises(ScalewayException) as refused:
                sdk.migrate_endpoint(endpoint_id=before.id, instance_id=instance.id)
            assert refused.value.status_code == 400
            sdk.delete_endpoint(endpoint_id=other.endpoints[0].id)
            ready(sdk, other.id)
            moved = sdk.migrate_endpoint(endpoint_id=before.id, instance_id=other.id)
            assert (moved.id, moved.ip, moved.port) == (before.id, before.ip, before.port)
            other = ready(sdk, other.id)
            with tenant.refuses("gone"):
                session.execute("SELECT 1")
        assert ready(sdk, instance.id).endpoints == []
        assert [endpoint.id for endpoint in other.endpoints] == [before.id]
        with service.connection(other) as session:
            session.execute("CREATE TABLE here (id int)")
        spec = EndpointSpec(load_balancer=EndpointSpecLoadBalancer())
        sdk.create_endpoint(instance_id=instance.id, endpoint_spec=spec)
        with service.connection(ready(sdk, instance.id)) as session:
            assert session.execute("SELECT * FROM here").fetchall() == []
            (first,) = sdk.get_instance(instance_id=instance.id).endpoints
            sdk.create_endpoint(instance_id=instance.id, endpoint_spec=spec)
            (second,) = ready(sdk, instance.id).endpoints
            assert second.id != first.id
            assert second.port != first.port
            with tenant.refuses("gone"):  # the first one has been replaced
                session.execute("SELECT 1")
        assert service.login(sdk.get_instance(instance_id=instance.id)).answers()
    finally:
        sdk.delete_instance(instance_id=other.id)
        wait_until(lambda: gone(sdk, other.id))
