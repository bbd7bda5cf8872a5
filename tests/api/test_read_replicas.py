"""Read replicas on the wire, in every status: what is shown and refused, and whose endpoints are whose.

That they follow, read and are promoted is tested with real engines in `tests/clients`.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from cryptography import x509

from openrdb.errors import HostUnavailable
from openrdb.host.local import LocalHost
from openrdb.operations import desired
from openrdb.operations.replicas.delete import forget
from openrdb.operations.replicas.following import make_ready
from openrdb.state.master_key import open_secrets
from openrdb.state.models import Endpoint, Instance, Ip, Node, ReadReplica
from openrdb.state.statuses.instance import TRANSIENT as MOVING
from openrdb.state.statuses.instance import WORKING, InstanceStatus
from openrdb.state.statuses.read_replica import TRANSIENT, ReadReplicaStatus
from openrdb.system.layout import Layout
from tests.api.test_endpoints import PUBLIC, network, private, ready, settle
from tests.support.state_database import Api, another_key

pytest_plugins = ["tests.support.state_database"]

Json = Any
DIRECT: Json = {"direct_access": {}}
NETWORKS = "//vpc/v2/regions/fr-par/private-networks"
IPS = "//ipam/v1/regions/fr-par/ips"


def create(api: Api, instance_id: str, *endpoints: Json, **sent: Any) -> requests.Response:
    body = {"instance_id": instance_id, "endpoint_spec": list(endpoints)} | sent
    return api.request("POST", "/read-replicas", json=body)


def following(api: Api, instance_id: str, *endpoints: Json) -> str:
    """A new replica's id, as if its creation had ended."""
    answer = create(api, instance_id, *endpoints)
    assert answer.status_code == 200, answer.text
    identifier = str(answer.json()["id"])
    with api.database.write() as session:
        replica = session.get_one(ReadReplica, UUID(identifier))
        replica.status = "initializing"
        make_ready(replica)
    return identifier


def set_status(api: Api, replica_id: str, status: str) -> None:
    with api.database.write() as session:
        session.get_one(ReadReplica, UUID(replica_id)).status = status


def get(api: Api, replica_id: str) -> Json:
    answer = api.request("GET", f"/read-replicas/{replica_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(answer: requests.Response) -> tuple[int, str]:
    """Return the status, and the argument that is named or the error's type."""
    error = answer.json()
    details = error.get("details")
    named = details[0].get("argument_name") if details else None
    return answer.status_code, named or error["type"]


# -- what is shown ----------------------------------------------------------------------------------


def test_new_replica_is_shown_as_recorded(api: Api) -> None:
    instance_id, where = ready(api, PUBLIC), network(api)
    answer = create(api, instance_id, DIRECT, private(where), same_zone=False)
    shown = answer.json()
    (endpoint,) = shown.pop("endpoints")
    assert endpoint["private_network"]["private_network_id"] == where
    assert endpoint["port"] == 5432
    assert UUID(shown.pop("id"))
    expected = {"status": "provisioning", "region": "fr-par", "same_zone": False}
    assert shown == expected | {"instance_id": instance_id}
    of_instance = api.request("GET", f"/instances/{instance_id}").json()
    assert [one["status"] for one in of_instance["read_replicas"]] == ["provisioning"]
    assert [list(one)[-1] for one in of_instance["endpoints"]] == ["load_balancer"]


@pytest.mark.parametrize("sent", [{"endpoint_spec": None}, {"endpoint_spec": []}, {}])
def test_direct_access_is_what_a_replica_has_by_default(api: Api, sent: Json) -> None:
    instance_id = ready(api, PUBLIC)
    body = {"instance_id": instance_id} | sent
    made = api.request("POST", "/read-replicas", json=body).json()
    assert (made["endpoints"], made["same_zone"]) == ([], True)
    with api.database.write() as session:
        replica = session.get_one(ReadReplica, UUID(made["id"]))
        replica.status = "initializing"
        make_ready(replica)
    (endpoint,) = get(api, made["id"])["endpoints"]
    assert endpoint.keys() == {"direct_access", "id", "ip", "name", "port"}
    assert (endpoint["direct_access"], endpoint["name"]) == ({}, None)
    assert api.request("GET", f"/endpoints/{endpoint['id']}").json() == endpoint


def test_replica_that_does_not_follow_is_not_shown_ready(api: Api) -> None:
    replica_id = following(api, ready(api, PUBLIC))
    assert get(api, replica_id)["status"] == "ready"
    with api.database.write() as session:
        session.get_one(ReadReplica, UUID(replica_id)).node.observed_follows = False
    shown = get(api, replica_id)
    assert shown["status"] == "initializing"
    of_instance = api.request("GET", f"/instances/{shown['instance_id']}").json()
    assert of_instance["read_replicas"] == [shown]
    promoted = api.request("POST", f"/read-replicas/{replica_id}/promote", json={})
    assert (promoted.status_code, promoted.json()["current_state"]) == (409, "initializing")
    with api.database.write() as session:  # then it may be all that there is
        session.get_one(Instance, UUID(shown["instance_id"])).status = "error"
    assert api.request("POST", f"/read-replicas/{replica_id}/promote", json={}).status_code == 200


@pytest.mark.parametrize("status", ["locked", "unknown"])
def test_a_replica_in_a_status_of_others_is_shown_and_not_changed(api: Api, status: str) -> None:
    """Nothing here sets the status; it lasts, so no client may be told to ask again."""
    instance_id = ready(api, PUBLIC)
    replica_id = following(api, instance_id)
    set_status(api, replica_id, status)
    before = get(api, replica_id)
    assert before["status"] == status
    shown = api.request("GET", f"/instances/{instance_id}").json()
    assert shown["read_replicas"] == [before]
    path = f"/read-replicas/{replica_id}"
    for method, below, sent in (
        ("POST", "/endpoints", {"endpoint_spec": [private(network(api))]}),
        ("POST", "/reset", {}),
        ("POST", "/promote", {}),
        ("DELETE", "", None),
    ):
        answer = api.request(method, path + below, json=sent)
        assert (answer.status_code, answer.json()["precondition"]) == (412, "resource_not_usable")
        assert status in answer.json()["help_message"]
    assert get(api, replica_id) == before


# -- what is refused --------------------------------------------------------------------------------


def test_wrong_endpoints(api: Api) -> None:
    instance_id, where = ready(api, PUBLIC), network(api)
    nowhere = private(str(uuid4()))
    for endpoints, named in (
        ([{}], "endpoint_spec.0"),
        ([PUBLIC], "endpoint_spec.0"),
        ([DIRECT, DIRECT], "endpoint_spec.1.direct_access"),
        ([private(where), private(where)], "endpoint_spec.1.private_network"),
        ([DIRECT, nowhere], "endpoint_spec.1.private_network"),
    ):
        assert refusal(create(api, instance_id, *endpoints)) == (400, named)
    replica_id = following(api, instance_id, DIRECT)
    path = f"/read-replicas/{replica_id}/endpoints"
    for specs, named in (
        ([], "endpoint_spec"),
        (None, "endpoint_spec"),
        ([{}], "endpoint_spec.0"),
        ([DIRECT], "endpoint_spec.0.direct_access"),
    ):
        assert refusal(api.request("POST", path, json={"endpoint_spec": specs})) == (400, named)
    with api.database.read() as session:
        assert len(session.get_one(ReadReplica, UUID(replica_id)).endpoints) == 1


def test_a_fourth_one(api: Api) -> None:
    instance_id = ready(api, PUBLIC)
    for _ in range(3):
        following(api, instance_id)
    answer = create(api, instance_id)
    assert answer.status_code == 403
    assert answer.json()["type"] == "quotas_exceeded"
    assert answer.json()["details"] == [{"resource": "read_replicas", "quota": 3, "current": 3}]


@pytest.mark.parametrize(
    ("name", "version", "status"),
    [
        ("MySQL-8", "8.0.31", 400),
        ("MySQL-8", "8.4.9", 200),
        ("MySQL-9", "9.7.4", 200),
        ("PostgreSQL-14", "14.20", 200),
    ],
)
def test_engines_that_have_none(api: Api, name: str, version: str, status: int) -> None:
    instance_id = ready(api, PUBLIC, engine=name)
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).primary.version = version
    answer = create(api, instance_id)
    assert answer.status_code == status, answer.text
    if status == 400:
        (detail,) = answer.json()["details"]
        assert detail == {
            "argument_name": "instance_id",
            "reason": "constraint",
            "help_message": "MySQL-8 8.0.31 has no read replicas here",
        }
        assert api.request("GET", f"/instances/{instance_id}").json()["read_replicas"] == []


def test_of_others_and_of_nobody(api: Api) -> None:
    instance_id = ready(api, PUBLIC)
    replica_id = following(api, instance_id)
    endpoint_id = get(api, replica_id)["endpoints"][0]["id"]
    other = another_key(api.database)
    unknown = str(uuid4())
    for key, identifier in ((api.key, unknown), (other, replica_id)):
        for method, below in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/reset"),
            ("POST", "/promote"),
            ("POST", "/endpoints"),
        ):
            sent = {"endpoint_spec": [DIRECT]} if below == "/endpoints" else {}
            path = f"/read-replicas/{identifier}{below}"
            answer = api.request(method, path, key, json=sent if method == "POST" else None)
            assert answer.status_code == 404
            assert answer.json() == {
                "message": "resource is not found",
                "resource": "read_replica",
                "resource_id": identifier,
                "type": "not_found",
            }
    assert api.request("GET", f"/endpoints/{endpoint_id}", other).status_code == 404
    assert api.request("DELETE", f"/endpoints/{endpoint_id}", other).status_code == 404
    answer = api.request("POST", "/read-replicas", other, json={"instance_id": instance_id})
    assert answer.json()["resource"] == "instance"
    wrong_region = api.request("GET", f"//rdb/v1/regions/nl-ams/read-replicas/{replica_id}")
    assert wrong_region.status_code == 404


@pytest.mark.parametrize("status", sorted(InstanceStatus))
def test_creation_by_the_instances_status(api: Api, status: InstanceStatus) -> None:
    instance_id = ready(api, PUBLIC)
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).status = status.value
    answer = create(api, instance_id)
    expected = 200 if status in WORKING else 409 if status in MOVING else 412
    assert answer.status_code == expected, answer.text


@pytest.mark.parametrize("status", sorted(InstanceStatus))
@pytest.mark.parametrize("own", ["ready", "error"])
def test_reset_by_the_instances_status(api: Api, status: InstanceStatus, own: str) -> None:
    instance_id = ready(api, PUBLIC)
    replica_id = following(api, instance_id)
    set_status(api, replica_id, own)
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).status = status.value
    answer = api.request("POST", f"/read-replicas/{replica_id}/reset", json={})
    expected = 200 if status in WORKING else 409 if status in MOVING else 412
    assert answer.status_code == expected, answer.text
    assert get(api, replica_id)["status"] == ("initializing" if expected == 200 else own)
    if expected == 409:
        assert answer.json()["resource"] == "instance"


@pytest.mark.parametrize("status", sorted(InstanceStatus))
@pytest.mark.parametrize(("method", "below"), [("DELETE", ""), ("POST", "/promote")])
def test_no_replica_leaves_an_instance_that_is_changed(
    api: Api, status: InstanceStatus, method: str, below: str
) -> None:
    instance_id = ready(api, PUBLIC)
    replica_id = following(api, instance_id)
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).status = status.value
    sent = {} if method == "POST" else None
    answer = api.request(method, f"/read-replicas/{replica_id}{below}", json=sent)
    if status in MOVING - {"backuping", "snapshotting"}:
        assert (answer.status_code, answer.json()["resource"]) == (409, "instance")
        assert get(api, replica_id)["status"] == "ready"
    else:
        assert answer.status_code == 200, answer.text


def test_reset_without_a_primary_to_copy(api: Api) -> None:
    """Its instance stays `ready` while its server is started again and again."""
    instance_id = ready(api, PUBLIC)
    replica_id = following(api, instance_id)
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).primary.observed_state = "failed"
    answer = api.request("POST", f"/read-replicas/{replica_id}/reset", json={})
    assert (answer.status_code, answer.json()["precondition"]) == (412, "resource_not_usable")
    assert get(api, replica_id)["status"] == "ready"


def test_creation_without_the_agent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other requests for an instance: the deployment is not out of anything."""

    def is_away(*_: Any) -> bool:
        raise HostUnavailable("the agent does not answer")

    instance_id = ready(api, PUBLIC, volume_type="sbs_5k", volume_size=10_000_000_000)
    monkeypatch.setattr("openrdb.api.instance_creation.has_room", lambda _: False)
    monkeypatch.setattr(LocalHost, "ensure_room", is_away)
    snapshot = api.request("POST", f"/instances/{instance_id}/snapshots", json={"name": "one"})
    for answer in (snapshot, create(api, instance_id)):
        assert answer.status_code == 409, answer.text
        assert answer.json() == {
            "message": "resource is in a transient state",
            "resource": "instance",
            "resource_id": instance_id,
            "current_state": "autohealing",
            "type": "transient_state",
        }
    assert api.request("GET", f"/instances/{instance_id}").json()["read_replicas"] == []


@pytest.mark.parametrize("status", sorted(ReadReplicaStatus))
def test_requests_by_the_replicas_status(api: Api, status: ReadReplicaStatus) -> None:
    instance_id = ready(api, PUBLIC)
    replica_id = following(api, instance_id, DIRECT)
    endpoint_id = get(api, replica_id)["endpoints"][0]["id"]
    of_replica = f"/read-replicas/{replica_id}"
    ready_only = 200 if status == "ready" else 409 if status in TRANSIENT else 412
    settled_only = 409 if status in TRANSIENT else 200
    another = {"endpoint_spec": [private(network(api))]}
    for method, path, sent, expected in (
        ("POST", f"{of_replica}/endpoints", another, ready_only),
        ("POST", f"{of_replica}/reset", {}, settled_only),
        ("POST", f"{of_replica}/promote", {}, ready_only),
        ("DELETE", f"/endpoints/{endpoint_id}", None, 204 if ready_only == 200 else ready_only),
        ("DELETE", of_replica, None, settled_only),
    ):
        set_status(api, replica_id, status)
        answer = api.request(method, path, json=sent)
        assert answer.status_code == expected, f"{method} {path}: {answer.text}"


@pytest.mark.parametrize("status", sorted(ReadReplicaStatus))
def test_instance_is_deleted_with_replicas_that_have_settled(
    api: Api, status: ReadReplicaStatus
) -> None:
    instance_id = ready(api, PUBLIC)
    replica_id = following(api, instance_id)
    set_status(api, replica_id, status)
    answer = api.request("DELETE", f"/instances/{instance_id}")
    if status in TRANSIENT:
        assert answer.status_code == 409
        assert answer.json()["resource"] == "read_replica"
        return
    assert [one["status"] for one in answer.json()["read_replicas"]] == ["deleting"]


# -- endpoints --------------------------------------------------------------------------------------


def test_replicas_endpoints_are_nobody_elses(api: Api) -> None:
    where = network(api)
    instance_id, other_id = ready(api, PUBLIC, private(where)), ready(api, PUBLIC)
    replica_id = following(api, instance_id, DIRECT, private(where))
    own, direct = get(api, replica_id)["endpoints"]
    with api.database.read() as session:
        instance = session.get_one(Instance, UUID(instance_id))
        (node_id,) = [one.node_id for one in instance.read_replicas]
        assert len(instance.nodes) == 1
        assert {one.rule for one in desired.routes(instance)} == {"primary"}
        of_replica = desired.replica_routes(instance, instance.read_replicas[0])
        primary = instance.primary.id
    assert {one.rule for one in of_replica} == {node_id}
    assert [[b.node_id for b in one.backends] for one in of_replica] == [[node_id]] * 2
    assert [one.allowed for one in of_replica] == [None, ("0.0.0.0/0",)]
    assert node_id != primary

    # What the instance has is no obstacle to its replica's, but a network's addresses are.
    query = {"resource_id": instance_id, "resource_type": "rdb_instance"}
    ips = api.request("GET", IPS, params=query).json()["ips"]
    names = {one["resource"]["name"] for one in ips}
    assert names == {"wire", f"read-replica-{replica_id[:8]}"}
    assert {one["resource"]["id"] for one in ips} == {instance_id}
    for narrowed in (
        {"resource_type": "rdb_read_replica"},
        {"resource_id": replica_id},
        {"resource_name": f"read-replica-{replica_id[:8]}"},
    ):
        (one,) = api.request("GET", IPS, params=narrowed).json()["ips"]
        assert one["address"].partition("/")[0] == own["ip"]
    assert api.request("DELETE", f"{NETWORKS}/{where}").status_code == 412

    # A private one may be moved to an instance, its own or another, and direct access may not.
    path = f"/endpoints/{direct['id']}/migrate"
    moved = api.request("POST", path, json={"instance_id": other_id})
    assert refusal(moved) == (400, "endpoint_id")
    path = f"/endpoints/{own['id']}/migrate"
    taken = api.request("POST", path, json={"instance_id": instance_id})
    assert refusal(taken) == (400, "instance_id")
    assert api.request("POST", path, json={"instance_id": other_id}).json() == own
    assert get(api, replica_id)["status"] == "configuring"
    other = api.request("GET", f"/instances/{other_id}").json()
    assert other["status"] == "initializing"
    assert own in other["endpoints"]
    with api.database.read() as session:
        endpoint = session.get_one(Endpoint, UUID(own["id"]))
        assert (endpoint.rule, endpoint.node_id) == ("primary", None)


def test_deleted_endpoint_is_not_shown(api: Api) -> None:
    replica_id = following(api, ready(api, PUBLIC), DIRECT)
    (endpoint,) = get(api, replica_id)["endpoints"]
    assert api.request("DELETE", f"/endpoints/{endpoint['id']}").status_code == 204
    shown = get(api, replica_id)
    assert (shown["status"], shown["endpoints"]) == ("configuring", [])
    assert api.request("GET", f"/endpoints/{endpoint['id']}").status_code == 404
    with api.database.write() as session:
        make_ready(session.get_one(ReadReplica, UUID(replica_id)))
    with api.database.read() as session:
        assert session.get(Endpoint, UUID(endpoint["id"])) is None
    assert get(api, replica_id)["status"] == "ready"


def test_certificates_name_replicas_and_the_authority_stays(api: Api, tmp_path: Any) -> None:
    secrets, where = open_secrets(api.database, Layout(tmp_path).master_key), network(api)
    instance_id = ready(api, PUBLIC)
    authority = api.request("GET", f"/instances/{instance_id}/certificate").json()["content"]
    replica_id = following(api, instance_id, private(where))
    (endpoint,) = get(api, replica_id)["endpoints"]
    with api.database.write() as session:
        instance = session.get_one(Instance, UUID(instance_id))
        assert secrets.readdress(instance)
        assert not secrets.readdress(instance)
        presented = secrets.certificate_for(instance).presented
    leaf = x509.load_pem_x509_certificate(presented.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(one) for one in names.get_values_for_type(x509.IPAddress)}
    assert addresses == {"127.0.0.1", endpoint["ip"]}
    after = api.request("GET", f"/instances/{instance_id}/certificate").json()["content"]
    assert after == authority


def test_what_a_replica_leaves(api: Api) -> None:
    instance_id = ready(api, PUBLIC)
    replica_id = following(api, instance_id, DIRECT, private(network(api)))
    with api.database.write() as session:
        forget(session.get_one(ReadReplica, UUID(replica_id)))
    with api.database.read() as session:
        assert session.query(Node).count() == 1
        assert session.query(Endpoint).count() == 1
        assert session.query(Ip).count() == 0
    assert api.request("GET", f"/read-replicas/{replica_id}").status_code == 404
    following(api, instance_id, DIRECT)
    with api.database.write() as session:
        session.delete(session.get_one(Instance, UUID(instance_id)))
    with api.database.read() as session:
        for model in (ReadReplica, Node, Endpoint):
            assert session.query(model).count() == 0


# -- promotion --------------------------------------------------------------------------------------


def test_promoted_instance_is_shown_as_recorded(api: Api) -> None:
    instance_id, where = ready(api, PUBLIC, tags=["a"]), network(api)
    rules = {"rules": [{"ip": "192.0.2.0/24", "description": "ours"}]}
    assert api.request("PUT", f"/instances/{instance_id}/acls", json=rules).status_code == 200
    settle(api, instance_id)
    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).settings = {"work_mem": "4"}
    replica_id = following(api, instance_id, private(where))
    made = api.request("POST", f"/read-replicas/{replica_id}/promote", json={}).json()
    assert (made["name"], made["status"]) == ("promoted - wire", "initializing")
    assert made["settings"] == [{"name": "work_mem", "value": "4"}]
    assert (made["tags"], made["endpoint"], made["read_replicas"]) == (["a"], None, [])
    # Endpoints as the replica had them: none that is public where that was not.
    (endpoint,) = made["endpoints"]
    assert endpoint["private_network"]["private_network_id"] == where
    allowed = api.request("GET", f"/instances/{made['id']}/acls").json()["rules"]
    assert [one["ip"] for one in allowed] == ["192.0.2.0/24"]
    assert get(api, replica_id)["status"] == "promoting"
    source = api.request("GET", f"/instances/{instance_id}").json()
    assert source["status"] == "ready"
    assert api.request("DELETE", f"/instances/{instance_id}").status_code == 409
