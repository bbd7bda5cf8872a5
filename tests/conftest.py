"""Fixtures: a served control plane of the tests' own, on real engines, cleaned up to the last file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service, accessible_cache, ports_of_worker, remove_opened


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-versions",
        action="store_true",
        help="run what depends on the engine on every PostgreSQL version, not the ends only",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`engine`: the oldest and the newest version, or all of them."""
    if "engine" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all-versions")
        majors = (14, 15, 16, 17, 18) if every else (14, 18)
        metafunc.parametrize("engine", [f"PostgreSQL-{major}" for major in majors])


def pytest_sessionfinish() -> None:
    remove_opened()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The long ones first: the other workers then have something to take over meanwhile.
    items.sort(key=lambda item: "/faults/" not in item.nodeid)
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs uid 0"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundles' cache, where an unprivileged account reaches it."""
    return accessible_cache(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def service(cache: Path, worker_id: str) -> Iterator[Service]:
    """One rootless control plane for all tests of a worker that do no harm to it."""
    with Service(cache, ports_of_worker(worker_id, 0)) as running:
        running.start()
        yield running


@pytest.fixture
def fresh_service(cache: Path, worker_id: str) -> Iterator[Service]:
    """A rootless control plane for one test, which may kill what it likes."""
    with Service(cache, ports_of_worker(worker_id, 1)) as running:
        yield running


@pytest.fixture
def root_service(cache: Path, worker_id: str) -> Iterator[Service]:
    """The same started as root, which drops privileges itself."""
    with Service(cache, ports_of_worker(worker_id, 1), as_root=True) as running:
        yield running


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A directory whose path leaves room for Unix sockets."""
    path = Path(f"/tmp/ordb-{os.getpid()}-{os.urandom(3).hex()}")
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
