"""One instance an engine version for all applications; a database and a user for each test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scaleway.rdb.v1 import Instance

from tests.support.applications.tenancy import APP_PASSWORD, Tenancy
from tests.support.service import Service, installed


@pytest.fixture(scope="session")
def instances(cache: Path, service: Service) -> Callable[[str], Instance]:
    """Return the instance of a version, made when the first application asks for it."""
    made: dict[str, Instance] = {}

    def instance(version: str) -> Instance:
        if version not in made:
            made[version] = service.create(installed(cache, version), name="applications")
        return made[version]

    return instance


@pytest.fixture
def tenancy(
    service: Service,
    cache: Path,
    instances: Callable[[str], Instance],
    request: pytest.FixtureRequest,
) -> Iterator[Tenancy]:
    """A database and its user, made and removed by the API: also with all that was made there."""
    instance, sdk = instances(request.param), service.sdk()
    name = re.sub(r"^test_|\W.*", "", request.node.name)[:24].rstrip("_")
    where = {"instance_id": instance.id}
    sdk.create_database(**where, name=name)
    sdk.create_user(**where, name=name, password=APP_PASSWORD, is_admin=False)
    sdk.set_privilege(**where, database_name=name, user_name=name, permission="all")
    yield Tenancy(service, instance, cache, name)
    sdk.delete_database(**where, name=name)
    sdk.delete_user(**where, name=name)
