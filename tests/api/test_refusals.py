"""Every way to be refused: the right 4xx, the argument by its name, and nothing changed."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from cryptography import x509
from sqlalchemy import func, select

from openrdb.errors import NotFound, PermissionsDenied
from openrdb.state import access, instances
from openrdb.state.database import Database
from openrdb.state.models import Endpoint, Instance, Node, Operation, now
from openrdb.state.scope import Page
from tests.api.test_wire import assert_not_found, body, remove, settled
from tests.support.service import PASSWORD, Service
from tests.support.state_database import REGION, Api, another_key, first_key, principal, row

pytest_plugins = ["tests.support.state_database"]

REASONS = {"unknown", "required", "format", "constraint"}
LONG = "x" * 256
BIG = 2**63


@pytest.fixture(scope="module")
def instance(service: Service) -> Iterator[dict[str, Any]]:
    """A ready instance, which must be the same after each refusal."""
    created = service.request("POST", "/instances", json=body(name="refusals")).json()
    yield settled(service, created["id"])
    remove(service, created["id"])


@pytest.fixture
def unchanged(service: Service, instance: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Sees to it that a test makes no instance and does not change the one there is."""

    def there() -> dict[str, Any]:
        regions = ("fr-par", "nl-ams", "pl-waw")
        paths = [f"//rdb/v1/regions/{region}/instances?page_size=100" for region in regions]
        answers = [service.request("GET", path).json() for path in paths]
        return {one["id"]: one for answer in answers for one in answer["instances"]}

    before = there()
    yield instance
    after = there()
    # Fewer there may be: what an earlier test deleted goes in its own time.
    assert not after.keys() - before.keys()
    assert after[instance["id"]] == before[instance["id"]]


def assert_refused(
    answer: requests.Response, argument: str, reason: str | None = None
) -> list[dict[str, str]]:
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    refusal = answer.json()
    assert list(refusal) == ["message", "details", "type"]
    assert refusal["message"] == "invalid argument(s)"
    assert refusal["type"] == "invalid_arguments"
    for detail in refusal["details"]:
        assert list(detail) == ["argument_name", "reason", "help_message"]
        assert detail["reason"] in REASONS
        assert detail["help_message"]
    found = {detail["argument_name"]: detail["reason"] for detail in refusal["details"]}
    assert argument in found, found
    assert reason in (None, found[argument])
    details: list[dict[str, str]] = refusal["details"]
    return details


# -- who asks ---------------------------------------------------------------------------------------

TOKENS = {
    "none": None,
    "empty": "",
    "nonsense": "nobody",
    "another's": str(uuid4()),
    "sql": "' OR 1=1 --",
    "template": "{{7*7}}${jndi:ldap://x}",
    "not ascii": "é".encode("latin-1"),
    "tabs": "a\tb",
    "long": "a" * 60000,
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/instances"),
        ("POST", "/instances"),
        ("GET", "/no-such-path"),
        ("DELETE", "/instances/{id}"),
        ("GET", "/node-types"),
    ],
)
def test_authentication(
    service: Service, unchanged: dict[str, Any], method: str, path: str, token: str | bytes | None
) -> None:
    url = f"{service.url}/rdb/v1/regions/fr-par{path.format(id=unchanged['id'])}"
    headers: Any = {} if token is None else {"X-Auth-Token": token}
    answer = requests.request(method, url, headers=headers, json=body(), timeout=60)
    assert answer.status_code == 401
    assert answer.json() == {
        "message": "authentication is denied",
        "method": "api_key",
        "reason": "not_found" if token else "invalid_argument",
        "type": "denied_authentication",
    }


def test_the_access_key_is_no_secret(service: Service, unchanged: dict[str, Any]) -> None:
    headers = {"X-Auth-Token": service.credentials["SCW_ACCESS_KEY"]}
    assert service.request("GET", "/instances", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "injected",
    ["{key}\r\nX-Auth-Token: nobody", "nobody\r\nX-Auth-Token: {key}", "{key}\0", "{key} {key}"],
)
def test_headers_within_a_token(service: Service, unchanged: dict[str, Any], injected: str) -> None:
    """Written to the socket as it is, which no HTTP client does."""
    token = injected.format(key=service.secret_key)
    host, _, port = service.url.removeprefix("http://").partition(":")
    text = (
        f"DELETE /rdb/v1/regions/fr-par/instances/{unchanged['id']}x HTTP/1.1\r\nHost: {host}\r\n"
        f"X-Auth-Token: {token}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(text.encode())
        answered = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answered.split(b" ", 2)[1] in {b"400", b"401"}


# -- where ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["xx-yyy", "FR-PAR", "fr-par-1", "%00", "..%2f.."])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_region(
    service: Service, unchanged: dict[str, Any], region: str, method: str
) -> None:
    path = f"//rdb/v1/regions/{region}/instances"
    answer = service.request(method, path, json=body())
    if "%2f" in region:
        assert answer.status_code == 404
    else:
        assert_refused(answer, "region", "constraint")


@pytest.mark.parametrize(
    "path",
    [
        "//rdb",
        "//rdb/v1",
        "//rdb/v2/regions/fr-par/instances",
        "/no-such",
        "/instances/",
        "/instances/{id}/no-such",
        "/instances/{id}/",
        "/endpoints",
        "/instances/%2e%2e/%2e%2e",
    ],
)
def test_unknown_path(service: Service, unchanged: dict[str, Any], path: str) -> None:
    answer = service.request("GET", path.format(id=unchanged["id"]), allow_redirects=False)
    assert answer.status_code == 404
    refusal = answer.json()
    assert (refusal["type"], refusal["message"]) == ("not_found", "resource is not found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/instances", {"GET", "POST"}),
        ("DELETE", "/instances", {"GET", "POST"}),
        ("PUT", "/instances/{id}", {"GET", "PATCH", "DELETE"}),
        ("GET", "/instances/{id}/restart", {"POST"}),
        ("POST", "/instances/{id}/certificate", {"GET"}),
        ("DELETE", "/database-engines", {"GET"}),
        ("POST", "/node-types", {"GET"}),
        ("DELETE", "//healthz", {"GET"}),
        ("PROPFIND", "/instances", {"GET", "POST"}),
    ],
)
def test_unknown_method(
    service: Service, unchanged: dict[str, Any], method: str, path: str, allowed: set[str]
) -> None:
    answer = service.request(method, path.format(id=unchanged["id"]))
    assert answer.status_code == 405
    assert answer.json() == {"message": "method not allowed", "type": "method_not_allowed"}
    assert set(answer.headers["allow"].split(", ")) <= allowed


@pytest.mark.parametrize("identifier", ["x", "%00", "%ff", "{}", "0" * 33, "a" * 3000, "' OR 1=1"])
@pytest.mark.parametrize(
    ("method", "path", "argument"),
    [
        ("GET", "/instances/{}", "instance_id"),
        ("PATCH", "/instances/{}", "instance_id"),
        ("DELETE", "/instances/{}", "instance_id"),
        ("POST", "/instances/{}/restart", "instance_id"),
        ("GET", "/instances/{}/certificate", "instance_id"),
        ("POST", "/instances/{}/renew-certificate", "instance_id"),
        ("GET", "/endpoints/{}", "endpoint_id"),
    ],
)
def test_malformed_ids(
    service: Service, method: str, path: str, argument: str, identifier: str
) -> None:
    answer = service.request(method, path.replace("{}", identifier), json={})
    (detail,) = assert_refused(answer, argument, "format")
    assert "UUID" in detail["help_message"]


# -- bodies that are none ---------------------------------------------------------------------------

DEEP = "[" * 100_000 + "]" * 100_000
BODIES: dict[str, tuple[bytes | str, str, str]] = {
    "cut": ('{"engine": "Post', "body", "format"),
    "brace": ("{", "body", "format"),
    "words": ("engine=PostgreSQL-17", "body", "format"),
    "two": ("{}{}", "body", "format"),
    "single quotes": ("{'engine': 'x'}", "body", "format"),
    "trailing comma": ('{"name": "x",}', "body", "format"),
    "array": ("[]", "body", "format"),
    "string": ('"engine"', "body", "format"),
    "number": ("1", "body", "format"),
    "null": ("null", "body", "format"),
    "bytes": (b"\xff\xfe\x00\x01", "body", "format"),
    "latin-1": ('{"name": "é"}'.encode("latin-1"), "body", "format"),
    "deep": (f'{{"name": {DEEP}}}', "body", "format"),
    "digits": ('{"volume_size": ' + "9" * 5000 + "}", "body", "format"),
    "large": ("{" + " " * 2**20 + "}", "body", "constraint"),
}


@pytest.mark.parametrize(("sent", "argument", "reason"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(("method", "path"), [("POST", "/instances"), ("PATCH", "/instances/{id}")])
def test_bodies(
    service: Service,
    unchanged: dict[str, Any],
    method: str,
    path: str,
    sent: bytes | str,
    argument: str,
    reason: str,
) -> None:
    json_type = {"Content-Type": "application/json"}
    answer = service.request(method, path.format(**unchanged), data=sent, headers=json_type)
    assert_refused(answer, argument, reason)


@pytest.mark.parametrize(("method", "path"), [("POST", "/instances"), ("PATCH", "/instances/{id}")])
def test_no_body(service: Service, unchanged: dict[str, Any], method: str, path: str) -> None:
    assert_refused(service.request(method, path.format(**unchanged)), "body", "required")


def test_a_body_of_unknown_length(service: Service, unchanged: dict[str, Any]) -> None:
    answer = service.request("POST", "/instances", data=iter([b"{}"]))
    assert_refused(answer, "body", "format")


def test_a_long_body_is_refused_before_it_is_read(service: Service) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")
    text = (
        f"POST /rdb/v1/regions/fr-par/instances HTTP/1.1\r\nHost: {host}\r\nContent-Length: {BIG}"
        f"\r\nX-Auth-Token: {service.secret_key}\r\nContent-Type: application/json\r\n\r\n{{"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(text.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


# -- fields of a creation ---------------------------------------------------------------------------

NOT_TEXT = [1, 1.5, True, [], {}]
NOT_BOOLEAN = ["", "true", 0, 1, [], {}]
NOT_INTEGER = ["", "1", 1.5, True, [], {}, float("nan"), float("inf")]
NOT_LIST = ["", "x", 1, True, {}]
NOT_OBJECT = ["", 1, True, []]
TEXTS = ["engine", "node_type", "name", "user_name", "password", "volume_type"]
BOOLEANS = ["is_ha_cluster", "disable_backup", "backup_same_region"]
LISTS = ["tags", "init_settings", "init_endpoints"]


def wrong_types() -> Iterator[tuple[dict[str, Any], str, str | None]]:
    """(what to change in a creation, the argument that the refusal names, the reason)"""
    for names, values in (
        (TEXTS, NOT_TEXT),
        (BOOLEANS, NOT_BOOLEAN),
        (["volume_size"], NOT_INTEGER),
        (LISTS, NOT_LIST),
        (["encryption"], NOT_OBJECT),
        (["project_id", "organization_id"], [1, True, [], {}, "x", "0" * 31, "\0"]),
        (["high_availability_mode"], NOT_TEXT),
    ):
        for name in names:
            for value in values:
                yield {name: value}, name, None
    for name in ("engine", "node_type"):
        yield {name: None}, name, "required"


WRONG: list[tuple[dict[str, Any], str, str | None]] = [
    *wrong_types(),
    # unknown values
    ({"engine": ""}, "engine", "constraint"),
    ({"engine": "PostgreSQL"}, "engine", "constraint"),
    ({"engine": "PostgreSQL-9"}, "engine", "constraint"),
    ({"engine": "PostgreSQL-11"}, "engine", "constraint"),
    ({"engine": "Oracle-23"}, "engine", "constraint"),
    ({"engine": "../../etc/passwd"}, "engine", "constraint"),
    ({"node_type": ""}, "node_type", "constraint"),
    ({"node_type": "db-dev-xxl"}, "node_type", "constraint"),
    ({"node_type": "db-dev-\u017f"}, "node_type", "constraint"),  # its upper case is S
    ({"volume_type": "ssd"}, "volume_type", "constraint"),
    ({"volume_type": "LSSD"}, "volume_type", "constraint"),
    ({"high_availability_mode": "always"}, "high_availability_mode", "constraint"),
    # lengths
    ({"name": LONG}, "name", "constraint"),
    ({"engine": LONG}, "engine", "constraint"),
    ({"user_name": "x" * 64}, "user_name", "constraint"),
    ({"user_name": "x" * 2000}, "user_name", "constraint"),
    ({"password": "Aa1!" * 500}, "password", "constraint"),
    ({"tags": ["x" * 129]}, "tags.0", "constraint"),
    ({"tags": ["x"] * 65}, "tags", "constraint"),
    ({"init_settings": [{"name": "x", "value": LONG}]}, "init_settings.0.value", "constraint"),
    ({"init_settings": [{"name": "x", "value": "1"}] * 101}, "init_settings", "constraint"),
    # what is in lists
    ({"tags": ["a", 1]}, "tags.1", "format"),
    ({"tags": [None]}, "tags.0", "format"),
    ({"init_settings": [1]}, "init_settings.0", "format"),
    ({"init_settings": [{"name": "x"}]}, "init_settings.0.value", "required"),
    ({"init_settings": [{"name": "x", "value": 1}]}, "init_settings.0.value", "format"),
    ({"init_settings": [{"name": "x", "value": "1"}]}, "init_settings.0.name", "constraint"),
    ({"encryption": {"enabled": "yes"}}, "encryption.enabled", "format"),
    ({"init_endpoints": [{}]}, "init_endpoints.0", "required"),
    ({"init_endpoints": [{"load_balancer": 1}]}, "init_endpoints.0.load_balancer", "format"),
    (
        {"init_endpoints": [{"load_balancer": {}}] * 2},
        "init_endpoints.1.load_balancer",
        "constraint",
    ),
    (
        {"init_endpoints": [{"private_network": {}}]},
        "init_endpoints.0.private_network.private_network_id",
        "required",
    ),
    (
        {"init_endpoints": [{"private_network": {"private_network_id": str(uuid4())}}]},
        "init_endpoints.0.private_network",
        "unknown",
    ),
    # volumes
    ({"volume_size": -1}, "volume_size", "constraint"),
    ({"volume_size": 1}, "volume_size", "constraint"),
    ({"volume_size": 25_000_000_000}, "volume_size", "constraint"),
    ({"volume_type": "sbs_5k", "volume_size": 5_000_000_001}, "volume_size", "constraint"),
    ({"volume_type": "sbs_5k", "volume_size": BIG - 1}, "volume_size", "constraint"),
    ({"volume_size": BIG}, "volume_size", "constraint"),
    ({"volume_size": -BIG * BIG}, "volume_size", "constraint"),
    # what contradicts itself
    (
        {"is_ha_cluster": True, "high_availability_mode": "disabled"},
        "high_availability_mode",
        "constraint",
    ),
    # passwords
    ({"password": ""}, "password", "constraint"),
    ({"password": "Short1!"}, "password", "constraint"),
    ({"password": "no-upper-case-1"}, "password", "constraint"),
    ({"password": "NO-LOWER-CASE-1"}, "password", "constraint"),
    ({"password": "No-digit-at-all"}, "password", "constraint"),
    ({"password": "NoSpecial1234"}, "password", "constraint"),
    ({"password": "Aa1!" * 32 + "x"}, "password", "constraint"),
    ({"password": "With\0nul-1234"}, "password", "format"),
    ({"password": "With\nline-1234"}, "password", "format"),
    # user names
    ({"user_name": "postgres"}, "user_name", "constraint"),
    ({"user_name": "ROOT"}, "user_name", "constraint"),
    ({"user_name": "_rdb_superadmin"}, "user_name", "constraint"),
    ({"user_name": "_RDB"}, "user_name", "constraint"),
    ({"user_name": "pg_monitor"}, "user_name", "constraint"),
    ({"user_name": "PG_x"}, "user_name", "constraint"),
    ({"user_name": "public"}, "user_name", "constraint"),
    ({"user_name": "1st"}, "user_name", "format"),
    ({"user_name": "_x"}, "user_name", "format"),
    ({"user_name": "x y"}, "user_name", "format"),
    ({"user_name": "é"}, "user_name", "format"),
    ({"user_name": "a#b"}, "user_name", "format"),
    # instances' names
    ({"name": "  "}, "name", "constraint"),
    ({"name": "\u00a0"}, "name", "constraint"),
    ({"name": "a\nb"}, "name", "constraint"),
    ({"name": "a\u2028b"}, "name", "constraint"),
    ({"name": "a\x1bb"}, "name", "constraint"),
    ({"user_name": "a\nb"}, "user_name", "format"),
    ({"user_name": "a\0b"}, "user_name", "format"),
    # characters that no database keeps
    ({"name": "a\0b"}, "name", "format"),
    ({"name": "a\ud800b"}, "name", "format"),
    ({"engine": "PostgreSQL-17\0"}, "engine", "format"),
    ({"node_type": "db-dev-s\0"}, "node_type", "format"),
    ({"user_name": "\udfff"}, "user_name", "format"),
    ({"password": f"{PASSWORD}\udc80"}, "password", "format"),
    ({"tags": ["a\0"]}, "tags.0", "format"),
    ({"tags": ["\ud83d"]}, "tags.0", "format"),
    ({"init_settings": [{"name": "x\0", "value": "1"}]}, "init_settings.0.name", "format"),
    # both owners
    (
        {"project_id": str(uuid4()), "organization_id": str(uuid4())},
        "organization_id",
        "constraint",
    ),
]


@pytest.mark.parametrize(
    ("wrong", "argument", "reason"),
    WRONG,
    ids=[f"{position}-{argument}" for position, (_, argument, _) in enumerate(WRONG)],
)
def test_fields_of_a_creation(
    service: Service, wrong: dict[str, Any], argument: str, reason: str | None
) -> None:
    answer = post(service, body(**wrong))
    assert_refused(answer, argument, reason)


def post(service: Service, sent: dict[str, Any]) -> requests.Response:
    """As JSON, with what only some writers of JSON write: NaN and lone surrogates."""
    headers = {"Content-Type": "application/json"}
    return service.request("POST", "/instances", data=json.dumps(sent), headers=headers)


def test_no_wrong_creation_has_left_anything(service: Service, unchanged: dict[str, Any]) -> None:
    """All of them once more, between two looks at everything there is."""
    answers = [post(service, body(**wrong)) for wrong, _, _ in WRONG]
    assert {answer.status_code for answer in answers} == {400}


def test_encryption_that_this_deployment_has_not(
    service: Service, unchanged: dict[str, Any]
) -> None:
    for answer in (
        post(service, body(encryption={"enabled": True})),
        service.request(
            "POST", f"/instances/{unchanged['id']}/upgrade", json={"enable_encryption": True}
        ),
    ):
        assert answer.status_code == 412
        assert answer.json()["type"] == "precondition_failed"
        assert answer.json()["precondition"] == "encrypted_volumes"
        assert "volumes_encrypted" in answer.json()["help_message"]


def test_required_fields(service: Service, unchanged: dict[str, Any]) -> None:
    answer = service.request("POST", "/instances", json={"name": "x"})
    details = assert_refused(answer, "engine", "required")
    assert {detail["argument_name"] for detail in details} == {"engine", "node_type"}


def test_all_that_is_wrong_is_named_at_once(service: Service, unchanged: dict[str, Any]) -> None:
    sent = {"engine": 1, "node_type": [], "tags": "x", "volume_size": "0", "name": LONG}
    details = assert_refused(post(service, sent), "engine")
    assert {detail["argument_name"] for detail in details} == sent.keys()


def test_another_project(service: Service, unchanged: dict[str, Any]) -> None:
    for owner in ("project_id", "organization_id"):
        answer = service.request("POST", "/instances", json=body(**{owner: str(uuid4())}))
        assert answer.status_code == 403
        assert answer.json() == {
            "message": "insufficient permissions",
            "details": [{"action": "create", "resource": "instance"}],
            "type": "permissions_denied",
        }


# -- fields of a change -----------------------------------------------------------------------------

WRONG_CHANGES: list[tuple[dict[str, Any], str]] = [
    *(({"name": value}, "name") for value in [*NOT_TEXT, LONG, "a\0", "\ud800", " ", "a\nb"]),
    *(({"tags": value}, "tags") for value in NOT_LIST),
    ({"tags": ["a", None]}, "tags.1"),
    ({"tags": ["\0"]}, "tags.0"),
    *(({"is_backup_schedule_disabled": v}, "is_backup_schedule_disabled") for v in NOT_BOOLEAN),
    *(({"backup_same_region": value}, "backup_same_region") for value in NOT_BOOLEAN),
    *(
        ({field: value}, field)
        for field in ("backup_schedule_frequency", "backup_schedule_retention")
        for value in [*NOT_INTEGER, 0, -1, BIG, 10**30]
    ),
    *(({"backup_schedule_start_hour": v}, "backup_schedule_start_hour") for v in (-1, 24, "1")),
    *(({"logs_policy": value}, "logs_policy") for value in NOT_OBJECT),
    ({"logs_policy": {"max_age_retention": -1}}, "logs_policy.max_age_retention"),
    ({"logs_policy": {"max_age_retention": "30"}}, "logs_policy.max_age_retention"),
    ({"logs_policy": {"total_disk_retention": BIG}}, "logs_policy.total_disk_retention"),
]


def test_fields_of_a_change(service: Service, unchanged: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json"}
    for wrong, argument in WRONG_CHANGES:
        # what is right beside it must not be done either
        sent = json.dumps({"name": "changed", "tags": ["changed"]} | wrong)
        answer = service.request(
            "PATCH", f"/instances/{unchanged['id']}", data=sent, headers=headers
        )
        assert_refused(answer, argument)


# -- queries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/instances", "/database-engines", "/node-types"])
@pytest.mark.parametrize(
    ("query", "argument", "reason"),
    [
        ("page=0", "page", "constraint"),
        ("page=-1", "page", "constraint"),
        ("page=x", "page", "format"),
        ("page=1.5", "page", "format"),
        (f"page={10**30}", "page", None),
        ("page_size=0", "page_size", "constraint"),
        ("page_size=101", "page_size", "constraint"),
        ("page_size=1e1", "page_size", "format"),
    ],
)
def test_pages(service: Service, path: str, query: str, argument: str, reason: str | None) -> None:
    assert_refused(service.request("GET", f"{path}?{query}"), argument, reason)


@pytest.mark.parametrize(
    ("query", "argument"),
    [
        ("/instances?order_by=name", "order_by"),
        ("/instances?order_by=name_asc;drop", "order_by"),
        ("/instances?project_id=x", "project_id"),
        ("/instances?project_id=%00", "project_id"),
        ("/instances?organization_id=1", "organization_id"),
        ("/instances?has_maintenances=maybe", "has_maintenances"),
        (f"/instances?name={LONG}", "name"),
        ("/instances?name=%00", "name"),
        ("/instances?tags=a&tags=b%00", "tags.1"),
        (f"/instances?tags={'x' * 129}", "tags.0"),
        ("/instances?" + "&".join(["tags=a"] * 65), "tags"),
        (f"/database-engines?name={LONG}", "name"),
        (f"/database-engines?version={LONG}", "version"),
        ("/node-types?include_disabled_types=some", "include_disabled_types"),
        ("/node-types?order_by=memory_asc", "order_by"),
    ],
)
def test_queries(service: Service, query: str, argument: str) -> None:
    assert_refused(service.request("GET", query), argument)


# -- statuses ---------------------------------------------------------------------------------------

REQUESTS = {
    "update": ("PATCH", "", {"name": "changed"}),
    "configure": ("PATCH", "", {"name": "changed", "logs_policy": {"max_age_retention": 1}}),
    "restart": ("POST", "/restart", {}),
    "renew_certificate": ("POST", "/renew-certificate", {}),
    "delete": ("DELETE", "", None),
}
FORBIDDEN = {
    "provisioning": set(REQUESTS),
    "initializing": set(REQUESTS),
    "configuring": set(REQUESTS) - {"update"},
    "restarting": set(REQUESTS),
    "deleting": set(REQUESTS),
    "error": {"renew_certificate"},
}


@pytest.mark.parametrize("status", FORBIDDEN)
def test_transient_states(api: Api, status: str) -> None:
    with api.database.write() as session:
        kept = row(api.key, status=status)
        session.add(kept)
    path = f"/instances/{kept.id}"
    before = api.request("GET", path).json()
    for name in sorted(FORBIDDEN[status]):
        method, below, sent = REQUESTS[name]
        answer = api.request(method, path + below, json=sent)
        if status == "error":  # it stays, so nobody is told to come again
            assert answer.status_code == 412, name
            assert answer.json()["precondition"] == "resource_not_usable"
            continue
        assert answer.status_code == 409, name
        assert answer.json() == {
            "message": "resource is in a transient state",
            "resource": "instance",
            "resource_id": str(kept.id),
            "current_state": status,
            "type": "transient_state",
        }
    assert api.request("GET", path).json() == before
    assert recorded(api.database) == 0
    assert not api.started


def recorded(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Operation)) or 0


def test_what_was_never_made_is_not_restarted(api: Api) -> None:
    with api.database.write() as session:
        kept = row(api.key, status="error")
        session.add(kept)
    answer = api.request("POST", f"/instances/{kept.id}/restart")
    assert answer.status_code == 412
    assert answer.json()["precondition"] == "resource_not_usable"
    assert not api.started
    assert api.request("DELETE", f"/instances/{kept.id}").json()["status"] == "deleting"


def test_only_one_of_two_meets_a_ready_instance(api: Api) -> None:
    with api.database.write() as session:
        kept = row(api.key, first_ready_at=now())
        session.add(kept)
    path = f"/instances/{kept.id}"
    assert api.request("POST", f"{path}/restart").json()["status"] == "restarting"
    assert api.request("DELETE", path).json()["current_state"] == "restarting"
    assert recorded(api.database) == len(api.started) == 1


def test_the_certificate_is_there_from_the_request_on(api: Api) -> None:
    """Also where the creation fails: clients read it before they delete the instance."""
    created = api.request("POST", "/instances", json=body()).json()
    path = f"/instances/{created['id']}"
    with api.database.write() as session:
        session.get_one(Instance, UUID(created["id"])).status = "error"
    answer = api.request("GET", f"{path}/certificate")
    assert answer.status_code == 200
    shown = x509.load_pem_x509_certificate(base64.b64decode(answer.json()["content"]))
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "127.0.0.1" in names.get_values_for_type(x509.DNSName)
    assert api.request("POST", f"{path}/restart").status_code == 412
    assert api.request("DELETE", path).json()["status"] == "deleting"


def test_an_endpoint_that_nobody_can_use_yet(api: Api) -> None:
    api.request("POST", "/instances", json=body())
    with api.database.read() as session:
        endpoint = session.scalars(select(Endpoint)).one()
    answer = api.request("GET", f"/endpoints/{endpoint.id}")
    assert_not_found(answer, "endpoint", str(endpoint.id))


def test_no_room_left(database: Database, tmp_path: Path, cache: Path) -> None:
    ports = {"endpoint_ports": (20000, 20001), "node_ports": (12000, 12999)}
    with Api(database, tmp_path, cache=cache, **ports) as api:
        made = [api.request("POST", "/instances", json=body()) for _ in range(3)]
        assert [answer.status_code for answer in made] == [200, 200, 403]
        assert made[2].json() == {
            "message": "quota exceeded",
            "details": [{"resource": "endpoints", "quota": 2, "current": 2}],
            "type": "quotas_exceeded",
        }
        assert api.request("GET", "/instances").json()["total_count"] == 2
        assert recorded(database) == len(api.started) == 2


# -- other projects' instances ----------------------------------------------------------------------


@pytest.mark.parametrize("same_organization", [True, False])
def test_another_projects_key(api: Api, same_organization: bool) -> None:
    """Another project's instance is 404 by id and absent in lists; a creation there is 403."""
    organization = api.key.organization_id if same_organization else None
    stranger = another_key(api.database, organization)
    with api.database.write() as session:
        kept = row(api.key, certificate="PEM")
        kept.endpoints.append(Endpoint(ip="127.0.0.1", port=1, published=True))
        session.add(kept)
    identifier = str(kept.id)
    before = api.request("GET", f"/instances/{identifier}").json()

    for method, below, sent in [
        *REQUESTS.values(),
        ("GET", "", None),
        ("GET", "/certificate", None),
    ]:
        answer = api.request(method, f"/instances/{identifier}{below}", stranger, json=sent)
        assert_not_found(answer, "instance", identifier)
    endpoint = str(kept.endpoints[0].id)
    assert_not_found(api.request("GET", f"/endpoints/{endpoint}", stranger), "endpoint", endpoint)
    for query in ("", f"?project_id={api.key.project_id}", "?name=test"):
        listed = api.request("GET", f"/instances{query}", stranger).json()
        assert listed == {"instances": [], "total_count": 0}
    for project in (api.key.project_id, uuid4()):
        answer = api.request("POST", "/instances", stranger, json=body(project_id=str(project)))
        assert answer.status_code == 403
    assert api.request("GET", f"/instances/{identifier}").json() == before
    assert recorded(api.database) == 0

    own = api.request("POST", "/instances", stranger, json=body()).json()
    assert UUID(own["project_id"]) == stranger.project_id
    # The first key is the whole organization's, but of no other.
    seen = api.request("GET", f"/instances/{own['id']}")
    assert seen.status_code == (200 if same_organization else 404)


def test_visibility_in_the_state(database: Database) -> None:
    mine, neighbour = (key := first_key(database)), another_key(database, key.organization_id)
    abroad = another_key(database)
    with database.write() as session:
        rows = {owner: row(owner) for owner in (mine, neighbour, abroad)}
        session.add_all(rows.values())
    sees = {mine: {mine, neighbour}, neighbour: {neighbour}, abroad: {abroad}}
    for asking, seen in sees.items():
        who = principal(database, asking)
        with database.read() as session:
            found, total = instances.page(
                session, REGION, who, instances.Filters(), "created_at_asc", Page(1, 100)
            )
            assert {one.id for one in found} == {rows[owner].id for owner in seen}
            assert total == len(seen)
            for owner, one in rows.items():
                if owner in seen:
                    assert instances.get(session, REGION, one.id, who).id == one.id
                else:
                    with pytest.raises(NotFound):
                        instances.get(session, REGION, one.id, who)
                    with pytest.raises(PermissionsDenied):
                        access.project_for_creation(
                            session, who, owner.project_id, "create", "instance"
                        )


def test_secrets_are_kept_as_hashes_only(database: Database) -> None:
    from openrdb.state.models import ApiKey

    key = first_key(database)
    with database.read() as session:
        (kept,) = session.scalars(select(ApiKey))
    assert key.secret_key not in {str(value) for value in vars(kept).values()}
    assert principal(database, key).access_key == key.access_key


def test_ports_are_given_once(api: Api) -> None:
    for _ in range(20):
        assert api.request("POST", "/instances", json=body()).status_code == 200
    with api.database.read() as session:
        assert len(set(session.scalars(select(Node.port)))) == 20
        assert len(set(session.scalars(select(Endpoint.port)))) == 20
        assert len(list(session.scalars(select(Instance)))) == 20
