"""Whatever the OpenAPI document lets one send, right or wrong: the answers are those it promises.

Most of what is generated is refused, so instances are named in half of the paths and asked for with
a real engine in half of the creations; what comes to be is deleted at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import negative_data_rejection, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from openrdb.api.app import create_app
from openrdb.api.common import Backend
from openrdb.config import Settings
from tests.api.test_wire import remove, settled
from tests.support.service import Service

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 15
CREATIONS = 4
"""So many instances may come to be, not more: each is a real server."""

# The tests are made, one an operation, before a service runs; that it serves this very document is
# a test of its own.
DOCUMENT = create_app(cast(Backend, SimpleNamespace(database=None, settings=Settings()))).openapi()
schema = schemathesis.openapi.from_dict(DOCUMENT)


class Instances:
    """What the generated requests meet and make."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.made: list[tuple[str, str]] = []
        self.turn = 0
        self._kept: str | None = None

    def create(self) -> str:
        sent = {"engine": "PostgreSQL-17", "node_type": "db-dev-s", "name": "schemathesis"}
        answer = self.service.request("POST", "/instances", json=sent).json()
        self.made.append(("fr-par", answer["id"]))
        settled(self.service, answer["id"])
        identifier: str = answer["id"]
        return identifier

    def kept(self) -> str:
        """The one that the generated requests are aimed at."""
        if self._kept is None:
            self._kept = self.create()
        return self._kept

    def aim(self, case: Case) -> None:
        """Let every other request that is well formed be about something that there is."""
        if not _is_positive(case):
            return
        self.turn += 1
        if self.turn % 2:
            return
        if "instance_id" in case.path_parameters and case.method != "DELETE":
            case.path_parameters |= {"region": "fr-par", "instance_id": self.kept()}
        if case.method == "POST" and isinstance(case.body, dict) and len(self.made) < CREATIONS:
            case.body |= {"engine": "PostgreSQL-17", "node_type": "DB-DEV-S", "user_name": ""}
            for unlikely in ("project_id", "organization_id", "volume_size", "init_settings"):
                case.body.pop(unlikely, None)

    def note(self, case: Case, answer: schemathesis.Response) -> None:
        if case.method == "POST" and case.path.endswith("/instances") and answer.status_code == 200:
            made = answer.json()
            self.made.append((made["region"], made["id"]))


def _is_positive(case: Case) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


@pytest.fixture(scope="module")
def there(service: Service) -> Iterator[Instances]:
    instances = Instances(service)
    yield instances
    for region, identifier in instances.made:
        remove(service, identifier, region=region)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_operation(case: Case, there: Instances) -> None:
    there.aim(case)
    headers = {"X-Auth-Token": there.service.secret_key}
    answer = case.call(base_url=there.service.url, headers=headers, timeout=60)
    there.note(case, answer)
    # Of a body, strict: a wrong one is refused. In a query everything is text to begin with.
    checks = CHECKS + ([negative_data_rejection] if _body_is_wrong(case) else [])
    case.validate_response(answer, checks=checks)


def _body_is_wrong(case: Case) -> bool:
    components = case.meta.components if case.meta is not None else {}
    return any(str(place) == "body" and info.mode.is_negative for place, info in components.items())


def test_the_document_is_what_is_served(service: Service) -> None:
    served: dict[str, Any] = requests.get(f"{service.url}/openapi.json", timeout=10).json()
    assert served == DOCUMENT


def test_deleting(there: Instances) -> None:
    """The one operation that the generated requests are kept from aiming."""
    identifier = there.create()
    operation = schema["/rdb/v1/regions/{region}/instances/{instance_id}"]["DELETE"]
    case = operation.Case(path_parameters={"region": "fr-par", "instance_id": identifier})
    headers = {"X-Auth-Token": there.service.secret_key}
    for _ in range(2):  # accepted, then in deletion or gone
        answer = case.call(base_url=there.service.url, headers=headers, timeout=60)
        case.validate_response(answer, checks=CHECKS)
