"""The official SDK drives what stands around the database API, on a real service."""

from __future__ import annotations

import pytest
from scaleway import Client, ScalewayException
from scaleway.account.v3 import AccountV3ProjectAPI, ListProjectsRequestOrderBy
from scaleway.iam.v1alpha1 import IamV1Alpha1API
from scaleway.ipam.v1 import IpamV1API, ListIPsRequestOrderBy, ResourceType, Source
from scaleway.vpc.v2 import ListPrivateNetworksRequestOrderBy, VpcV2API

from tests.support.service import Service


@pytest.fixture
def client(service: Service) -> Client:
    client: Client = service.sdk().client
    return client


def status(refused: pytest.ExceptionInfo[ScalewayException]) -> int:
    return int(refused.value.status_code)


def test_networks_and_addresses(client: Client) -> None:
    vpc_api, ipam_api = VpcV2API(client), IpamV1API(client)
    vpc = vpc_api.create_vpc(
        enable_routing=True, enable_transitivity=False, name="sdk", tags=["sdk"]
    )
    assert vpc.routing_enabled
    assert not vpc.is_default
    network = vpc_api.create_private_network(
        default_route_propagation_enabled=False, vpc_id=vpc.id, subnets=["10.77.7.0/24"]
    )
    assert network.name.startswith("pn-")
    assert network.subnets[0].subnet == "10.77.7.0/24"
    assert vpc_api.get_private_network(private_network_id=network.id) == network
    assert vpc_api.get_vpc(vpc_id=vpc.id).private_network_count == 1
    assert vpc_api.enable_custom_routes_propagation(vpc_id=vpc.id).id == vpc.id
    assert vpc_api.enable_routing(vpc_id=vpc.id).id == vpc.id
    assert vpc_api.enable_dhcp(private_network_id=network.id).dhcp_enabled
    changed = vpc_api.update_private_network(private_network_id=network.id, name="new", tags=["t"])
    assert (changed.name, changed.tags) == ("new", ["t"])
    assert vpc_api.update_vpc(vpc_id=vpc.id, name="newer").name == "newer"
    order = ListPrivateNetworksRequestOrderBy.NAME_DESC
    assert vpc_api.list_private_networks_all(vpc_id=vpc.id, order_by=order) == [changed]
    (default,) = vpc_api.list_vp_cs_all(is_default=True)
    assert default.is_default
    assert [one.id for one in vpc_api.list_vp_cs_all(tags=["sdk"])] == [vpc.id]

    source = Source(private_network_id=network.id)
    booked = ipam_api.book_ip(source=source, is_ipv6=False, address="10.77.7.10", tags=["x"])
    assert (booked.address, booked.resource) == ("10.77.7.10/24", None)
    assert booked.source is not None
    assert booked.source.subnet_id == network.subnets[0].id
    lowest = ipam_api.book_ip(source=source, is_ipv6=False)
    assert lowest.address == "10.77.7.2/24"
    assert ipam_api.get_ip(ip_id=booked.id) == booked
    assert ipam_api.update_ip(ip_id=booked.id, tags=["y"]).tags == ["y"]
    by_address = ListIPsRequestOrderBy.IP_ADDRESS_DESC
    listed = ipam_api.list_i_ps_all(private_network_id=network.id, order_by=by_address)
    assert [ip.id for ip in listed] == [booked.id, lowest.id]
    of_instances = [ResourceType.RDB_INSTANCE, ResourceType.REDIS_CLUSTER]
    attached = ipam_api.list_i_ps(private_network_id=network.id, resource_types=of_instances)
    assert (attached.ips, attached.total_count) == ([], 0)
    with pytest.raises(ScalewayException) as refused:
        ipam_api.book_ip(source=source, is_ipv6=False, address="10.77.7.10")
    assert status(refused) == 400

    with pytest.raises(ScalewayException) as refused:
        vpc_api.delete_vpc(vpc_id=vpc.id)
    assert status(refused) == 412
    ipam_api.release_ip(ip_id=booked.id)
    vpc_api.delete_private_network(private_network_id=network.id)
    vpc_api.delete_vpc(vpc_id=vpc.id)
    for ask in (
        lambda: vpc_api.get_private_network(private_network_id=network.id),
        lambda: vpc_api.get_vpc(vpc_id=vpc.id),
        lambda: ipam_api.get_ip(ip_id=lowest.id),
    ):
        with pytest.raises(ScalewayException) as refused:
            ask()
        assert status(refused) == 404


def test_projects(client: Client) -> None:
    api = AccountV3ProjectAPI(client)
    made = api.create_project(description="d", name="sdk")
    assert made.qualification is None
    got = api.get_project(project_id=made.id)
    assert (got.name, got.description) == ("sdk", "d")
    assert api.update_project(project_id=made.id, name="new").name == "new"
    order = ListProjectsRequestOrderBy.CREATED_AT_DESC
    assert api.list_projects_all(project_ids=[made.id], order_by=order)[0].name == "new"
    in_it = VpcV2API(client).create_private_network(
        default_route_propagation_enabled=False, project_id=made.id
    )
    with pytest.raises(ScalewayException) as refused:
        api.delete_project(project_id=made.id)
    assert status(refused) == 412
    VpcV2API(client).delete_private_network(private_network_id=in_it.id)
    api.delete_project(project_id=made.id)
    with pytest.raises(ScalewayException) as refused:
        api.get_project(project_id=made.id)
    assert status(refused) == 404


def test_the_key_in_use(client: Client, service: Service) -> None:
    key = IamV1Alpha1API(client).get_api_key(access_key=service.credentials["SCW_ACCESS_KEY"])
    assert key.default_project_id == service.credentials["SCW_DEFAULT_PROJECT_ID"]
    assert key.secret_key is None
    assert key.user_id
