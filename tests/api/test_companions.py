"""The APIs around the database's: recorded shapes, filters, refusals, whose things are whose."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests

from openrdb.state import networks
from openrdb.state.access import NewKey
from openrdb.state.models import Endpoint, Instance, PrivateNetwork
from tests.api.test_wire import INSTANT
from tests.support.recorded import RECORDINGS
from tests.support.state_database import REGION, Api, another_key, row

pytest_plugins = ["tests.support.state_database"]

Json = Any
VPC = f"//vpc/v2/regions/{REGION}"
IPAM = f"//ipam/v1/regions/{REGION}"
ACCOUNT = "//account/v3"
RECORDED = [json.loads(line) for line in (RECORDINGS / "companions.jsonl").read_text().splitlines()]


def ask(api: Api, method: str, path: str, status: int = 200, **options: Any) -> Json:
    answer = api.request(method, path, **options)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def network(api: Api, **sent: Any) -> Json:
    return ask(api, "POST", f"{VPC}/private-networks", json=sent)


def book(api: Api, network_id: str, **sent: Any) -> Json:
    source = {"private_network_id": network_id}
    return ask(api, "POST", f"{IPAM}/ips", json={"source": source} | sent)


def attach(
    api: Api, network_id: str, service_ip: str | None = None, name: str = "test"
) -> Endpoint:
    """An endpoint of a new instance, as the database API makes it."""
    with api.database.write() as session:
        instance = row(api.key, name=name)
        session.add(instance)
        endpoint = Endpoint(published=True)
        networks.attach(
            session,
            session.get_one(PrivateNetwork, UUID(network_id)),
            endpoint,
            instance,
            service_ip=service_ip,
            port=5432,
            public_address="127.0.0.1",
        )
    return endpoint


def remove(api: Api, endpoint: Endpoint) -> None:
    with api.database.write() as session:
        session.delete(session.get_one(Instance, endpoint.instance_id))


# -- recorded shapes --------------------------------------------------------------------------------


def recorded(method: str, path: str, status: int = 200) -> Json:
    """The answer of the one recorded call that is like this."""
    found = [
        call["response"]
        for call in RECORDED
        if (call["method"], call["status"]) == (method, status)
        and re.fullmatch(path.replace("ID", "[^/]+"), call["path"])
    ]
    assert len(found) == 1
    return found[0]


def same_shape(theirs: Json, ours: Json, place: str = "") -> None:
    """The same fields of the same types; times, ids and addresses in the same form."""
    assert type(ours) is type(theirs), place
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), place
        for name in theirs:
            same_shape(theirs[name], ours[name], f"{place}.{name}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), place
        for number, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            same_shape(their, our, f"{place}.{number}")
    elif isinstance(theirs, str):
        for form in (INSTANT, re.compile(r"[0-9a-f-]{36}"), re.compile(r"02(:[0-9A-F]{2}){5}")):
            assert bool(form.fullmatch(theirs)) == bool(form.fullmatch(ours)), place


def same(theirs: Json, ours: Json, *but: str) -> None:
    """Of the same shape, and equal in what is neither an id nor a time."""
    same_shape(theirs, ours)
    own = {"id", "created_at", "updated_at", "organization_id", "project_id", "vpc_id", *but}
    for name in theirs.keys() - own:
        assert ours[name] == theirs[name], name


def test_recorded_vpcs(api: Api) -> None:
    sent = {
        "name": "TestAccInstance_PrivateNetworkUpdate",
        "project_id": str(api.key.project_id),
        "tags": [],
        "enable_routing": False,
    }
    made = ask(api, "POST", f"{VPC}/vpcs", json=sent)
    same(recorded("POST", "/vpc/.*/vpcs"), made)
    got = ask(api, "GET", f"{VPC}/vpcs/{made['id']}")
    same(recorded("GET", "/vpc/.*/vpcs/ID"), got)
    assert got == made
    path = f"{VPC}/vpcs/{made['id']}/enable-custom-routes-propagation"
    assert ask(api, "POST", path, json={}) == made
    ask(api, "DELETE", f"{VPC}/vpcs/{made['id']}", 204)
    refused = ask(api, "GET", f"{VPC}/vpcs/{made['id']}", 404)
    assert (refused["resource"], refused["resource_id"]) == ("vpc", made["id"])


def test_recorded_private_networks(api: Api) -> None:
    sent = {
        "name": "test-rdb-error-handling",
        "project_id": str(api.key.project_id),
        "tags": [],
        "subnets": None,
        "default_route_propagation_enabled": False,
    }
    made = network(api, **sent)
    same(recorded("POST", "/vpc/.*/private-networks"), made, "subnets")
    ipv4, ipv6 = (ip_network(subnet["subnet"]) for subnet in made["subnets"])
    assert (ipv4.version, ipv4.prefixlen, ipv6.version, ipv6.prefixlen) == (4, 22, 6, 64)
    for subnet in made["subnets"]:
        assert subnet["private_network_id"] == made["id"]
        assert subnet["vpc_id"] == made["vpc_id"]
    path = f"{VPC}/private-networks/{made['id']}"
    got = ask(api, "GET", path)
    same(recorded("GET", "/vpc/.*/private-networks/ID"), got, "subnets")
    assert got == made
    assert ask(api, "POST", f"{path}/enable-dhcp", json={}) == made
    ask(api, "DELETE", path, 204)
    for method in ("GET", "DELETE"):
        refused = ask(api, method, path, 404)
        same(recorded(method, "/vpc/.*/private-networks/ID", 404), refused, "resource_id")
        assert refused["resource_id"] == made["id"]


def test_recorded_ips(api: Api) -> None:
    made = network(api, subnets=["10.213.254.0/24"])
    sent = {"is_ipv6": False, "address": "10.213.254.10", "tags": []}
    booked = book(api, made["id"], project_id=str(api.key.project_id), **sent)
    same(recorded("POST", "/ipam/.*/ips"), booked, "source")
    assert booked["source"] == {"subnet_id": made["subnets"][0]["id"]}
    path = f"{IPAM}/ips/{booked['id']}"
    # It is the user's own as long as an endpoint is there, as recorded.
    endpoint = attach(api, made["id"], "10.213.254.10/24")
    got = ask(api, "GET", path)
    same(recorded("GET", "/ipam/.*/ips/ID"), got, "source")
    assert got == booked
    query = (
        f"order_by=created_at_desc&resource_id={endpoint.instance_id}&resource_type=rdb_instance"
    )
    assert ask(api, "GET", f"{IPAM}/ips?{query}") == {"total_count": 0, "ips": []}
    remove(api, endpoint)
    ask(api, "DELETE", path, 204, json={})
    ask(api, "GET", path, 404)
    ask(api, "DELETE", f"{VPC}/private-networks/{made['id']}", 204)


def test_recorded_ips_of_instances(api: Api) -> None:
    made = network(api)
    endpoint = attach(api, made["id"], name="test-rdb-error-handling")
    query = (
        f"order_by=created_at_desc&private_network_id={made['id']}&project_id={api.key.project_id}"
        f"&resource_id={endpoint.instance_id}&resource_type=rdb_instance"
    )
    listed = ask(api, "GET", f"{IPAM}/ips?{query}")
    theirs = recorded("GET", "/ipam/.*/ips")
    same_shape(theirs, listed)
    (ip,) = listed["ips"]
    same(theirs["ips"][0], ip, "address", "source", "resource")
    assert ip["address"] == endpoint.service_ip
    resource = ip["resource"]
    assert (resource["id"], resource["type"]) == (str(endpoint.instance_id), "rdb_instance")
    assert resource["name"] == "test-rdb-error-handling"
    # What the CLI asks.
    query = f"is_ipv6=false&order_by=created_at_desc&page=1&resource_id={endpoint.instance_id}"
    assert ask(api, "GET", f"{IPAM}/ips?{query}&resource_type=rdb_instance") == listed
    refused = ask(api, "DELETE", f"{IPAM}/ips/{ip['id']}", 412)
    assert refused["type"] == "precondition_failed"
    refused = ask(api, "DELETE", f"{VPC}/private-networks/{made['id']}", 412)
    assert refused["type"] == "precondition_failed"
    remove(api, endpoint)
    ask(api, "DELETE", f"{VPC}/private-networks/{made['id']}", 204)


def test_recorded_projects(api: Api) -> None:
    sent = {
        "name": "tf-tests-rdb-database-list",
        "organization_id": str(api.key.organization_id),
        "description": "",
    }
    made = ask(api, "POST", f"{ACCOUNT}/projects", json=sent)
    same(recorded("POST", "/account/v3/projects"), made)
    path = f"{ACCOUNT}/projects/{made['id']}"
    got = ask(api, "GET", path)
    same(recorded("GET", "/account/v3/projects/ID"), got)
    assert got == made | {"qualification": {"architecture_type": "unknown_architecture_type"}}
    ask(api, "DELETE", path, 204)
    refused = ask(api, "GET", path, 404)
    same(recorded("GET", "/account/v3/projects/ID", 404), refused, "resource_id")
    assert refused["resource_id"] == made["id"]


def test_recorded_api_keys(api: Api) -> None:
    path = f"//iam/v1alpha1/api-keys/{api.key.access_key}"
    got = ask(api, "GET", path)
    same_shape(recorded("GET", "/iam/v1alpha1/api-keys/ID"), got)
    assert got["access_key"] == api.key.access_key
    assert got["default_project_id"] == str(api.key.project_id)
    assert got["secret_key"] is None
    assert api.key.secret_key not in json.dumps(got)
    refused = ask(api, "GET", path, 404, key=another_key(api.database))
    assert (refused["type"], refused["resource"]) == ("not_found", "api_key")


# -- lists ------------------------------------------------------------------------------------------


def names(answer: Json, of: str) -> list[str]:
    assert answer["total_count"] >= len(answer[of])
    return [one["name"] for one in answer[of]]


def test_lists_of_private_networks(api: Api) -> None:
    path = f"{VPC}/private-networks"
    vpc = ask(api, "POST", f"{VPC}/vpcs", json={"name": "one"})["id"]
    made = [
        network(api, name="a", tags=["x", "y"]),
        network(api, name="b", tags=["y"], vpc_id=vpc),
        network(api, name="Ab", tags=[]),
    ]
    for query, wanted in {
        "": ["a", "b", "Ab"],
        "order_by=created_at_desc": ["Ab", "b", "a"],
        "order_by=name_desc&name=b": ["b", "Ab"],
        "name=A": ["a", "Ab"],
        "name=%25": [],
        "tags=x&tags=z": ["a"],
        "tags=y": ["a", "b"],
        f"vpc_id={vpc}": ["b"],
        f"private_network_ids={made[0]['id']}&private_network_ids={made[2]['id']}": ["a", "Ab"],
        f"project_id={uuid4()}": [],
        f"project_id={api.key.project_id}": ["a", "b", "Ab"],
        f"organization_id={uuid4()}": [],
        "dhcp_enabled=false": [],
        "page=2&page_size=2": ["Ab"],
    }.items():
        answer = ask(api, "GET", f"{path}?{query}")
        assert names(answer, "private_networks") == wanted, query
    assert ask(api, "GET", f"{path}?page=2&page_size=2")["total_count"] == 3
    elsewhere = ask(api, "GET", path.replace(REGION, "nl-ams"))
    assert elsewhere == {"private_networks": [], "total_count": 0}


def test_lists_of_vpcs(api: Api) -> None:
    """The default one is there from the beginning; networks are counted where they are."""
    path = f"{VPC}/vpcs"
    (default,) = ask(api, "GET", path)["vpcs"]
    assert default["is_default"]
    assert network(api)["vpc_id"] == default["id"]
    made = ask(api, "POST", path, json={"name": "one", "tags": ["x"]})
    network(api, vpc_id=made["id"])
    network(api, vpc_id=made["id"])
    for query, wanted in {
        "": ["default", "one"],
        "order_by=name_desc": ["one", "default"],
        "is_default=true": ["default"],
        "name=on": ["one"],
        "tags=x": ["one"],
        "routing_enabled=false": [],
    }.items():
        assert names(ask(api, "GET", f"{path}?{query}"), "vpcs") == wanted, query
    counted = [vpc["private_network_count"] for vpc in ask(api, "GET", path)["vpcs"]]
    assert counted == [1, 2]
    refused = ask(api, "DELETE", f"{path}/{made['id']}", 412)
    assert refused["type"] == "precondition_failed"


def test_lists_of_ips(api: Api) -> None:
    path = f"{IPAM}/ips"
    first = network(api, subnets=["10.213.254.0/24"])
    second = network(api)
    taken = attach(api, first["id"], name="Wanted")
    later = book(api, first["id"], address="10.213.254.100", tags=["x"])
    third = book(api, first["id"], address="10.213.254.20")
    book(api, second["id"])
    assert third["source"]["subnet_id"] == first["subnets"][0]["id"]
    own = ask(api, "GET", f"{path}?attached=true")["ips"][0]
    of_first = f"private_network_id={first['id']}"
    for query, wanted in {
        f"{of_first}": ["20", "100", "2"],
        f"{of_first}&order_by=created_at_asc": ["2", "100", "20"],
        f"{of_first}&order_by=ip_address_asc": ["2", "20", "100"],
        f"{of_first}&order_by=ip_address_desc&page_size=2&page=2": ["2"],
        f"{of_first}&order_by=attached_at_asc&page_size=1": ["2"],
        f"{of_first}&attached=false": ["20", "100"],
        f"subnet_id={first['subnets'][0]['id']}&tags=x": ["100"],
        f"resource_id={taken.instance_id}": ["2"],
        f"resource_ids={taken.instance_id}&resource_ids={uuid4()}": ["2"],
        "resource_types=rdb_instance&resource_types=instance_server": ["2"],
        "resource_types=instance_server": [],
        "resource_type=unknown_type&tags=x": ["100"],
        "resource_name=want": ["2"],
        f"mac_address={own['resource']['mac_address'].lower()}": ["2"],
        f"ip_ids={later['id']}&ip_ids={uuid4()}": ["100"],
        f"{of_first}&vpc_id={uuid4()}": [],
        f"{of_first}&vpc_id={first['vpc_id']}&attached=true": ["2"],
        "is_ipv6=true": [],
        "zonal=fr-par-1": [],
        f"project_id={uuid4()}": [],
    }.items():
        ips = ask(api, "GET", f"{path}?{query}")["ips"]
        assert [str(ip_interface(ip["address"]).ip).split(".")[3] for ip in ips] == wanted, query
    assert ask(api, "GET", path)["total_count"] == 4


def test_lists_of_projects(api: Api) -> None:
    path = f"{ACCOUNT}/projects"
    made = [ask(api, "POST", path, json={"name": name}) for name in ("a", "Ab")]
    for query, wanted in {
        "": ["default", "a", "Ab"],
        "order_by=created_at_desc": ["Ab", "a", "default"],
        "name=a&order_by=name_asc&page_size=100": sorted(["default", "a", "Ab"]),
        "name=ab": ["Ab"],
        f"project_ids={made[0]['id']}": ["a"],
        f"organization_id={api.key.organization_id}&page_size=1&page=2": ["a"],
        f"organization_id={uuid4()}": [],
    }.items():
        listed = names(ask(api, "GET", f"{path}?{query}"), "projects")
        assert (sorted(listed) if "name_asc" in query else listed) == wanted, query


# -- changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vpcs", "private-networks"])
def test_names_and_tags_change(api: Api, kind: str) -> None:
    made = ask(api, "POST", f"{VPC}/{kind}", json={"tags": ["x"]})
    assert made["name"]
    path = f"{VPC}/{kind}/{made['id']}"
    assert ask(api, "PATCH", path, json={}) == made
    assert ask(api, "PATCH", path, json={"name": None, "tags": None}) == made
    changed = ask(api, "PATCH", path, json={"name": "new", "tags": []})
    assert (changed["name"], changed["tags"]) == ("new", [])
    assert changed["updated_at"] > made["updated_at"]
    assert ask(api, "GET", path) == changed


def test_tags_of_addresses_change(api: Api) -> None:
    booked = book(api, network(api)["id"])
    path = f"{IPAM}/ips/{booked['id']}"
    changed = ask(api, "PATCH", path, json={"tags": ["x"]})
    assert changed["tags"] == ["x"]
    assert ask(api, "GET", path) == changed


def test_projects_change(api: Api) -> None:
    made = ask(api, "POST", f"{ACCOUNT}/projects", json={})
    path = f"{ACCOUNT}/projects/{made['id']}"
    assert ask(api, "PATCH", path, json={"name": "new", "description": "d"})["name"] == "new"
    assert ask(api, "GET", path)["description"] == "d"
    assert ask(api, "PATCH", path, json={"description": ""})["description"] == ""


# -- refusals ---------------------------------------------------------------------------------------


def assert_refused(answer: requests.Response, argument: str) -> None:
    assert answer.status_code == 400, answer.text
    assert [detail["argument_name"] for detail in answer.json()["details"]] == [argument]


def test_refused_private_networks(api: Api) -> None:
    path = f"{VPC}/private-networks"
    network(api, subnets=["10.213.254.0/24"])
    for subnet in ("10.213.254.0/24", "10.0.0.1/24", "127.0.0.0/24", "fd00::/64", "x"):
        assert_refused(api.request("POST", path, json={"subnets": [subnet]}), "subnets")
    assert_refused(api.request("POST", path, json={"vpc_id": "x"}), "vpc_id")
    ask(api, "POST", path, 404, json={"vpc_id": str(uuid4())})
    project = ask(api, "POST", f"{ACCOUNT}/projects", json={})["id"]
    vpc = ask(api, "POST", f"{VPC}/vpcs", json={"project_id": project})["id"]
    assert_refused(api.request("POST", path, json={"vpc_id": vpc}), "vpc_id")
    assert ask(api, "GET", path)["total_count"] == 1


def test_refused_bookings(api: Api) -> None:
    made = network(api, subnets=["10.213.254.0/24"])
    book(api, made["id"], address="10.213.254.9")
    attach(api, made["id"], "10.213.254.10/24")
    source = {"private_network_id": made["id"]}
    project = ask(api, "POST", f"{ACCOUNT}/projects", json={})["id"]
    ipv6 = {"source": {"subnet_id": made["subnets"][1]["id"]}}
    for argument, changes in [
        *(
            ("address", {"address": address})
            for address in ("10.213.254.9", "10.213.254.10", "10.213.253.2", "10.213.254.0")
        ),
        ("address", {"address": "10.213.254.5/24"}),
        ("address", {"address": "fd00::1"}),
        ("is_ipv6", {"is_ipv6": True}),
        ("project_id", {"project_id": project}),
        ("resource", {"resource": {"mac_address": "02:00:00:00:00:01"}}),
        ("source", {"source": {}}),
        ("source", {"source": {"zonal": "fr-par-1"}}),
        ("source.subnet_id", ipv6),
    ]:
        sent = {"source": source} | changes
        assert_refused(api.request("POST", f"{IPAM}/ips", json=sent), argument)
    for missing in ("private_network_id", "subnet_id"):
        ask(api, "POST", f"{IPAM}/ips", 404, json={"source": {missing: str(uuid4())}})
    by_subnet = {"source": {"subnet_id": made["subnets"][0]["id"]}}
    assert ask(api, "POST", f"{IPAM}/ips", json=by_subnet)["address"] == "10.213.254.2/24"
    booked = ask(api, "GET", f"{IPAM}/ips?attached=false")
    assert booked["total_count"] == 2
    path = f"{IPAM}/ips/{booked['ips'][0]['id']}"
    reverses = {"reverses": [{"hostname": "x"}]}
    assert_refused(api.request("PATCH", path, json=reverses), "reverses")


def test_projects_that_stay(api: Api) -> None:
    """The default one, and those with instances or networks; a key of one goes with it."""
    path = f"{ACCOUNT}/projects"
    ask(api, "DELETE", f"{path}/{api.key.project_id}", 412)
    other = another_key(api.database, api.key.organization_id)
    project = f"{path}/{other.project_id}"
    made = network(api, project_id=str(other.project_id))
    assert ask(api, "DELETE", project, 412)["type"] == "precondition_failed"
    ask(api, "DELETE", f"{VPC}/private-networks/{made['id']}", 204)
    vpc = ask(api, "POST", f"{VPC}/vpcs", json={"project_id": str(other.project_id)})
    assert ask(api, "DELETE", project, 412)["type"] == "precondition_failed"
    ask(api, "DELETE", f"{VPC}/vpcs/{vpc['id']}", 204)
    with api.database.write() as session:
        instance = row(other)
        session.add(instance)
    assert ask(api, "DELETE", project, 412)["type"] == "precondition_failed"
    with api.database.write() as session:
        session.delete(session.get_one(Instance, instance.id))
    ask(api, "GET", project, key=other)
    ask(api, "DELETE", project, 204)
    ask(api, "GET", project, 401, key=other)


@pytest.mark.parametrize(
    "path",
    [
        f"{VPC}/gateways",
        "//vpc/v2/zones/fr-par-1/vpcs",
        f"{IPAM}/ip-sets/release",
        "//account/v3/contracts",
        "//iam/v1alpha1/users",
    ],
)
def test_what_there_is_not(api: Api, path: str) -> None:
    assert ask(api, "GET", path, 404)["type"] == "not_found"
    answer = api.request("GET", path, headers={"X-Auth-Token": ""})
    assert answer.status_code == 401


# -- whose things are whose -------------------------------------------------------------------------


@pytest.fixture(params=["same organization", "another organization"])
def neighbour(request: pytest.FixtureRequest, api: Api) -> Iterator[NewKey]:
    """The key of another project."""
    same_one = request.param == "same organization"
    return another_key(api.database, api.key.organization_id if same_one else None)


def test_neighbours(api: Api, neighbour: NewKey) -> None:
    vpc = ask(api, "POST", f"{VPC}/vpcs", json={})["id"]
    made = network(api, vpc_id=vpc)
    ip = book(api, made["id"])["id"]
    things = [
        (f"{VPC}/vpcs", vpc),
        (f"{VPC}/private-networks", made["id"]),
        (f"{IPAM}/ips", ip),
        (f"{ACCOUNT}/projects", str(api.key.project_id)),
    ]
    for collection, identifier in things:
        for method in ("GET", "PATCH", "DELETE"):
            refused = ask(api, method, f"{collection}/{identifier}", 404, json={}, key=neighbour)
            assert refused["type"] == "not_found"
            assert refused["resource_id"] == identifier
        listed = ask(api, "GET", f"{collection}?page_size=100", key=neighbour)
        assert f'"id": "{identifier}"' not in json.dumps(listed)
    ask(api, "GET", f"//iam/v1alpha1/api-keys/{api.key.access_key}", 404, key=neighbour)

    theirs = {"project_id": str(api.key.project_id)}
    for path, sent in (
        (f"{VPC}/vpcs", theirs),
        (f"{VPC}/private-networks", theirs),
        (f"{IPAM}/ips", theirs | {"source": {"private_network_id": made["id"]}}),
        (f"{ACCOUNT}/projects", {"organization_id": str(neighbour.organization_id)}),
    ):
        refused = ask(api, "POST", path, 403, json=sent, key=neighbour)
        assert refused["type"] == "permissions_denied"
        assert refused["details"][0]["action"] == "create"
    for source in (
        {"private_network_id": made["id"]},
        {"subnet_id": made["subnets"][0]["id"]},
    ):
        ask(api, "POST", f"{IPAM}/ips", 404, json={"source": source}, key=neighbour)
    ask(api, "POST", f"{VPC}/private-networks", 404, json={"vpc_id": vpc}, key=neighbour)
    own = f"{ACCOUNT}/projects/{neighbour.project_id}"
    assert ask(api, "DELETE", own, 403, key=neighbour)["type"] == "permissions_denied"

    for collection, identifier in things:
        ask(api, "GET", f"{collection}/{identifier}")
    assert network(api)["project_id"] == str(api.key.project_id)
