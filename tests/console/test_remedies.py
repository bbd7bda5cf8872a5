"""What is said to the users of an instance that is not as it should be."""

from __future__ import annotations

import pytest

from openrdb.console import remedies
from openrdb.console.frame import TABS


@pytest.mark.parametrize(
    ("status", "is_unmade", "said"),
    [
        ("error", True, "Delete it and create it again"),
        ("error", False, "A restart tries to repair it"),
        ("disk_full", False, "Enlarge the volume"),
        ("autohealing", False, "there is nothing to do"),
    ],
)
def test_each_trouble_has_its_remedy(status: str, is_unmade: bool, said: str) -> None:
    found = remedies.of({"status": status, "read_replicas": []}, is_unmade=is_unmade)
    assert found is not None
    assert said in found.text
    tab = found.place.partition("#")[0].removeprefix("/")
    assert tab in TABS


def test_a_read_replica_in_error_has_one_too() -> None:
    failed = {"status": "ready", "read_replicas": [{"status": "error"}]}
    found = remedies.of(failed, is_unmade=False)
    assert found is not None
    assert "copied again" in found.text
    moving = {"status": "ready", "read_replicas": [{"status": "initializing"}]}
    assert remedies.of(moving, is_unmade=False) is None
