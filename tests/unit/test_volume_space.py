"""When users may write, by how much of a volume is used."""

from __future__ import annotations

import pytest

from openrdb.host.space_watch import Look, _Watched
from openrdb.host.volume_space import VolumeSpace

MIB, GB = 2**20, 10**9
SMALL, LARGE = VolumeSpace(5 * GB, 2**30), VolumeSpace(1000 * GB, 2**30)


@pytest.mark.parametrize(
    ("space", "free", "before", "then"),
    [
        (SMALL, 101 * 10**6, "open", "open"),
        (SMALL, 99 * 10**6, "open", "read_only"),
        (SMALL, 101 * 10**6, "read_only", "read_only"),
        (SMALL, 151 * 10**6, "read_only", "open"),
        (LARGE, 2001 * 10**6, "open", "open"),  # not 2 %, which would be 20 GB
        (LARGE, 1999 * 10**6, "open", "read_only"),
        (SMALL, -511 * MIB, "read_only", "read_only"),
        (SMALL, -512 * MIB, "read_only", "closed"),
        (SMALL, -512 * MIB, "open", "closed"),
        (SMALL, -400 * MIB, "closed", "closed"),
        (SMALL, -300 * MIB, "closed", "read_only"),
        (SMALL, GB, "closed", "open"),
    ],
)
def test_marks(space: VolumeSpace, free: int, before: str, then: str) -> None:
    assert space.writes(space.size - free, before) == then  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("look", "grown", "freed", "waited", "due"),
    [
        (None, 0, 0, 1, False),
        (None, 5 * MIB, 0, 1, True),
        (None, 0, 0, 6, True),
        (Look(1000 * MIB, True, True), 400 * MIB, 0, 9, False),
        (Look(1000 * MIB, True, True), 500 * MIB, 0, 0.5, True),
        (Look(1000 * MIB, True, True), 500 * MIB, 0, 0.1, False),  # it takes too long
        (Look(1000 * MIB, True, True), 0, 500 * MIB, 11, True),  # which may hide as much
        (Look(0, True, True), MIB, 0, 0.9, False),
        (Look(0, True, True), MIB, 0, 1.1, True),
        (Look(10**6 * MIB, True, True), 0, 0, 299, False),
        (Look(10**6 * MIB, True, True), 0, 0, 301, True),
        (Look(100 * MIB, False, True), 0, 5 * MIB, 1, True),
        (Look(100 * MIB, True, True), 0, 5 * MIB, 1, False),
        (Look(100 * MIB, False, False), 0, 0, 1.1, True),
    ],
)
def test_when_to_look(look: Look | None, grown: int, freed: int, waited: float, due: bool) -> None:
    watched = _Watched(look, at=100.0, took=0.04, grown=grown, freed=freed, changing=waited)
    assert watched.is_due(100.0 + waited) == due


@pytest.mark.parametrize(
    ("look", "waited", "changing", "due"),
    [
        (Look(1000 * MIB, True, True), 299, 0, False),
        (Look(1000 * MIB, True, True), 299, 10, False),
        (Look(1000 * MIB, True, True), 299, 11, True),
        (Look(1000 * MIB, True, True), 301, 0, True),
        (Look(100 * MIB, False, True), 6, 0, True),
        (None, 6, 0, True),
    ],
)
def test_an_idle_pool_costs_no_looks(
    look: Look | None, waited: float, changing: float, due: bool
) -> None:
    """Nothing was written while free space stays the same to the byte."""
    watched = _Watched(look, at=100.0, took=0.04, changing=changing)
    assert watched.is_due(100.0 + waited) == due
