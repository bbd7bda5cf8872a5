"""The API byte for byte as recorded from the reference service: fields, nulls, times, statuses."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from cryptography import x509

from openrdb.state.models import now
from tests.support.service import PASSWORD, Service, wait_until
from tests.support.state_database import Api

pytest_plugins = ["tests.support.state_database"]

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

# In the order of a cli/ recording, whose recorder kept it; with high_availability_mode, which the
# newest recordings have.
INSTANCE_FIELDS = [
    *("id", "name", "organization_id", "project_id", "status", "engine", "upgradable_version"),
    *("endpoint", "tags", "settings", "backup_schedule", "is_ha_cluster"),
    *("high_availability_mode", "read_replicas", "node_type", "volume", "init_settings"),
    *("endpoints", "logs_policy", "backup_same_region", "maintenances", "encryption"),
    *("created_at", "region"),
]
SETTLING = {"provisioning", "initializing", "configuring", "restarting"}


def body(**changes: Any) -> dict[str, Any]:
    """A creation as the Terraform provider writes it, nulls and zeros and all."""
    recorded: dict[str, Any] = {
        "name": "wire",
        "engine": "PostgreSQL-17",
        "user_name": "admin",
        "password": PASSWORD,
        "node_type": "db-dev-s",
        "is_ha_cluster": False,
        "disable_backup": False,
        "tags": None,
        "init_settings": None,
        "volume_type": "lssd",
        "volume_size": 0,
        "init_endpoints": None,
        "backup_same_region": False,
        "encryption": {"enabled": False},
    }
    return recorded | changes


def settled(service: Service, instance_id: str, region: str = "fr-par") -> dict[str, Any]:
    """The instance out of transition; each answer on the way is held by the service."""
    path = f"//rdb/v1/regions/{region}/instances/{instance_id}"
    instance: dict[str, Any] = {}

    def done() -> bool:
        instance.update(service.request("GET", path).json())
        return instance["status"] not in SETTLING

    wait_until(done, 120)
    return instance


def remove(service: Service, *instance_ids: str, region: str = "fr-par") -> None:
    """Delete, and wait until they are gone."""
    paths = [f"//rdb/v1/regions/{region}/instances/{identifier}" for identifier in instance_ids]
    for path, identifier in zip(paths, instance_ids, strict=True):
        if service.request("GET", path).status_code == 200:
            settled(service, identifier, region)
            service.request("DELETE", path)
    for path in paths:
        wait_until(lambda path=path: service.request("GET", path).status_code == 404)


def moment(text: str) -> datetime:
    assert INSTANT.fullmatch(text), text
    return datetime.fromisoformat(text)


@pytest.fixture(scope="module")
def instance(service: Service) -> Iterator[dict[str, Any]]:
    """A ready instance, which no test here deletes."""
    created = service.request("POST", "/instances", json=body(name="kept"))
    assert created.status_code == 200, created.text
    yield settled(service, created.json()["id"])
    remove(service, created.json()["id"])


# -- POST -------------------------------------------------------------------------------------------


def test_creation(api: Api) -> None:
    before = now()
    answer = api.request("POST", "/instances", json=body(node_type="DB-Dev-S", tags=["b", "a"]))
    after = now()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    created = answer.json()

    assert list(created) == INSTANCE_FIELDS
    made = moment(created.pop("created_at"))
    assert before <= made <= after
    assert UUID(created.pop("id"))
    assert [one["name"] for one in created.pop("upgradable_version")] == ["PostgreSQL-18"]
    assert created == {
        "name": "wire",
        "organization_id": str(api.key.organization_id),
        "project_id": str(api.key.project_id),
        "status": "provisioning",
        "engine": "PostgreSQL-17",
        "endpoint": None,
        "tags": ["b", "a"],
        "settings": [],
        "backup_schedule": {
            "frequency": 24,
            "retention": 7,
            "disabled": False,
            "next_run_at": (made + timedelta(hours=24)).isoformat(timespec="microseconds")[:-6]
            + "Z",
        },
        "is_ha_cluster": False,
        "high_availability_mode": "unknown_high_availability_mode",
        "read_replicas": [],
        "node_type": "db-dev-s",
        "volume": {"type": "lssd", "size": 5000000000, "class": "lssd"},
        "init_settings": [],
        "endpoints": [],
        "logs_policy": {"max_age_retention": 30, "total_disk_retention": None},
        "backup_same_region": False,
        "maintenances": [],
        "encryption": {"enabled": False},
        "region": "fr-par",
    }


def test_order_within_the_parts_of_an_instance(instance: dict[str, Any]) -> None:
    assert list(instance) == INSTANCE_FIELDS
    assert list(instance["backup_schedule"]) == [
        "frequency",
        "retention",
        "disabled",
        "next_run_at",
    ]
    assert list(instance["volume"]) == ["type", "size", "class"]
    assert list(instance["endpoint"]) == ["ip", "port", "name", "id", "load_balancer"]
    assert list(instance["settings"][0]) == ["name", "value"]


def test_no_next_run_when_disabled(api: Api) -> None:
    created = api.request("POST", "/instances", json=body(disable_backup=True)).json()
    schedule = {"frequency": 24, "retention": 7, "disabled": True, "next_run_at": None}
    assert created["backup_schedule"] == schedule


@pytest.mark.parametrize(
    ("asked", "volume"),
    [
        ({"volume_type": None, "volume_size": None}, ("lssd", 5_000_000_000, "lssd")),
        ({"node_type": "db-dev-m", "volume_size": 0}, ("lssd", 25_000_000_000, "lssd")),
        ({"volume_type": "sbs_5k", "volume_size": 10_000_000_000}, ("sbs_5k", 10**10, "sbs")),
        ({"volume_type": "sbs_15k", "volume_size": 20_000_000_000}, ("sbs_15k", 2 * 10**10, "sbs")),
    ],
)
def test_volumes(api: Api, asked: dict[str, Any], volume: tuple[str, int, str]) -> None:
    created = api.request("POST", "/instances", json=body(**asked)).json()
    kind, size, storage = volume
    assert created["volume"] == {"type": kind, "size": size, "class": storage}


def test_the_least_that_creates(api: Api) -> None:
    """No optional field at all, unknown fields, and empty strings where there is nothing to say."""
    least = {"engine": "PostgreSQL-17", "node_type": "db-dev-s"}
    created = [
        api.request("POST", "/instances", json=least | more)
        for more in (
            {},
            {"user_name": "", "password": "", "project_id": "", "organization_id": ""},
            {"no_such_field": [{}], "status": "ready", "id": "x", "init_endpoints": []},
            dict.fromkeys(body().keys() - least.keys() - {"user_name", "password"}),
            {"init_endpoints": [{"load_balancer": {}}], "high_availability_mode": "disabled"},
        )
    ]
    assert [answer.status_code for answer in created] == [200] * 5
    for answer in created:
        shown = answer.json()
        assert list(shown) == INSTANCE_FIELDS
        assert (shown["status"], shown["tags"]) == ("provisioning", [])
        assert shown["name"]
        assert shown["project_id"] == str(api.key.project_id)
    assert len({answer.json()["id"] for answer in created}) == 5
    assert len(api.started) == 5


def test_project_and_organization_asked_for(api: Api) -> None:
    organization = str(api.key.organization_id)
    for asked in ({"project_id": str(api.key.project_id)}, {"organization_id": organization}):
        created = api.request("POST", "/instances", json=body(**asked)).json()
        assert (created["project_id"], created["organization_id"]) == (organization, organization)


# -- an instance's life -----------------------------------------------------------------------------


def test_a_whole_life(service: Service) -> None:
    created = service.request("POST", "/instances", json=body(name="life")).json()
    path = f"/instances/{created['id']}"
    ready = settled(service, created["id"])
    assert ready["status"] == "ready"

    changed = {"status", "settings", "endpoint", "endpoints"}
    assert {k: v for k, v in ready.items() if k not in changed} == {
        k: v for k, v in created.items() if k not in changed
    }
    endpoint = ready["endpoint"]
    assert ready["endpoints"] == [endpoint]
    assert endpoint == {
        "id": endpoint["id"],
        "ip": "127.0.0.1",
        "load_balancer": {},
        "name": None,
        "port": endpoint["port"],
    }
    assert ready["settings"] == [
        {"name": "effective_cache_size", "value": "1300"},
        {"name": "maintenance_work_mem", "value": "150"},
        {"name": "max_connections", "value": "100"},
        {"name": "max_parallel_workers", "value": "0"},
        {"name": "max_parallel_workers_per_gather", "value": "0"},
        {"name": "work_mem", "value": "4"},
    ]

    restarting = service.request("POST", f"{path}/restart", json={})
    assert restarting.status_code == 200
    assert restarting.json() == ready | {"status": "restarting"}
    assert settled(service, created["id"]) == ready

    deleting = service.request("DELETE", path)
    assert deleting.status_code == 200
    assert deleting.json() == ready | {"status": "deleting"}
    wait_until(lambda: service.request("GET", path).status_code == 404)
    for method, gone in (
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/restart"),
        ("POST", f"{path}/renew-certificate"),
        ("GET", f"{path}/certificate"),
    ):
        assert_not_found(service.request(method, gone, json={}), "instance", created["id"])
    shown = service.request("GET", f"/endpoints/{endpoint['id']}")
    assert_not_found(shown, "endpoint", endpoint["id"])


def assert_not_found(answer: requests.Response, resource: str, resource_id: str) -> None:
    assert answer.status_code == 404
    assert answer.json() == {
        "message": "resource is not found",
        "resource": resource,
        "resource_id": resource_id,
        "type": "not_found",
    }


def test_never_made(service: Service) -> None:
    identifier = str(uuid4())
    for part in ("/acls", "/certificate", "/databases", "/privileges", "/users", ""):
        answer = service.request("GET", f"/instances/{identifier}{part}")
        assert_not_found(answer, "instance", identifier)
    assert answer.text == (
        '{"message":"resource is not found","resource":"instance",'
        f'"resource_id":"{identifier}","type":"not_found"}}'
    )


def test_an_id_may_be_written_otherwise(service: Service, instance: dict[str, Any]) -> None:
    shown = service.request("GET", f"/instances/{instance['id'].upper()}").json()
    assert shown["id"] == instance["id"]


def test_another_region_does_not_show_it(service: Service, instance: dict[str, Any]) -> None:
    for path, resource, identifier in (
        ("instances", "instance", instance["id"]),
        ("endpoints", "endpoint", instance["endpoint"]["id"]),
    ):
        answer = service.request("GET", f"//rdb/v1/regions/nl-ams/{path}/{identifier}")
        assert_not_found(answer, resource, identifier)
    listed = service.request("GET", "//rdb/v1/regions/pl-waw/instances?page_size=100").json()
    assert instance["id"] not in {other["id"] for other in listed["instances"]}


# -- PATCH ------------------------------------------------------------------------------------------


def test_an_empty_patch_changes_nothing(service: Service, instance: dict[str, Any]) -> None:
    path = f"/instances/{instance['id']}"
    before = service.request("GET", path).json()
    nothing: list[dict[str, Any]] = [
        {},
        {"name": "", "tags": None, "logs_policy": None, "backup_schedule_frequency": None},
        {"no_such_field": 1, "engine": "PostgreSQL-18", "encryption": {"enabled": True}},
    ]
    for asked in nothing:
        answer = service.request("PATCH", path, json=asked)
        assert answer.status_code == 200
        assert answer.json() == before
    assert service.request("GET", path).json() == before


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"tags": ["z", "a", "z"]}, {"tags": ["z", "a", "z"]}),
        ({"tags": []}, {"tags": []}),
        ({"name": "Ünïcode 🐘 'name'"}, {"name": "Ünïcode 🐘 'name'"}),
        ({"backup_same_region": True}, {"backup_same_region": True}),
    ],
)
def test_what_is_changed_at_once(
    service: Service, instance: dict[str, Any], asked: dict[str, Any], shown: dict[str, Any]
) -> None:
    path = f"/instances/{instance['id']}"
    before = service.request("GET", path).json()
    answer = service.request("PATCH", path, json=asked).json()
    assert answer == before | shown
    assert answer["status"] == "ready"
    assert service.request("GET", path).json() == answer


def test_backup_schedule(api: Api) -> None:
    """The next run counts from the moment at which a rhythm is given, be it the old one."""
    created = api.request("POST", "/instances", json=body()).json()
    path = f"/instances/{created['id']}"
    make_ready(api, created["id"])

    def patched(**asked: Any) -> dict[str, Any]:
        answer = api.request("PATCH", path, json=asked).json()
        assert answer["status"] == "ready"
        schedule: dict[str, Any] = answer["backup_schedule"]
        return schedule

    first = created["backup_schedule"]
    # as recorded in terraform/acl-basic and others
    assert patched(is_backup_schedule_disabled=False, backup_same_region=False) == first
    assert patched(backup_schedule_retention=30) == first | {"retention": 30}
    # as recorded in terraform/instance-backup-schedule
    for frequency in (24, 48):
        before = now()
        moved = patched(backup_schedule_frequency=frequency, is_backup_schedule_disabled=False)
        due = moment(moved.pop("next_run_at"))
        assert before <= due - timedelta(hours=frequency) <= now()
        assert moved == {"frequency": frequency, "retention": 30, "disabled": False}
    off = patched(is_backup_schedule_disabled=True)
    assert off == moved | {"disabled": True, "next_run_at": None}
    assert moment(patched(is_backup_schedule_disabled=False)["next_run_at"]) > due


def make_ready(api: Api, instance_id: str) -> None:
    from openrdb.state.models import Instance

    with api.database.write() as session:
        session.get_one(Instance, UUID(instance_id)).status = "ready"


def test_logs_policy(service: Service, instance: dict[str, Any]) -> None:
    path = f"/instances/{instance['id']}"
    before = service.request("GET", path).json()
    policy = {"max_age_retention": 10, "total_disk_retention": 200000000}
    answer = service.request("PATCH", path, json={"logs_policy": policy}).json()
    assert answer == before | {"status": "configuring", "logs_policy": policy}
    assert settled(service, instance["id"]) == answer | {"status": "ready"}
    again = service.request("PATCH", path, json={"logs_policy": policy}).json()
    assert again == answer | {"status": "ready"}


def test_names_and_tags_may_change_while_configuring(api: Api) -> None:
    created = api.request("POST", "/instances", json=body()).json()
    make_ready(api, created["id"])
    path = f"/instances/{created['id']}"
    policy = {"logs_policy": {"max_age_retention": 1}}
    assert api.request("PATCH", path, json=policy).json()["status"] == "configuring"
    answer = api.request("PATCH", path, json={"name": "new", "tags": ["t"]})
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["status"], shown["name"], shown["tags"]) == ("configuring", "new", ["t"])


# -- certificate, endpoints, versions ---------------------------------------------------------------


def test_certificate(service: Service, instance: dict[str, Any]) -> None:
    path = f"/instances/{instance['id']}"

    def read() -> x509.Certificate:
        shown = service.request("GET", f"{path}/certificate").json()
        assert list(shown) == ["name", "content_type", "content"]
        assert shown["name"] == "ssl_certificate"
        assert shown["content_type"] == "application/x-pem-file"
        return x509.load_pem_x509_certificate(base64.b64decode(shown["content"], validate=True))

    first = read()
    (common_name,) = first.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert common_name.value == instance["endpoint"]["ip"]
    assert first.not_valid_before_utc <= datetime.now(UTC) < first.not_valid_after_utc

    renewed = service.request("POST", f"{path}/renew-certificate", json={})
    assert (renewed.status_code, renewed.content) == (204, b"")
    assert service.request("GET", path).json()["status"] == "ready"
    second = read()
    assert second.serial_number != first.serial_number
    assert second.subject == first.subject


def test_endpoint(service: Service, instance: dict[str, Any]) -> None:
    answer = service.request("GET", f"/endpoints/{instance['endpoint']['id']}")
    assert answer.status_code == 200
    assert answer.json() == instance["endpoint"]
    assert list(answer.json()) == ["ip", "port", "name", "id", "load_balancer"]


def test_newer_major_versions_are_offered(api: Api) -> None:
    """Those of PostgreSQL that can be created, oldest first; of MySQL none."""
    offered = {
        name: api.request("POST", "/instances", json=body(engine=name)).json()["upgradable_version"]
        for name in ("PostgreSQL-16", "PostgreSQL-18", "MySQL-8")
    }
    older = offered.pop("PostgreSQL-16")
    assert [list(one) for one in older] == [["id", "name", "version", "minor_version"]] * 2
    assert [one["name"] for one in older] == ["PostgreSQL-17", "PostgreSQL-18"]
    assert offered == {"PostgreSQL-18": [], "MySQL-8": []}


# -- lists ------------------------------------------------------------------------------------------


def test_lists(service: Service, instance: dict[str, Any]) -> None:
    listed = service.request("GET", "/instances", params={"name": "kept", "page": 1}).json()
    assert list(listed) == ["instances", "total_count"]
    shown = service.request("GET", f"/instances/{instance['id']}").json()
    assert shown in service.request("GET", "/instances?page_size=100").json()["instances"]
    nothing = service.request("GET", "/instances?name=nobody-has-this-name")
    assert nothing.text == '{"instances":[],"total_count":0}'


def test_database_engines(service: Service) -> None:
    listed = service.request("GET", "/database-engines").json()
    assert list(listed) == ["engines", "total_count"]
    assert listed["total_count"] == len(listed["engines"])
    for engine in listed["engines"]:
        assert list(engine) == ["name", "logo_url", "versions", "region"]
        kind, _, icon = engine["logo_url"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(icon, validate=True).startswith(b"<svg ")
        for version in engine["versions"]:
            assert "2018" <= version["release_date"][:4] < version["end_of_life"][:4]
            assert list(version) == [
                *("version", "name", "end_of_life", "available_settings", "disabled", "beta"),
                *("available_init_settings", "release_date"),
            ]
            for setting in version["available_settings"] + version["available_init_settings"]:
                assert list(setting) == [
                    *("name", "default_value", "hot_configurable", "description"),
                    *("property_type", "unit", "string_constraint"),
                    *("int_min", "int_max", "float_min", "float_max"),
                ]
                assert setting["property_type"] in {"BOOLEAN", "INT", "STRING", "FLOAT"}


def test_node_types(service: Service) -> None:
    listed = service.request("GET", "/node-types?page_size=100").json()
    assert list(listed) == ["node_types", "total_count"]
    assert not any(kind["disabled"] for kind in listed["node_types"])
    for kind in listed["node_types"]:
        assert list(kind) == [
            *("name", "stock_status", "description", "vcpus", "memory", "volume_constraint"),
            *("is_bssd_compatible", "disabled", "beta", "available_volume_types"),
            *("is_ha_required", "generation", "instance_range", "region"),
        ]
        for volume in kind["available_volume_types"]:
            assert list(volume) == [
                *("type", "description", "min_size", "max_size", "chunk_size", "class")
            ]
    with_disabled = service.request(
        "GET", "/node-types?page_size=100&include_disabled_types=true"
    ).json()
    assert with_disabled["total_count"] >= listed["total_count"]


# -- beside the API ---------------------------------------------------------------------------------


def test_health_needs_no_key(service: Service) -> None:
    healthy = requests.get(f"{service.url}/healthz", timeout=10)
    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})


INSIDE = "/instances/{instance_id}"
BACKUP, SNAPSHOT = "{database_backup_id}", "{snapshot_id}"
REPLICA = "{read_replica_id}"


def test_openapi(service: Service) -> None:
    document = requests.get(f"{service.url}/openapi.json", timeout=10).json()
    assert document["openapi"].startswith("3.1")
    operations = {
        (method.upper(), path.removeprefix("/rdb/v1/regions/{region}"))
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/rdb/")
    }
    assert operations == {
        ("GET", "/database-engines"),
        ("GET", "/node-types"),
        ("GET", "/instances"),
        ("POST", "/instances"),
        ("GET", "/instances/{instance_id}"),
        ("PATCH", "/instances/{instance_id}"),
        ("DELETE", "/instances/{instance_id}"),
        ("POST", "/instances/{instance_id}/restart"),
        ("POST", "/instances/{instance_id}/upgrade"),
        ("GET", "/instances/{instance_id}/certificate"),
        ("POST", "/instances/{instance_id}/renew-certificate"),
        ("GET", "/endpoints/{endpoint_id}"),
        ("DELETE", "/endpoints/{endpoint_id}"),
        ("POST", "/endpoints/{endpoint_id}/migrate"),
        ("POST", "/instances/{instance_id}/endpoints"),
        *(("GET", f"{INSIDE}/{what}") for what in ("logs", "logs-details", "metrics")),
        *(("POST", f"{INSIDE}/{what}") for what in ("prepare-logs", "purge-logs")),
        ("POST", f"{INSIDE}/apply-maintenance"),
        ("GET", "/logs/{instance_log_id}"),
        *((method, f"{INSIDE}/acls") for method in ("GET", "POST", "PUT", "DELETE")),
        *((method, f"{INSIDE}/settings") for method in ("POST", "PUT", "DELETE")),
        *((method, f"{INSIDE}/users") for method in ("GET", "POST")),
        *((method, f"{INSIDE}/users/{{name}}") for method in ("PATCH", "DELETE")),
        *((method, f"{INSIDE}/databases") for method in ("GET", "POST")),
        ("DELETE", f"{INSIDE}/databases/{{name}}"),
        *((method, f"{INSIDE}/privileges") for method in ("GET", "PUT")),
        *((method, "/backups") for method in ("GET", "POST")),
        *((method, f"/backups/{BACKUP}") for method in ("GET", "PATCH", "DELETE")),
        *(("POST", f"/backups/{BACKUP}/{verb}") for verb in ("export", "restore")),
        *(("POST", f"{INSIDE}/{what}") for what in ("snapshots", "clone")),
        ("GET", "/snapshots"),
        *((method, f"/snapshots/{SNAPSHOT}") for method in ("GET", "PATCH", "DELETE")),
        ("POST", f"/snapshots/{SNAPSHOT}/create-instance"),
        ("POST", "/read-replicas"),
        *((method, f"/read-replicas/{REPLICA}") for method in ("GET", "DELETE")),
        *(("POST", f"/read-replicas/{REPLICA}/{v}") for v in ("endpoints", "reset", "promote")),
    }
    assert document["components"]["securitySchemes"]["key"]["name"] == "X-Auth-Token"
    assert "ValidationError" not in json.dumps(document)


def test_docs_work_without_the_internet(service: Service) -> None:
    page = requests.get(f"{service.url}/docs", timeout=10)
    assert page.status_code == 200
    assert not re.search(r"""(src|href|url)\s*[=:]\s*["'](https?:)?//""", page.text)
    links = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert len(links) >= 3
    for link in links:
        assert requests.get(service.url + link, timeout=10).status_code == 200, link
