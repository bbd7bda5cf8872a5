"""The HTTP around the API: types of bodies, forms of targets, and names in whatever case."""

from __future__ import annotations

import json
import socket
from uuid import uuid4

import pytest

from tests.api.test_refusals import assert_refused
from tests.support.service import Service, creation, gone, ready, wait_until


@pytest.mark.parametrize(
    "given", ["application/x-www-form-urlencoded", "text/plain", "application/jsonx", "x", ""]
)
@pytest.mark.parametrize("path", ["/instances", "//vpc/v2/regions/fr-par/private-networks"])
def test_a_body_that_is_no_json(service: Service, given: str, path: str) -> None:
    """As `curl -d` sends it."""
    answer = service.request("POST", path, data="{}", headers={"Content-Type": given})
    (detail,) = assert_refused(answer, "Content-Type", "constraint")
    assert detail["help_message"] == "must be application/json"


@pytest.mark.parametrize("given", ["application/json", "Application/JSON; charset=utf-8", None])
def test_a_body_that_is_json(service: Service, given: str | None) -> None:
    headers = {} if given is None else {"Content-Type": given}
    answer = service.request("POST", "/instances", data="{}", headers=headers)
    assert_refused(answer, "engine", "required")


def test_who_has_no_body_needs_no_type(service: Service) -> None:
    headers = {"Content-Type": "text/plain"}
    assert service.request("GET", "/instances", headers=headers).status_code == 200


@pytest.mark.parametrize("sent", ["[" * 5000 + "]" * 5000, '{"x":' * 5000 + "1" + "}" * 5000])
def test_a_body_of_many_levels(service: Service, sent: str) -> None:
    """No reader of JSON takes it; where there is none it does no harm."""
    headers = {"Content-Type": "application/json"}
    answer = service.request("POST", "/instances", data=sent, headers=headers)
    assert_refused(answer, "body", "format")
    path = f"/backups/{uuid4()}/export"
    assert service.request("POST", path, data=sent, headers=headers).status_code == 404


def test_the_key_comes_first(service: Service) -> None:
    headers = {"Content-Type": "text/plain", "X-Auth-Token": "nobody"}
    assert service.request("POST", "/instances", data="x", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        ("", "/healthz", b"200"),
        ("", "/rdb/v1/regions/fr-par/instances", b"401"),
        ("{key}", "/rdb/v1/regions/fr-par/instances?page_size=1", b"200"),
        ("{key}", "/no-such", b"404"),
    ],
)
def test_absolute_targets(service: Service, token: str, path: str, status: bytes) -> None:
    """RFC 9112: a server must accept them. The guard sees the same path as the routes."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    text = (
        f"GET {service.url}{path} HTTP/1.1\r\nHost: elsewhere\r\n"
        f"X-Auth-Token: {token.format(key=service.secret_key)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(text.encode())
        assert connection.recv(65536).split(b" ", 2)[1] == status


def test_an_engine_in_another_case(service: Service) -> None:
    body = json.dumps(creation("postgresql-17", name="lower"))
    headers = {"Content-Type": "application/json"}
    made = service.request("POST", "/instances", data=body, headers=headers).json()
    assert made["engine"] == "PostgreSQL-17"
    ready(service.sdk(), made["id"])
    service.sdk().delete_instance(instance_id=made["id"])
    wait_until(lambda: gone(service.sdk(), made["id"]))


def test_quotas_by_configuration(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    project = service.credentials["SCW_DEFAULT_PROJECT_ID"]
    service.kill()
    small = '{"instances": 9, "volume_bytes": 7000000000}'
    service.environment["OPENRDB_QUOTAS"] = '{"instances": 0}'
    service.environment["OPENRDB_PROJECT_QUOTAS"] = f'{{"{project}": {small}}}'
    service.start()
    first = service.create()
    refused = service.request("POST", "/instances", json=creation(name="second"))
    detail = {"resource": "volume_bytes", "quota": 7_000_000_000, "current": 5_000_000_000}
    assert refused.status_code == 403
    assert refused.json() == {
        "message": "quota exceeded",
        "details": [detail],
        "type": "quotas_exceeded",
    }
    service.sdk().delete_instance(instance_id=first.id)
    wait_until(lambda: gone(service.sdk(), first.id))
    assert service.create(name="third").status == "ready"
