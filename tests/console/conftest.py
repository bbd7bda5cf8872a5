"""Somebody who has signed in, and an instance to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scaleway.rdb.v1 import Instance

from tests.support.console import Browser
from tests.support.service import Service, gone, installed, wait_until


@pytest.fixture(scope="session")
def shown(service: Service) -> Iterator[Instance]:
    """An instance that the tests of the console look at, and change in part."""
    instance = service.create(name="shown", volume_type="sbs_5k")
    yield instance
    api = service.sdk()
    api.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(api, instance.id))


@pytest.fixture
def browser(service: Service) -> Browser:
    signed_in = Browser(service)
    signed_in.sign_in()
    return signed_in


@pytest.fixture(scope="session")
def shown_mysql(service: Service, cache: Path) -> Iterator[Instance]:
    """The same of MySQL."""
    instance = service.create(installed(cache, "MySQL-9"), name="shown-mysql")
    yield instance
    api = service.sdk()
    api.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(api, instance.id))
