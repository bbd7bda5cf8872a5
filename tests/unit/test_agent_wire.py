"""What crosses between control plane and agent: plain data, token, protocol, refusals."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from openrdb import errors
from openrdb.agent.server import create_app
from openrdb.agent.wire import PROTOCOL_HEADER, VERBS, decode_error, encode_error
from openrdb.errors import (
    DiskFull,
    HostError,
    InvalidArguments,
    NodeRemoved,
    NotFound,
    OpenRDBError,
    OutdatedSpec,
    PoolMissing,
    PreconditionFailed,
    QuotasExceeded,
    StartFailed,
    TransientState,
    Unopenable,
)
from openrdb.host.base import PROTOCOL
from openrdb.spec import Certificate, NodeSpec, Route

TOKEN = "a token"

ERRORS = [
    InvalidArguments(("name", "constraint", "is taken"), ("b", "format", "is odd")),
    NotFound("user", "bob"),
    TransientState("instance", "x", "autohealing"),
    PreconditionFailed("not_locked", "somebody is in the way"),
    QuotasExceeded("ports", 10, 10),
    HostError("no disk"),
    StartFailed("the port is taken"),
    Unopenable("it lacks something"),
    PoolMissing("pool fast is missing"),
    DiskFull("no space"),
    NodeRemoved("the node has been removed"),
    OutdatedSpec("older"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_refusal_crosses_as_it_is(error: OpenRDBError) -> None:
    crossed = decode_error(json.loads(json.dumps(encode_error(error))))
    assert type(crossed) is type(error)
    assert crossed.message == error.message
    assert crossed.fields() == error.fields()


def test_what_is_none_of_ours_crosses_as_a_mishap_of_the_host() -> None:
    crossed = decode_error(encode_error(ZeroDivisionError("division by zero")))
    assert type(crossed) is HostError
    assert crossed.message == "ZeroDivisionError: division by zero"
    unknown = decode_error({"error": "OfAnotherVersion", "message": "what"})
    assert type(unknown) is HostError


NOT_BY_HOSTS = {"HostUnavailable", "StoreUnavailable", "ObjectMissing", "BackupFailed"}
"""What the client raises, object stores, and the control plane's own part of backups."""


def test_every_error_that_hosts_raise_is_tried() -> None:
    tried = {type(error).__name__ for error in ERRORS}
    of_hosts = {
        name
        for name, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, HostError)
    }
    assert of_hosts - tried == NOT_BY_HOSTS


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
specs = st.builds(
    NodeSpec,
    instance_id=st.uuids(),
    node_id=st.uuids(),
    engine=texts,
    address=texts,
    port=st.integers(1, 65535),
    uid=st.none() | st.integers(0, 2**31),
    memory=st.integers(0, 2**50),
    settings=st.dictionaries(texts, texts),
    generation=st.integers(0, 2**50),
    secret=texts,
    certificate=st.none() | st.builds(Certificate, key=texts, presented=texts, authority=texts),
)
routes = st.builds(
    Route,
    endpoint_id=st.uuids(),
    instance_id=st.uuids(),
    address=texts,
    port=st.integers(1, 65535),
    backends=st.just(()),
    connections=st.integers(0, 10**6),
    uid=st.none() | st.integers(0, 2**31),
    allowed=st.none() | st.lists(texts).map(tuple),
    rule=st.just("primary") | st.uuids(),
)


@given(specs)
def test_a_spec_crosses_as_it_is(spec: NodeSpec) -> None:
    verb = VERBS["ensure_running"]
    plain = json.loads(json.dumps(verb.encode(spec)))
    assert verb.decode(plain) == {"spec": spec}


@given(routes)
def test_a_route_crosses_as_it_is(route: Route) -> None:
    verb = VERBS["ensure_route"]
    plain = json.loads(json.dumps(verb.encode(route=route)))
    assert verb.decode(plain) == {"route": route}


def test_secrets_are_in_no_text_of_a_spec() -> None:
    spec = NodeSpec(
        *(uuid4(), uuid4(), "PostgreSQL-17", "127.0.0.1", 1, None, 1),
        secret="SECRET",
        replication_secret="REPLICATION",
        certificate=Certificate(key="PRIVATE", presented="P", authority="A"),
    )
    assert not any(word in repr(spec) for word in ("SECRET", "REPLICATION", "PRIVATE"))


class Recording:
    """A host that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def port_is_free(self, address: str, port: int) -> bool:
        self.asked.append((address, port))
        return port == 1

    def forget_job(self, job_id: object) -> None:
        raise HostError(f"job {job_id} is running")


@pytest.fixture
def host() -> Recording:
    return Recording()


@pytest.fixture
def client(host: Recording) -> Iterator[TestClient]:
    headers = {"authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: str(PROTOCOL)}
    with TestClient(create_app(host, TOKEN), headers=headers) as client:  # type: ignore[arg-type]
        yield client


def test_verbs_are_called_by_name(client: TestClient, host: Recording) -> None:
    answer = client.post("/v1/port_is_free", json={"address": "127.0.0.1", "port": 1})
    assert (answer.status_code, answer.json()) == (200, {"result": True})
    assert host.asked == [("127.0.0.1", 1)]
    refused = client.post("/v1/forget_job", json={"job_id": str(uuid4())})
    assert refused.status_code == 409
    assert "is running" in decode_error(refused.json()).message


def test_an_error_crosses_that_names_what_is_not_utf_8(
    client: TestClient, host: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job_id: object) -> None:
        raise HostError(f"{job_id}: no such name: caf\udce9\x00")

    monkeypatch.setattr(host, "forget_job", fail)
    answer = client.post("/v1/forget_job", json={"job_id": str(uuid4())})
    assert answer.status_code == 409
    assert decode_error(answer.json()).message.endswith("caf\udce9\x00")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer another"}, 401),
        ({"authorization": ""}, 401),
        ({PROTOCOL_HEADER: str(PROTOCOL + 1)}, 426),
        ({PROTOCOL_HEADER: ""}, 426),
    ],
)
def test_strangers_and_other_protocols_are_refused(
    client: TestClient, host: Recording, headers: dict[str, str], status: int
) -> None:
    body = {"address": "127.0.0.1", "port": 1}
    assert client.post("/v1/port_is_free", json=body, headers=headers).status_code == status
    assert host.asked == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/no_such_verb", {}),
        ("/v1/_private", {}),
        ("/v1/port_is_free", {"address": "x", "port": "no number"}),
        ("/v1/port_is_free", {"address": "x", "port": 1, "more": 1}),
    ],
)
def test_what_is_no_call_is_refused(
    client: TestClient, host: Recording, path: str, body: dict[str, Any]
) -> None:
    assert client.post(path, json=body).status_code >= 400
    assert host.asked == []


def test_a_control_plane_that_ends_while_it_asks(
    host: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = [
        {"type": "http.request", "body": b'{"addr', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER.lower(): str(PROTOCOL)}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/port_is_free",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    anyio.run(create_app(host, TOKEN), scope, receive, send)  # type: ignore[arg-type]
    assert host.asked == []
    assert not caplog.records
