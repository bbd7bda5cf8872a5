"""No message, log line or traceback has a secret of what crosses between control plane and agent."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from pydantic import TypeAdapter

from openrdb.agent.server import create_app
from openrdb.agent.wire import PROTOCOL_HEADER, VERBS
from openrdb.host.base import PROTOCOL
from openrdb.host.records import NodeRecord, Records
from openrdb.spec import Administrator, Certificate, JobSpec, NodeSpec
from openrdb.system.layout import Layout

SECRET = "Secret-7f3a"


def spec() -> NodeSpec:
    return NodeSpec(
        instance_id=uuid4(),
        node_id=uuid4(),
        engine="PostgreSQL-17",
        address="127.0.0.1",
        port=12000,
        uid=None,
        memory=2**30,
        secret=SECRET,
        replication_secret=SECRET,
        certificate=Certificate(SECRET, "presented", "authority"),
    )


class _Broken:
    """A host with a defect in a verb."""

    def ensure_bootstrapped(self, spec: NodeSpec, administrator: Administrator | None) -> None:
        raise RuntimeError(f"cannot do {spec} for {administrator}")


def call(verb: str, arguments: dict[str, Any]) -> str:
    app = create_app(_Broken(), "token")  # type: ignore[arg-type]
    headers = {"authorization": "Bearer token", PROTOCOL_HEADER: str(PROTOCOL)}

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            return await client.post(f"/v1/{verb}", json=arguments, headers=headers)

    answer = anyio.run(post)
    assert answer.status_code == 500
    return answer.text


def test_a_failing_call(caplog: pytest.LogCaptureFixture) -> None:
    verb = VERBS["ensure_bootstrapped"]
    arguments = verb.encode(spec(), Administrator("admin", SECRET))
    answer = call("ensure_bootstrapped", arguments)
    assert "admin" in answer
    assert "Traceback" in caplog.text
    assert SECRET not in answer + caplog.text


@pytest.mark.parametrize("field", ["port", "secret", "certificate"])
def test_a_call_that_is_not_understood(caplog: pytest.LogCaptureFixture, field: str) -> None:
    arguments = VERBS["ensure_running"].encode(spec())
    arguments["spec"][field] = [SECRET]
    answer = call("ensure_running", arguments)
    assert field in answer, "it says what is wrong"
    assert SECRET not in answer + caplog.text


def test_a_damaged_record(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    record = NodeRecord(spec(), bundle="postgresql-17.0")
    path = layout.node(record.spec.instance_id, record.spec.node_id).record
    path.parent.mkdir(parents=True)
    plain = TypeAdapter(NodeRecord).dump_python(record, mode="json")
    plain["spec"]["port"] = SECRET
    for text in (json.dumps(plain), json.dumps(plain)[:-3]):
        path.write_text(text)
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            assert Records(layout).nodes == {}
        assert "node.json" in caplog.text
        assert SECRET not in caplog.text


def test_what_is_printed_of_them() -> None:
    job = JobSpec(uuid4(), "dump", ("true",), 1.0, environment={"PGPASSWORD": SECRET})
    record = replace(NodeRecord(spec(), bundle="b"), desired="running")
    for one in (spec(), record, job, Administrator("admin", SECRET)):
        assert SECRET not in repr(one)
