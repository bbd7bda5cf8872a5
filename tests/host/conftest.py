"""File systems that volumes are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounts import FileSystems
from tests.support.volumes import data_directory


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
