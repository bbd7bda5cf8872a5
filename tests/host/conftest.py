"""File systems that volumes are tried on, and pairs of an agent that have no control plane."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.mounts import FileSystems
from tests.support.pairs import Pair
from tests.support.place import new_place
from tests.support.service import port_of_server
from tests.support.volumes import data_directory
from tests.support.writers import Writers

ENGINES = ["PostgreSQL-18", "MySQL-9"]
FIRST_PORT = 50


@pytest.fixture(scope="session")
def file_systems() -> Iterator[FileSystems]:
    mounted = FileSystems()
    yield mounted
    mounted.close()


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def root(request: pytest.FixtureRequest, file_systems: FileSystems) -> Iterator[Path]:
    """A data directory, on the disk's own file system, an xfs and a btrfs."""
    directory = file_systems.directory(request.param)
    yield data_directory(directory / "data")
    file_systems.remove(directory)


@pytest.fixture(scope="module")
def agent(cache: Path) -> Iterator[Agent]:
    place = new_place()
    place.mkdir(mode=0o755)
    with Agent(place, cache) as opened:
        yield opened
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def made() -> dict[str, Pair]:
    """By engine: the agent keeps both, in whatever order tests ask for them."""
    return {}


@pytest.fixture(params=ENGINES)
def pair(
    request: pytest.FixtureRequest, made: dict[str, Pair], agent: Agent, worker_id: str
) -> Pair:
    engine = request.param
    if engine not in made:
        first = FIRST_PORT + 3 * ENGINES.index(engine)
        ports = [port_of_server(worker_id, first + n) for n in range(3)]
        made[engine] = Pair(agent, engine, ports)
    made[engine].wait_protected()
    return made[engine]


@pytest.fixture
def writers(pair: Pair) -> Iterator[Writers]:
    with Writers(pair.login) as started:
        started.wait_for(20)
        yield started
    assert not started.lost()
