"""`docs/api.md` names each operation, argument, value and field, and only tests that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import requests

from tests.support.surface import sdk
from tests.support.surface.record import ENGINES, Fact, Recorder
from tests.support.surface.table import DOCUMENT, NOTHING, ROOT, expected, name_of, reasons

TEXT = DOCUMENT.read_text()
_, _, MISSING = TEXT.partition("## Not tried")


def named(text: str) -> dict[str, list[str]]:
    """The rows of all tables: cells by what is in the first one."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first: cells for first, *cells in rows}


def test_all_of_the_surface_is_there() -> None:
    rows = named(TEXT)
    operations = {f"{o.name}: {o.method} {o.path}" for o in sdk.operations().values()}
    others = {name_of(one) for one in expected() if one.kind != "sdk"}
    assert operations | others <= rows.keys()
    assert len(operations) == 58


def test_what_is_not_tried_is_explained() -> None:
    gaps = set()
    for one in expected():
        if one.kind == "sdk":
            operation = sdk.operations()[one.of]
            cells = named(TEXT)[f"{operation.name}: {operation.method} {operation.path}"]
            cell = cells[ENGINES.index(one.what)]
        else:
            cell = named(TEXT.removesuffix(MISSING))[name_of(one)][0]
        if cell == NOTHING:
            gaps.add(name_of(one))
    explained = {name for name, cells in named(MISSING).items() if name in gaps and cells[0]}
    assert gaps == explained == reasons().keys() & gaps
    assert not reasons().keys() - gaps, "these are tried by now"


def test_all_that_is_recorded_is_replayed() -> None:
    for one in sdk.operations().values():
        *_, postgresql, mysql = named(TEXT)[f"{one.name}: {one.method} {one.path}"]
        assert NOTHING not in (postgresql, mysql), one.name


def test_named_tests_are_there() -> None:
    for file, test in set(re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)):
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), (file, test)


def test_only_what_succeeded_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder takes operations, engines, nested arguments and values from what goes by."""
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/x.py::test_y[1] (call)")
    recorder = Recorder(tmp_path)
    base = "http://localhost/rdb/v1/regions/fr-par/instances"
    sdk_agent = {"User-Agent": "scaleway-sdk-python/2"}
    created = {"id": "i", "engine": "MySQL-8", "status": "ready", "volume": {"type": "bssd"}}
    for method, url, body, status, answer in (
        ("POST", base, {"name": "n", "volume_type": "lssd"}, 200, created),
        ("GET", f"{base}/i/users?order_by=name_asc", None, 200, {"users": []}),
        ("DELETE", f"{base}/i", None, 404, {}),
    ):
        request = requests.Request(method, url, json=body, headers=sdk_agent).prepare()
        response = requests.Response()
        response.status_code, response._content = status, json.dumps(answer).encode()
        recorder._note(request, response)
    assert set(recorder.facts.values()) == {"tests/x.py::test_y"}
    assert {
        Fact("sdk", "create_instance", "MySQL"),
        Fact("sdk", "list_users", "MySQL"),
        Fact("argument", "create_instance", "volume_type"),
        Fact("argument", "list_users", "order_by"),
        Fact("value", "VolumeType", "lssd"),
        Fact("value", "VolumeType", "bssd"),
        Fact("value", "InstanceStatus", "ready"),
        Fact("value", "ListUsersRequestOrderBy", "name_asc"),
        Fact("answer", "Instance", "volume"),
        Fact("answer", "Volume", "type"),
    } <= recorder.facts.keys()
    assert not [one for one in recorder.facts if one.of == "delete_instance"]
