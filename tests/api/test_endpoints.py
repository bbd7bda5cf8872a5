"""Endpoints on the wire: which an instance may have, where, and what is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests

from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.models import Endpoint, Instance, Ip, Operation
from tests.api.test_wire import body
from tests.support.state_database import REGION, Api, another_key

pytest_plugins = ["tests.support.state_database"]

Json = Any
NETWORKS = f"//vpc/v2/regions/{REGION}/private-networks"
IPS = f"//ipam/v1/regions/{REGION}/ips"
PUBLIC: Json = {"load_balancer": {}}


def network(api: Api, **sent: Any) -> str:
    made = api.request("POST", NETWORKS, json=sent)
    assert made.status_code == 200, made.text
    return str(made.json()["id"])


def private(network_id: str, service_ip: str | None = None) -> Json:
    where = {"service_ip": service_ip} if service_ip else {"ipam_config": {}}
    return {"private_network": {"private_network_id": network_id} | where}


def create(api: Api, *endpoints: Json, **sent: Any) -> requests.Response:
    return api.request("POST", "/instances", json=body(init_endpoints=list(endpoints), **sent))


def ready(api: Api, *endpoints: Json, **sent: Any) -> str:
    """A new instance's id, as if its creation had ended."""
    answer = create(api, *endpoints, **sent)
    assert answer.status_code == 200, answer.text
    identifier = str(answer.json()["id"])
    settle(api, identifier)
    return identifier


def settle(api: Api, *instance_ids: str) -> None:
    """As operations do at their end."""
    with api.database.write() as session:
        for instance_id in instance_ids:
            instance = session.get_one(Instance, UUID(instance_id))
            instance.status = "ready"
            for endpoint in instance.endpoints:
                endpoint.published = True


def shown(api: Api, instance_id: str) -> list[Json]:
    found: list[Json] = api.request("GET", f"/instances/{instance_id}").json()["endpoints"]
    return found


def add(api: Api, instance_id: str, spec: Json) -> requests.Response:
    path = f"/instances/{instance_id}/endpoints"
    return api.request("POST", path, json={"endpoint_spec": spec})


def counted(database: Database) -> list[int]:
    with database.read() as session:
        return [session.query(model).count() for model in (Instance, Endpoint, Ip, Operation)]


def assert_refused(answer: requests.Response, argument: str, why: str = "") -> None:
    assert answer.status_code == 400, answer.text
    (detail,) = answer.json()["details"]
    assert detail["argument_name"] == argument
    assert why in detail["help_message"]


# -- at birth ---------------------------------------------------------------------------------------


def test_endpoints_of_a_birth(api: Api) -> None:
    first = network(api, subnets=["10.213.254.0/24"])
    both = ready(api, private(first), PUBLIC)
    assert {one["ip"] for one in shown(api, both)} == {"127.0.0.1", "10.213.254.2"}
    only = shown(api, ready(api, private(first, "10.213.254.9/24")))
    assert [(one["ip"], one["port"]) for one in only] == [("10.213.254.9", 5432)]
    assert only[0]["private_network"] == {
        "private_network_id": first,
        "provisioning_mode": "static",
        "service_ip": "10.213.254.9/24",
        "zone": f"{REGION}-1",
    }
    elsewhere = shown(api, ready(api, private(first, "172.16.9.9/22")))
    assert [one["ip"] for one in elsewhere] == ["172.16.9.9"]


@pytest.fixture
def refusals(api: Api) -> list[tuple[list[Json], str, str]]:
    """Endpoints that cannot be had, the argument that is named, and why."""
    first, second = network(api, subnets=["10.213.254.0/24"]), network(api)
    ready(api, private(first, "10.213.254.9/24"))
    project = api.request("POST", "//account/v3/projects", json={}).json()["id"]
    foreign = network(api, project_id=project)
    abroad = api.request("POST", NETWORKS.replace(REGION, "nl-ams"), json={}).json()["id"]
    its = "init_endpoints.0.private_network"
    both_ways = {"private_network_id": first, "service_ip": "10.213.254.3/24", "ipam_config": {}}
    return [
        ([PUBLIC, PUBLIC], "init_endpoints.1.load_balancer", "at most one"),
        ([private(first), private(second)], "init_endpoints.1.private_network", "at most one"),
        ([{}], "init_endpoints.0", "a kind"),
        ([{"load_balancer": None}], "init_endpoints.0", "a kind"),
        ([{"private_network": both_ways}], f"{its}.service_ip", "only one of"),
        ([private("x")], f"{its}.private_network_id", "UUID"),
        ([private(str(uuid4()))], its, "no such"),
        ([private(abroad)], its, "no such"),
        ([private(foreign)], its, "another project"),
        *(
            ([private(first, service_ip)], f"{its}.service_ip", why)
            for service_ip, why in {
                "10.213.254.9/24": "in use",
                "10.213.254.0/24": "not a host",
                "10.213.254.255/24": "not a host",
                "10.213.254.7": "CIDR form",
                "8.8.8.8/24": "not a private address",
                "127.0.0.1/8": "public address",
                "127.0.0.2/8": "not a private address",
                "169.254.1.1/16": "not a private address",
                "fd00::2/64": "IPv6",
                "x/24": "CIDR form",
            }.items()
        ),
    ]


def test_endpoints_that_cannot_be_had(
    api: Api, refusals: list[tuple[list[Json], str, str]]
) -> None:
    before = counted(api.database)
    for specs, argument, why in refusals:
        assert_refused(create(api, *specs), argument, why)
    bare = [refusal for refusal in refusals if len(refusal[0]) == 1]
    assert counted(api.database) == before
    instance = ready(api, PUBLIC)
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance)).endpoints = []
    before = counted(api.database)
    for (spec,), argument, why in bare:
        name = argument.replace("init_endpoints.0", "endpoint_spec")
        assert_refused(add(api, instance, spec), name, why)
    assert counted(api.database) == before
    assert api.request("GET", f"/instances/{instance}").json()["status"] == "ready"


def test_a_network_of_another_key(api: Api) -> None:
    neighbour: NewKey = another_key(api.database, api.key.organization_id)
    sent = body(init_endpoints=[private(network(api))])
    answer = api.request("POST", "/instances", key=neighbour, json=sent)
    assert_refused(answer, "init_endpoints.0.private_network", "no such")


def test_a_full_network(api: Api) -> None:
    """A /29 has five addresses to give; one that goes can be had again."""
    small = network(api, subnets=["10.213.254.0/29"])
    made = [ready(api, private(small)) for _ in range(4)]
    booked = api.request("POST", IPS, json={"source": {"private_network_id": small}}).json()
    answer = create(api, private(small))
    assert answer.status_code == 403
    refusal = answer.json()
    assert refusal["type"] == "quotas_exceeded"
    assert refusal["details"] == [{"resource": "private_network_ips", "quota": 5, "current": 5}]
    # One that its project booked may be asked for by its address.
    address = booked["address"]
    assert [one["ip"] for one in shown(api, ready(api, private(small, address)))] == [
        "10.213.254.6"
    ]
    with api.database.write() as session:
        session.delete(session.get_one(Instance, UUID(made[1])))
    assert [one["ip"] for one in shown(api, ready(api, private(small)))] == ["10.213.254.3"]


def test_many_at_once_get_addresses_of_their_own(api: Api) -> None:
    """Of a network with room for five of eight."""
    small = network(api, subnets=["10.213.254.0/29"])
    answers: list[requests.Response] = []
    work = [
        threading.Thread(target=lambda: answers.append(create(api, private(small))))
        for _ in range(8)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    given = [one.json()["endpoints"] for one in answers if one.status_code == 200]
    assert {one[0]["ip"] for one in given} == {f"10.213.254.{last}" for last in range(2, 7)}
    assert len(given) == 5
    listed = api.request("GET", f"{IPS}?private_network_id={small}&resource_type=rdb_instance")
    assert listed.json()["total_count"] == 5


def test_no_port_left(database: Database, tmp_path: Path, cache: Path) -> None:
    with Api(database, tmp_path, cache=cache, endpoint_ports=(20000, 20000)) as api:
        ready(api, PUBLIC)
        bare = ready(api, private(network(api)))
        answer = add(api, bare, PUBLIC)
        assert answer.status_code == 403
        detail = {"resource": "endpoints", "quota": 1, "current": 1}
        assert answer.json()["details"] == [detail]
        assert api.request("GET", f"/instances/{bare}").json()["status"] == "ready"


# -- later ------------------------------------------------------------------------------------------


def test_a_life_of_endpoints(api: Api) -> None:
    """A private one is shown at once, a load balancer when it works; what leaves is not shown."""
    first = network(api)
    instance = ready(api, private(first))
    coming = add(api, instance, PUBLIC)
    assert coming.json() == {"id": "", "name": None, "port": 0}
    got = api.request("GET", f"/instances/{instance}").json()
    assert (got["status"], len(got["endpoints"]), got["endpoint"]) == ("initializing", 1, None)
    settle(api, instance)
    got = api.request("GET", f"/instances/{instance}").json()
    assert got["endpoint"]["load_balancer"] == {}
    (endpoint,) = (one for one in got["endpoints"] if "private_network" in one)
    path = f"/endpoints/{endpoint['id']}"
    assert api.request("GET", path).json() == endpoint
    assert api.request("DELETE", path).status_code == 204
    assert api.request("GET", f"/instances/{instance}").json()["status"] == "configuring"
    for method in ("GET", "DELETE"):
        assert api.request(method, path).json()["resource"] == "endpoint"
    # Its address is given to nobody before it is gone.
    assert api.request("DELETE", f"{NETWORKS}/{first}").json()["type"] == "precondition_failed"
    other = shown(api, ready(api, private(first)))
    assert other[0]["ip"] != endpoint["ip"]


def test_a_second_load_balancer_replaces_the_first(api: Api) -> None:
    """As the reference says: another id and port; a private endpoint stays as it is."""
    instance = ready(api, private(network(api)), PUBLIC)
    own, old = sorted(shown(api, instance), key=lambda one: "load_balancer" in one)
    assert add(api, instance, PUBLIC).json() == {"id": "", "name": None, "port": 0}
    assert shown(api, instance) == [own]
    assert api.request("GET", f"/endpoints/{old['id']}").status_code == 404
    with api.database.read() as session:
        rows = {row.id: row for row in session.get_one(Instance, UUID(instance)).endpoints}
    assert rows.pop(UUID(old["id"])).leaving
    del rows[UUID(own["id"])]
    (new,) = rows.values()
    assert (new.kind, new.leaving, new.published) == ("load_balancer", False, False)
    assert new.port != old["port"]
    listed = api.request("GET", f"/instances/{instance}/acls").json()["rules"]
    assert {rule["port"] for rule in listed} == {new.port}


def test_a_second_private_endpoint_is_refused(api: Api) -> None:
    instance = ready(api, private(network(api)))
    before = counted(api.database), shown(api, instance)
    answer = add(api, instance, private(network(api)) | PUBLIC)
    assert_refused(answer, "endpoint_spec.private_network", "at most one")
    assert (counted(api.database), shown(api, instance)) == before


def test_both_kinds_in_one_request(api: Api) -> None:
    first = network(api)
    both = PUBLIC | private(first)
    assert len(shown(api, ready(api, both))) == 2
    instance = ready(api, PUBLIC)
    (old,) = shown(api, instance)
    answer = add(api, instance, both)
    assert answer.json()["private_network"]["private_network_id"] == first
    settle(api, instance)
    present = [one for one in shown(api, instance) if one["id"] != old["id"]]
    assert {"load_balancer" in one for one in present} == {True, False}
    assert answer.json() in present


@pytest.mark.parametrize("status", ["provisioning", "configuring", "deleting"])
def test_statuses_in_which_endpoints_stay(api: Api, status: str) -> None:
    first, other = ready(api, private(network(api)), PUBLIC), ready(api, private(network(api)))
    with api.database.write() as session:
        session.get_one(Instance, UUID(first)).status = status
    before = shown(api, first)
    path = f"/endpoints/{before[0]['id']}"
    public = next(one["id"] for one in before if "load_balancer" in one)
    for answer in (
        api.request("DELETE", path),
        api.request("POST", f"/endpoints/{public}/migrate", json={"instance_id": other}),
        add(api, first, PUBLIC),
    ):
        assert answer.status_code == 409, answer.text
        assert answer.json()["current_state"] == status
    assert shown(api, first) == before


def test_migrations(api: Api) -> None:
    """The addresses' rows follow; no instance has two of a kind by it, nor another project's."""
    first = network(api)
    one, other = ready(api, private(first), PUBLIC), ready(api, private(network(api)))
    project = api.request("POST", "//account/v3/projects", json={}).json()["id"]
    foreign = ready(api, PUBLIC, project_id=project)
    mysql = ready(api, PUBLIC, engine="MySQL-9")
    by_kind = {"load_balancer" in endpoint: endpoint for endpoint in shown(api, one)}
    public, own = by_kind[True], by_kind[False]

    def migrate(endpoint: Json, instance_id: str) -> requests.Response:
        sent = {"instance_id": instance_id}
        return api.request("POST", f"/endpoints/{endpoint['id']}/migrate", json=sent)

    assert_refused(migrate(public, one), "instance_id", "already")
    assert_refused(migrate(own, other), "instance_id", "of this kind")
    assert_refused(migrate(public, foreign), "instance_id", "of this kind")
    assert_refused(migrate(own, foreign), "instance_id", "another project")
    assert_refused(migrate(own, mysql), "instance_id", "another engine")
    assert migrate(own, str(uuid4())).json()["resource"] == "instance"
    assert migrate({"id": str(uuid4())}, other).json()["resource"] == "endpoint"
    assert len(shown(api, one)) == 2

    assert migrate(public, other).json() == public
    settle(api, one, other)
    assert shown(api, one) == [own]
    target = ready(api, PUBLIC)
    assert migrate(own, target).json() == own
    settle(api, one, target)
    listed = api.request("GET", f"{IPS}?private_network_id={first}").json()["ips"]
    assert [ip["resource"]["id"] for ip in listed] == [target]
    assert shown(api, one) == []


def test_in_error_endpoints_can_only_go(api: Api) -> None:
    first, other = ready(api, private(network(api)), PUBLIC), ready(api, private(network(api)))
    with api.database.write() as session:
        session.get_one(Instance, UUID(first)).status = "error"
    by_kind = {"load_balancer" in one: one["id"] for one in shown(api, first)}
    migration = api.request(
        "POST", f"/endpoints/{by_kind[True]}/migrate", json={"instance_id": other}
    )
    for answer in (migration, add(api, first, PUBLIC)):
        assert answer.status_code == 412, answer.text
    assert api.request("DELETE", f"/endpoints/{by_kind[False]}").status_code == 204
    assert [one["id"] for one in shown(api, first)] == [by_kind[True]]
