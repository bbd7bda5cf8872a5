"""Instances in one private network by the official SDK: real addresses with certificates for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network

import pytest
from scaleway import ScalewayException
from scaleway.ipam.v1 import IpamV1API, ResourceType, Source
from scaleway.rdb.v1 import (
    EndpointPrivateNetworkDetailsProvisioningMode,
    EndpointSpec,
    EndpointSpecLoadBalancer,
    EndpointSpecPrivateNetwork,
    EndpointSpecPrivateNetworkIpamConfig,
    Instance,
)
from scaleway.vpc.v2 import VpcV2API

from tests.support.service import Service, gone, ready, wait_until
from tests.support.tenants import tenant_of


def test_instances_of_a_network(service: Service, newest: str) -> None:
    sdk = service.sdk()
    vpc, ipam = VpcV2API(sdk.client), IpamV1API(sdk.client)
    network = vpc.create_private_network(default_route_propagation_enabled=False)
    subnet = ip_network(network.subnets[0].subnet)
    by_ipam = EndpointSpec(
        private_network=EndpointSpecPrivateNetwork(
            private_network_id=network.id, ipam_config=EndpointSpecPrivateNetworkIpamConfig()
        )
    )

    def create(name: str) -> Instance:
        return service.create(newest, name=name, init_endpoints=[by_ipam])

    with ThreadPoolExecutor() as pool:
        made = list(pool.map(create, ["a", "b"]))
    addresses = {str(instance.endpoints[0].ip) for instance in made}
    assert len(addresses) == 2
    assert all(ip_address(address) in subnet for address in addresses)
    for instance in made:
        assert instance.endpoint is None
        assert [one.port for one in instance.endpoints] == [tenant_of(newest).port]
        with service.connection(instance) as session:
            shown = session.execute("SELECT 1").fetchone()
        assert shown == (1,)
        of_instance = {"resource_id": instance.id, "resource_type": ResourceType.RDB_INSTANCE}
        (ip,) = ipam.list_i_ps_all(**of_instance)
        assert ip.address == f"{instance.endpoints[0].ip}/{subnet.prefixlen}"

    # Its own address by a booking, and a load balancer: the certificate names what there is.
    one, other = made
    sdk.delete_endpoint(endpoint_id=str(one.endpoints[0].id))
    assert ready(sdk, one.id).endpoints == []
    booked = ipam.book_ip(source=Source(private_network_id=network.id), is_ipv6=False)
    asked = EndpointSpecPrivateNetwork(private_network_id=network.id, service_ip=booked.address)
    static = sdk.create_endpoint(
        instance_id=one.id, endpoint_spec=EndpointSpec(private_network=asked)
    )
    details = static.private_network
    assert details is not None
    assert details.provisioning_mode == EndpointPrivateNetworkDetailsProvisioningMode.STATIC
    ready(sdk, one.id)
    public = EndpointSpec(load_balancer=EndpointSpecLoadBalancer())
    assert sdk.create_endpoint(instance_id=one.id, endpoint_spec=public).id == ""
    one = ready(sdk, one.id)
    assert len(one.endpoints) == 2
    for endpoint in (one.endpoints, one.endpoints[::-1]):
        one.endpoints = endpoint
        with service.connection(one) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)

    with pytest.raises(ScalewayException) as refused:
        vpc.delete_private_network(private_network_id=network.id)
    assert refused.value.status_code == 412
    for instance in (one, other):
        sdk.delete_instance(instance_id=instance.id)
        wait_until(lambda instance=instance: gone(sdk, instance.id))
    left = ipam.list_i_ps_all(private_network_id=network.id)
    assert [ip.id for ip in left] == [booked.id]
    vpc.delete_private_network(private_network_id=network.id)
