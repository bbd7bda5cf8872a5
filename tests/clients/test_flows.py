"""What scw and Terraform do call by call, by the official SDK: each story ends in a session."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scaleway import Client, ScalewayException
from scaleway.account.v3 import AccountV3ProjectAPI
from scaleway.iam.v1alpha1 import IamV1Alpha1API
from scaleway.ipam.v1 import IpamV1API, ResourceType, Source
from scaleway.rdb.v1 import (
    ACLRuleRequest,
    Endpoint,
    EndpointSpec,
    EndpointSpecLoadBalancer,
    EndpointSpecPrivateNetwork,
    EndpointSpecPrivateNetworkIpamConfig,
    Instance,
    InstanceSetting,
    ListUsersRequestOrderBy,
)
from scaleway.vpc.v2 import PrivateNetwork, VpcV2API

from tests.support.service import Service, creation, gone, ready, wait_until
from tests.support.tenants import Login, tenant_of


@pytest.fixture
def client(service: Service) -> Client:
    client: Client = service.sdk().client
    return client


@pytest.fixture
def network(client: Client) -> Iterator[PrivateNetwork]:
    api = VpcV2API(client)
    made = api.create_private_network(default_route_propagation_enabled=False, name="flows")
    yield made
    api.delete_private_network(private_network_id=made.id)


@pytest.fixture
def instance(service: Service, engine: str) -> Iterator[Instance]:
    made = service.create(engine, name="flows")
    yield made
    delete(service, made)


def delete(service: Service, instance: Instance) -> None:
    sdk = service.sdk()
    sdk.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(sdk, instance.id))


def generated_password() -> str:
    """As the CLI generates them: long, of every class of characters, none left out."""
    special = "!#$%&()*+,-./:;<=>?@[]^_{|}~"
    classes = [string.ascii_lowercase, string.ascii_uppercase, string.digits, special]
    characters = [secrets.choice(one) for one in classes * 6]
    return "".join(secrets.SystemRandom().sample(characters, len(characters)))


def line(instance: Instance, endpoint: Endpoint, user: str, database: str) -> Login:
    """What is in the URL that `scw rdb user get-url` prints."""
    host, port = str(endpoint.ip), int(endpoint.port)
    return Login(instance.engine, host, port, user, "", None, database)


def public(instance: Instance) -> Endpoint:
    return next(one for one in instance.endpoints if one.load_balancer is not None)


def private(instance: Instance) -> Endpoint:
    return next(one for one in instance.endpoints if one.private_network is not None)


def who(login: Login, password: str, certificate: Path) -> str:
    """How the CLI connects: the certificate in a file, and the server's address checked."""
    with replace(login, password=password, certificate=certificate).connect() as session:
        return "@".join(login.tenant.who(session))


# -- scw --------------------------------------------------------------------------------------------


def test_scw_creates_an_instance_with_endpoints_and_connects(
    service: Service, client: Client, network: PrivateNetwork, engine: str
) -> None:
    """`scw rdb instance create init-endpoints…`, `instance connect`, `endpoint …`."""
    sdk, ipam = service.sdk(), IpamV1API(client)
    access_key = service.credentials["SCW_ACCESS_KEY"]
    project_id = IamV1Alpha1API(client).get_api_key(access_key=access_key).default_project_id
    offered = {
        version.name: version.disabled
        for one in sdk.list_database_engines_all()
        for version in one.versions
    }
    assert offered[engine] is False
    password = generated_password()
    by_ipam = EndpointSpecPrivateNetwork(
        private_network_id=network.id, ipam_config=EndpointSpecPrivateNetworkIpamConfig()
    )
    asked = creation(
        engine,
        project_id=project_id,
        user_name="foobar",
        password=password,
        init_endpoints=[
            EndpointSpec(private_network=by_ipam),
            EndpointSpec(load_balancer=EndpointSpecLoadBalancer()),
        ],
    )
    created = sdk.create_instance(**asked)
    try:
        instance = ready(sdk, created.id)
        assert instance.endpoint == public(instance)
        (address,) = ipam.list_i_ps_all(
            resource_id=instance.id, resource_type=ResourceType.RDB_INSTANCE, is_ipv6=False
        )
        details = private(instance).private_network
        assert details is not None
        assert details.service_ip == address.address
        trust = service.certificate(instance)
        for endpoint in instance.endpoints:
            assert sdk.get_endpoint(endpoint_id=endpoint.id) == endpoint
            login = line(instance, endpoint, "foobar", "rdb")
            assert who(login, password, trust) == "foobar@rdb"

        sdk.delete_endpoint(endpoint_id=private(instance).id)
        assert ready(sdk, instance.id).endpoints == [public(instance)]
        assert ipam.list_i_ps(resource_id=instance.id).total_count == 0
        booked = ipam.book_ip(source=Source(private_network_id=network.id), is_ipv6=False)
        fixed = EndpointSpecPrivateNetwork(private_network_id=network.id, service_ip=booked.address)
        made = sdk.create_endpoint(
            instance_id=instance.id, endpoint_spec=EndpointSpec(private_network=fixed)
        )
        assert made.ip == booked.address.partition("/")[0]
        instance = ready(sdk, instance.id)
        assert {one.id for one in instance.endpoints} == {made.id, public(instance).id}
        for endpoint in instance.endpoints:
            # Who trusts the first certificate need not fetch the later ones.
            login = line(instance, endpoint, "foobar", "rdb")
            assert who(login, password, trust) == "foobar@rdb"
    finally:
        delete(service, created)


def test_scw_users(service: Service, instance: Instance) -> None:
    """`scw rdb user create generate-password`, `list`, `get-url`, `update`, `delete`."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    trust = service.certificate(instance)
    first, second = generated_password(), generated_password()
    sdk.create_database(**where, name="shop")
    assert not sdk.create_user(**where, name="clerk", password=first, is_admin=False).is_admin
    sdk.set_privilege(**where, database_name="shop", user_name="clerk", permission="readonly")

    by_name = ListUsersRequestOrderBy.NAME_ASC
    users = sdk.list_users_all(**where, order_by=by_name)
    assert [(user.name, user.is_admin) for user in users] == [("admin", True), ("clerk", False)]
    levels = {
        (one.user_name, one.database_name): str(one.permission)
        for one in sdk.list_privileges_all(**where)
    }
    assert levels == {
        ("admin", "rdb"): "all",
        ("admin", "shop"): "all",
        ("clerk", "rdb"): "none",
        ("clerk", "shop"): "readonly",
    }

    (user,) = sdk.list_users_all(**where, name="clerk")
    (database,) = sdk.list_databases_all(**where, name="shop")
    login = line(instance, public(instance), user.name, database.name)
    assert who(login, first, trust) == "clerk@shop"
    assert sdk.update_user(**where, name="clerk", password=second).name == "clerk"
    assert who(login, second, trust) == "clerk@shop"
    with login.tenant.refuses("password"):
        who(login, first, trust)
    sdk.delete_user(**where, name="clerk")
    with login.tenant.refuses("password"):
        who(login, second, trust)


def test_scw_rules(service: Service, instance: Instance) -> None:
    """`scw rdb acl add`, `list`, `delete`, `set`, waiting after each as the CLI does."""
    sdk, where = service.sdk(), {"instance_id": instance.id}

    def listed() -> dict[str, str]:
        ready(sdk, instance.id)
        return {rule.ip: rule.description for rule in sdk.list_instance_acl_rules_all(**where)}

    def comes_in() -> bool:
        return service.login(instance).answers()

    sdk.add_instance_acl_rules(
        **where,
        rules=[ACLRuleRequest(ip, f"Allow {ip}") for ip in ("127.0.0.0/8", "1.2.3.4/32")],
    )
    assert listed() == {
        "0.0.0.0/0": "Allow All",
        "1.2.3.4/32": "Allow 1.2.3.4/32",
        "127.0.0.0/8": "Allow 127.0.0.0/8",
    }
    # One of them is not set, which the CLI's users may get wrong.
    sdk.delete_instance_acl_rules(**where, acl_rule_ips=["0.0.0.0/0", "9.9.9.9/32"])
    assert listed().keys() == {"1.2.3.4/32", "127.0.0.0/8"}
    assert comes_in()
    sdk.set_instance_acl_rules(**where, rules=[ACLRuleRequest("1.2.3.4", "something")])
    assert listed() == {"1.2.3.4/32": "something"}
    assert not comes_in()
    sdk.add_instance_acl_rules(**where, rules=[ACLRuleRequest("127.0.0.1/32", "")])
    assert listed() == {"1.2.3.4/32": "something", "127.0.0.1/32": "IP allowed"}
    assert comes_in()


def test_scw_settings(service: Service, instance: Instance) -> None:
    """`scw rdb instance update settings…`: the old ones and the new at once, then the name."""
    sdk, where = service.sdk(), {"instance_id": instance.id}
    wanted = {one.name: one.value for one in instance.settings}
    tenant = tenant_of(instance.engine)
    wanted |= dict([tenant.hot, tenant.cold])
    answer = sdk.set_instance_settings(
        **where, settings=[InstanceSetting(*one) for one in sorted(wanted.items())]
    )
    assert {one.name: one.value for one in answer.settings} == wanted
    assert sdk.update_instance(**where, name="renamed").name == "renamed"
    settled = ready(sdk, instance.id)
    assert {one.name: one.value for one in settled.settings} == wanted
    assert (settled.name, settled.endpoints) == ("renamed", instance.endpoints)
    with service.connection(settled) as session:
        for name, value in (tenant.hot, tenant.cold):
            assert tenant.setting(session, name) == value


# -- Terraform --------------------------------------------------------------------------------------


def test_terraform_creates_refreshes_updates_destroys(
    service: Service, client: Client, engine: str
) -> None:
    """A project, network, instance, database, user, privilege and rules, each read after it."""
    accounts, vpcs, sdk = AccountV3ProjectAPI(client), VpcV2API(client), service.sdk()
    project = accounts.create_project(name="terraform", description="")
    vpc = vpcs.create_vpc(
        enable_routing=False, enable_transitivity=False, project_id=project.id, name="terraform"
    )
    network = vpcs.create_private_network(
        default_route_propagation_enabled=False, vpc_id=vpc.id, project_id=project.id
    )
    by_ipam = EndpointSpecPrivateNetwork(
        private_network_id=network.id, ipam_config=EndpointSpecPrivateNetworkIpamConfig()
    )
    endpoints = [
        EndpointSpec(load_balancer=EndpointSpecLoadBalancer()),
        EndpointSpec(private_network=by_ipam),
    ]
    nobody = {"user_name": "", "password": ""}
    created = sdk.create_instance(
        **creation(engine, project_id=project.id, init_endpoints=endpoints, **nobody)
    )
    where = {"instance_id": created.id}
    passwords = ["thiZ_is_v&ry_s3cret", "thiZ_is_@n0th3r_s3cret_WO"]

    def step(call: Callable[[], object]) -> None:
        """The provider waits before and after each."""
        ready(sdk, created.id)
        call()
        ready(sdk, created.id)

    def refreshed() -> list[object]:
        own = {"resource_id": created.id, "resource_type": ResourceType.RDB_INSTANCE}
        one = {"database_name": "shop", "user_name": "app"}
        return [
            accounts.get_project(project_id=project.id),
            vpcs.get_vpc(vpc_id=vpc.id),
            vpcs.get_private_network(private_network_id=network.id),
            sdk.get_instance(**where),
            sdk.list_users_all(**where),
            sdk.get_instance_certificate(**where),
            IpamV1API(client).list_i_ps_all(private_network_id=network.id, **own),
            [base.name for base in sdk.list_databases_all(**where, name="shop")],
            sdk.list_privileges_all(**where, **one),
            sdk.list_instance_acl_rules_all(**where),
        ]

    step(lambda: sdk.create_database(**where, name="shop"))
    step(lambda: sdk.create_user(**where, name="app", password=passwords[0], is_admin=False))
    privilege = {"database_name": "shop", "user_name": "app"}
    step(lambda: sdk.set_privilege(**where, **privilege, permission="readonly"))
    rules = [ACLRuleRequest("192.0.2.0/24", "elsewhere")]
    step(lambda: sdk.set_instance_acl_rules(**where, rules=rules))
    instance = ready(sdk, created.id)
    login = line(instance, private(instance), "app", "shop")
    trust = service.certificate(instance)
    assert who(login, passwords[0], trust) == "app@shop", "rules are for public endpoints"
    assert refreshed() == refreshed()

    before, hot = refreshed(), login.tenant.hot
    step(lambda: sdk.update_instance(**where, tags=["updated"]))
    step(lambda: sdk.set_instance_settings(**where, settings=[InstanceSetting(*hot)]))
    step(lambda: sdk.update_user(**where, name="app", password=passwords[1]))
    step(lambda: sdk.set_privilege(**where, **privilege, permission="all"))
    after = refreshed()
    changed = [
        number for number, (old, new) in enumerate(zip(before, after, strict=True)) if old != new
    ]
    assert changed == [3, 8], "the instance and the privilege, and nothing else"
    with replace(login, password=passwords[1], certificate=trust).connect() as session:
        session.execute("CREATE TABLE made (id int)")
        assert login.tenant.setting(session, hot[0]) == hot[1]

    step(lambda: sdk.set_privilege(**where, **privilege, permission="none"))
    step(lambda: sdk.delete_user(**where, name="app"))
    step(lambda: sdk.delete_database(**where, name="shop"))
    rules_gone = [rule.ip for rule in rules]
    step(lambda: sdk.delete_instance_acl_rules(**where, acl_rule_ips=rules_gone))
    delete(service, created)
    vpcs.delete_private_network(private_network_id=network.id)
    vpcs.delete_vpc(vpc_id=vpc.id)
    accounts.delete_project(project_id=project.id)
    for read in (refreshed, lambda: accounts.get_project(project_id=project.id)):
        with pytest.raises(ScalewayException) as refused:
            read()
        assert refused.value.status_code == 404
