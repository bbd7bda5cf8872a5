"""What keys may do: those of another project nothing, those that only read no change."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from openrdb.api.app import create_app
from openrdb.api.common import Backend
from openrdb.config import Settings
from openrdb.state import access, backups, instance_logs, instances, read_replicas, snapshots
from openrdb.state.access import NewKey
from openrdb.state.models import (
    ApiKey,
    Endpoint,
    Instance,
    InstanceLog,
    Ip,
    Node,
    Operation,
    PrivateNetwork,
    Project,
    Vpc,
    now,
)
from tests.api.test_wire import body
from tests.support.state_database import REGION, Api, another_key, row

pytest_plugins = ["tests.support.state_database"]

Json = Any
DOCUMENT = create_app(cast(Backend, SimpleNamespace(database=None, settings=Settings()))).openapi()
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]


def ids_of(path: str) -> list[str]:
    parameters = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    return [one for one in parameters if one not in ("region", "zone")]


MUTATIONS = [(method, path) for method, path, _ in OPERATIONS if method != "GET"]
BY_ID = [(method, path, operation) for method, path, operation in OPERATIONS if ids_of(path)]
OWNED = (Instance, InstanceLog, Endpoint, Operation, Project, Vpc, PrivateNetwork, Ip)


def example(schema: Json) -> Json:
    """What a schema lets through, no more of it than it asks for."""
    if "$ref" in schema:
        return example(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return example(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "uuid":
        return str(uuid4())
    if schema.get("type") == "object":
        required = schema.get("required", [])
        return {name: example(schema["properties"][name]) for name in required}
    least = schema.get("minimum", 1)
    plain = {"string": "x", "array": [], "boolean": False, "integer": least, "number": least}
    return plain[schema["type"]]


def arguments(operation: Json) -> dict[str, Json]:
    """The query and the body that an operation asks for."""
    asked = [one for one in operation.get("parameters", []) if one["in"] == "query"]
    query = {one["name"]: example(one["schema"]) for one in asked if one["required"]}
    sent: dict[str, Json] = {"params": query}
    if "requestBody" in operation:
        sent["json"] = example(operation["requestBody"]["content"]["application/json"]["schema"])
    return sent


def filled(path: str, ids: dict[str, Any]) -> str:
    """A path from the root with these ids, and others where there are none."""
    for name in ("region", "zone"):
        path = path.replace(f"{{{name}}}", REGION if name == "region" else f"{REGION}-1")
    parts = [
        str(ids.get(part.strip("{}"), uuid4())) if part.startswith("{") else part
        for part in path.split("/")
    ]
    return "/" + "/".join(parts)


@pytest.fixture
def given(api: Api) -> dict[str, Any]:
    """The ids of what the first key's project has: a ready instance with an endpoint, and so on."""
    with api.database.write() as session:
        instance = row(api.key, name="ours")
        instance.nodes = [Node(address="127.0.0.1", port=12000, version="17.11")]
        session.add(instance)
        endpoint = instances.add_load_balancer(
            session, instance, address="127.0.0.1", ports=(20000, 20010)
        )
        endpoint.published = True
        backup = backups.new(instance, "shop", store_region="nl-ams", suffix=".custom", name="ours")
        backup.status = "ready"
        snapshot = snapshots.new(session, instance, "ours")
        snapshot.status, snapshot.superuser = "ready", b""
        node = Node(id=uuid4(), address="127.0.0.1", port=12001, version="17", role="replica")
        replica = read_replicas.new(instance, node, same_zone=True)
        log = instance_logs.new(instance, node, None, None, now())
        log.host_id = uuid4()
        session.add_all([backup, snapshot, log])
    vpcs, ips = f"//vpc/v2/regions/{REGION}", f"//ipam/v1/regions/{REGION}/ips"
    network = api.request("POST", f"{vpcs}/private-networks", json={"name": "ours"}).json()
    source = {"private_network_id": network["id"]}
    ip = api.request("POST", ips, json={"source": source, "tags": ["ours"]}).json()
    return {
        "instance_id": instance.id,
        "endpoint_id": endpoint.id,
        "database_backup_id": backup.id,
        "snapshot_id": snapshot.id,
        "read_replica_id": replica.id,
        "instance_log_id": log.id,
        "vpc_id": network["vpc_id"],
        "private_network_id": network["id"],
        "ip_id": ip["id"],
        "project_id": api.key.project_id,
        "access_key": api.key.access_key,
    }


@pytest.fixture
def whole(api: Api, given: dict[str, Any]) -> Iterator[None]:
    """Sees to it that neither a row is changed nor an operation recorded."""

    def contents() -> list[Json]:
        with api.database.read() as session:
            return [
                tuple(getattr(one, column.key) for column in model.__table__.columns)
                for model in OWNED
                for one in session.query(model).order_by(*model.__table__.primary_key)
            ]

    before: list[Json] = []
    yield before.extend(contents())
    assert contents() == before
    assert api.started == []


# -- another project's ------------------------------------------------------------------------------


@pytest.fixture(params=["same organization", "another organization"])
def neighbour(request: pytest.FixtureRequest, api: Api) -> NewKey:
    same_one = request.param == "same organization"
    return another_key(api.database, api.key.organization_id if same_one else None)


def test_the_neighbour_finds_nothing(
    api: Api, given: dict[str, Any], neighbour: NewKey, whole: None
) -> None:
    """Every operation on something by its id is refused as if that were not there."""
    assert BY_ID
    for method, path, operation in BY_ID:
        answer = api.request(method, filled(path, given), key=neighbour, **arguments(operation))
        assert answer.status_code == 404, f"{method} {path}: {answer.text}"
        assert answer.json()["type"] == "not_found"
        assert "ours" not in answer.text


def test_the_neighbour_lists_nothing(api: Api, given: dict[str, Any], neighbour: NewKey) -> None:
    listings = [
        (path, operation)
        for method, path, operation in OPERATIONS
        if method == "GET" and not ids_of(path)
    ]
    # The id of the organization, which is its default project's too, is no secret within it.
    ours = {str(one) for one in given.values()} - {str(neighbour.organization_id)}
    for path, operation in listings:
        sent = arguments(operation)
        answer = api.request("GET", filled(path, given), key=neighbour, **sent)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        assert not any(f'"{one}"' in answer.text for one in ours), path
        assert '"ours"' not in answer.text
    projects = api.request("GET", "//account/v3/projects", key=neighbour).json()["projects"]
    assert [one["id"] for one in projects] == [str(neighbour.project_id)]
    for query in ("name=ours", f"project_id={api.key.project_id}"):
        answer = api.request("GET", f"/instances?{query}", key=neighbour).json()
        assert answer == {"instances": [], "total_count": 0}


def test_the_neighbour_names_nothing_of_ours(
    api: Api, given: dict[str, Any], neighbour: NewKey, whole: None
) -> None:
    """Ids within bodies are no way around it."""
    with api.database.write() as session:
        theirs = row(neighbour, name="theirs")
        session.add(theirs)
        endpoint = instances.add_load_balancer(
            session, theirs, address="127.0.0.1", ports=(20000, 20010)
        )
        endpoint.published = True
        wanted = {column: getattr(theirs, column) for column in ("name", "status")}
    private = {"private_network": {"private_network_id": str(given["private_network_id"])}}
    networks = f"//vpc/v2/regions/{REGION}/private-networks"
    ips = f"//ipam/v1/regions/{REGION}/ips"
    for path, sent, status in (
        ("/instances", body(init_endpoints=[private]), 400),
        (f"/instances/{theirs.id}/endpoints", {"endpoint_spec": private}, 400),
        (f"/endpoints/{endpoint.id}/migrate", {"instance_id": str(given["instance_id"])}, 404),
        (networks, {"vpc_id": str(given["vpc_id"])}, 404),
        (networks, {"project_id": str(given["project_id"])}, 403),
        (ips, {"source": {"private_network_id": str(given["private_network_id"])}}, 404),
    ):
        answer = api.request("POST", path, key=neighbour, json=sent)
        assert answer.status_code == status, f"{path}: {answer.text}"
    with api.database.write() as session:
        kept = session.get_one(Instance, theirs.id)
        assert {column: getattr(kept, column) for column in wanted} == wanted
        session.delete(kept)


@pytest.mark.parametrize("argument", ["project_id", "organization_id"])
def test_the_neighbour_creates_nothing_here(
    api: Api, neighbour: NewKey, whole: None, argument: str
) -> None:
    asked = {argument: str(getattr(api.key, argument))}
    if asked == {"organization_id": str(neighbour.organization_id)}:
        return  # the organization is theirs, and their project in it
    answer = api.request("POST", "/instances", key=neighbour, json=body(**asked))
    assert answer.status_code == 403
    assert answer.json()["type"] == "permissions_denied"
    assert answer.json()["details"] == [{"action": "create", "resource": "instance"}]


def test_the_owner_finds_it(api: Api, given: dict[str, Any]) -> None:
    """What the tests above ask for is there, and they ask in the right way."""
    named = {one for _, path, _ in BY_ID for one in ids_of(path)}
    assert named <= {*given, "name"}
    for method, path, operation in BY_ID:
        if method == "GET" and "name" not in ids_of(path):
            answer = api.request(method, filled(path, given), **arguments(operation))
            assert answer.json().get("type") != "not_found", path


# -- keys that only read ----------------------------------------------------------------------------


def read_only(api: Api, *, whole_organization: bool = False) -> NewKey:
    with api.database.write() as session:
        project = session.get_one(Project, api.key.project_id)
        return access.create_key(
            session, project, whole_organization=whole_organization, read_only=True
        )


@pytest.mark.parametrize("whole_organization", [True, False])
def test_a_reader_changes_nothing(
    api: Api, given: dict[str, Any], whole: None, whole_organization: bool
) -> None:
    """Each operation of the document that is not a GET is refused, whatever is sent."""
    key = read_only(api, whole_organization=whole_organization)
    actions = {"POST": "create", "DELETE": "delete"}
    assert MUTATIONS
    for method, path in MUTATIONS:
        for sent in ({}, {"data": "no JSON"}, {"json": body()}):
            answer = api.request(method, filled(path, given), key=key, **sent)
            assert answer.status_code == 403, f"{method} {path}: {answer.text}"
            refusal = answer.json()
            assert refusal["type"] == "permissions_denied"
            (detail,) = refusal["details"]
            assert detail["action"] == actions.get(method, "update")
            assert detail["resource"].replace("_", "").isalpha()


@pytest.mark.parametrize(
    ("method", "path", "resource"),
    [
        ("POST", "/instances", "instance"),
        ("DELETE", f"/instances/{UUID(int=1)}", "instance"),
        ("PATCH", f"/snapshots/{UUID(int=1)}", "instance_snapshot"),
        ("POST", f"//vpc/v2/regions/{REGION}/private-networks", "private_network"),
        ("POST", f"//ipam/v1/regions/{REGION}/ips", "ip"),
        ("DELETE", f"//account/v3/projects/{UUID(int=1)}", "project"),
        ("POST", "//rdb/v1", ""),
        ("PROPFIND", "/instances", "instance"),
    ],
)
def test_what_a_reader_is_refused(api: Api, method: str, path: str, resource: str) -> None:
    answer = api.request(method, path, key=read_only(api))
    assert answer.status_code == 403
    assert answer.json()["details"][0]["resource"] == resource


def test_a_reader_reads(api: Api, given: dict[str, Any]) -> None:
    key = read_only(api)
    for method, path, operation in OPERATIONS:
        if method != "GET":
            continue
        sent = arguments(operation)
        answer = api.request(method, filled(path, given), key=key, **sent)
        assert answer.status_code != 403, path
    listed = api.request("GET", "/instances", key=key).json()
    assert [one["id"] for one in listed["instances"]] == [str(given["instance_id"])]
    assert api.request("HEAD", "/instances", key=key).status_code != 403


# -- keys that come and go --------------------------------------------------------------------------


def test_a_revoked_key_is_of_no_use_at_once(api: Api) -> None:
    key = read_only(api)
    assert api.request("GET", "/instances", key=key).status_code == 200
    with api.database.write() as session:
        session.delete(session.get_one(ApiKey, key.access_key))
    answer = api.request("GET", "/instances", key=key)
    assert answer.status_code == 401
    assert answer.json()["type"] == "denied_authentication"


def test_secrets_are_not_kept(api: Api) -> None:
    with api.database.read() as session:
        kept = session.get_one(ApiKey, api.key.access_key)
        values = [str(getattr(kept, column.key)) for column in ApiKey.__table__.columns]
    assert api.key.access_key in values
    assert not any(api.key.secret_key in value for value in values)


def test_a_first_key_again(api: Api) -> None:
    """Where all were revoked, the next start makes one for the organization that there is."""
    with api.database.write() as session:
        session.delete(session.get_one(ApiKey, api.key.access_key))
        again = access.ensure_first_key(session)
    assert again is not None
    assert (again.organization_id, again.project_id) == (
        api.key.organization_id,
        api.key.project_id,
    )
    assert again.secret_key != api.key.secret_key
