"""The target of all attacks: an instance of each version, shared by the tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.service import Service, gone, wait_until
from tests.support.target import Target


@pytest.fixture(scope="session")
def targets(service: Service) -> Iterator[dict[str, Target]]:
    made: dict[str, Target] = {}
    yield made
    sdk = service.sdk()
    for target in made.values():
        sdk.delete_instance(instance_id=target.instance.id)
    for target in made.values():
        wait_until(lambda target=target: gone(sdk, target.instance.id))


@pytest.fixture
def target(service: Service, targets: dict[str, Target], postgresql: str) -> Target:
    if postgresql not in targets:
        targets[postgresql] = Target(
            service, service.create(postgresql, name=f"hostile-{postgresql}")
        )
        targets[postgresql].prepare()
    return targets[postgresql]
