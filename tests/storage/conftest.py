"""The stores that are tried: one of each kind, empty."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from openrdb.spec import StoreSpec
from openrdb.storage import open_store
from openrdb.storage.base import Store


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.slow)])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSpec:
    if request.param == "directory":
        return StoreSpec("directory", str(tmp_path / "objects" / "fr-par"))
    made: StoreSpec = request.getfixturevalue("seaweedfs").spec("tests", uuid4().hex)
    return made


@pytest.fixture
def store(spec: StoreSpec) -> Store:
    return open_store(spec)
