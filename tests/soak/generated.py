"""Requests that the OpenAPI document allows, or just does not, about things that are there."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import Case, GenerationMode

from openrdb.api.app import create_app
from openrdb.api.common import Backend
from openrdb.config import Settings
from tests.soak.calls import Things

_THINGS = {
    "instance_id": "instance",
    "endpoint_id": "endpoint",
    "database_backup_id": "backup",
    "snapshot_id": "snapshot",
    "read_replica_id": "replica",
    "instance_log_id": "log",
}
_MAKING = ("/clone", "/create-instance", "/promote", "/instances")
_UNLIKELY = ("project_id", "organization_id", "init_settings")
"""Arguments of creations by which nearly all that is generated is refused."""


def cases(seed: int, each: int) -> list[Case]:
    """Return requests for each operation but the deletion of an instance.

    All at once, before anybody calls: hypothesis is not made for threads.
    """
    document = create_app(cast(Backend, SimpleNamespace(database=None, settings=Settings())))
    schema = schemathesis.openapi.from_dict(document.openapi())
    found: list[Case] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        is_deletion = operation.method == "delete" and operation.path.endswith("{instance_id}")
        if not operation.path.startswith("/rdb/") or is_deletion:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.seed(seed)
            @hypothesis.settings(
                max_examples=each,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def collect(case: Case) -> None:
                found.append(case)

            try:
                collect()
            except hypothesis.errors.Unsatisfiable:
                continue  # nothing can be wrong in a request without arguments
    return found


def makes(case: Case) -> bool:
    """Return whether another instance may come of it."""
    return case.method == "POST" and case.path.endswith(_MAKING)


def aimed(case: Case, things: Things) -> Case:
    """Return a request that is about what there is, most of the time."""
    places = dict(case.path_parameters or {})
    for name in places:
        if name == "region":
            places[name] = "fr-par"
        elif name in _THINGS and things.chance.random() < 0.9:
            places[name] = things.get(_THINGS[name])
        elif name == "name" and things.chance.random() < 0.5:
            places[name] = things.get("user" if "/users" in case.path else "database")
    return case.operation.Case(
        method=case.method,
        path_parameters=places,
        headers=case.headers,
        query=case.query,
        body=_body(case, things) if isinstance(case.body, dict) else case.body,
        media_type=case.media_type,
    )


def _body(case: Case, things: Things) -> dict[str, Any]:
    body = copy.deepcopy(cast(dict[str, Any], case.body))
    if isinstance(body.get("instance_id"), str):
        body["instance_id"] = things.id
    if makes(case) or case.method == "PATCH":
        # By its name the tenant finds what it has.
        for name in ("name", "instance_name"):
            if name in body or (makes(case) and name == _NAME.get(case.path.rpartition("/")[2])):
                body[name] = things.get("name")
    if case.path.endswith("/instances"):
        body |= {"engine": things.instance["engine"], "node_type": "DB-DEV-S"}
        for name in _UNLIKELY:
            body.pop(name, None)
    return body


_NAME = {"clone": "name", "instances": "name", "create-instance": "instance_name"}
