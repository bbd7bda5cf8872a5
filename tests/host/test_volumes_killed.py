"""Volumes are whole or not there, whoever is killed when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrdb.host.volumes import Volume, open_pool
from tests.support.mounts import FileSystems
from tests.support.volumes import (
    CONTENT,
    DATA,
    RENEWED,
    SPARE,
    TEMPLATE,
    UID,
    after_a_restart,
    found,
    killed_at_each_line,
    make,
    owners,
    renew,
)


@pytest.fixture(params=["ext4", "btrfs"])
def place(request: pytest.FixtureRequest, file_systems: FileSystems) -> Iterator[Path]:
    """A directory, with one driver and with the other."""
    directory = file_systems.directory(request.param)
    yield directory
    file_systems.remove(directory)


def test_killed_while_it_is_made(place: Path) -> None:
    seen = []
    for root in killed_at_each_line(place, lambda root: open_pool(root).create(DATA, make)):
        seen.append(found(root, DATA))
        assert seen[-1] in (None, CONTENT)
        assert found(root, DATA) is None or owners(root / DATA.key) == {os.geteuid()}
        pool = after_a_restart(root)
        if not pool.exists(DATA):
            pool.create(DATA, make)
    assert None in seen
    assert CONTENT in seen


@pytest.mark.parametrize("way", ["clone", "take"])
def test_killed_while_it_is_taken(place: Path, way: str) -> None:
    def do(root: Path) -> None:
        pool = open_pool(root)
        getattr(pool, way)(SPARE, DATA, UID, renew)
        pool.settle(DATA)

    seen = []
    for root in killed_at_each_line(place, do):
        spare, data = found(root, SPARE), found(root, DATA)
        seen.append((spare is not None, data is not None))
        assert spare in (None, CONTENT)
        assert spare is None or owners(root / SPARE.key) == {os.geteuid()}
        assert data in (None, RENEWED)
        assert data is None or owners(root / DATA.key) == {os.geteuid() if UID is None else UID}
        pool = after_a_restart(root)
        assert found(root, SPARE) == spare
        if not pool.exists(DATA):
            pool.clone(TEMPLATE, DATA, UID, renew)
        assert found(root, DATA) == RENEWED
    both = [(True, False), (True, True)]
    assert sorted(set(seen)) == (
        both if way == "clone" else [(False, False), (False, True), (True, False)]
    )


def test_killed_while_it_is_renamed(place: Path) -> None:
    """It is the only copy of its data: always there, and whole when this has been repeated."""

    def do(root: Path) -> None:
        pool = open_pool(root)
        pool.rename(SPARE, DATA, UID, renew)
        pool.settle(DATA)

    seen = []
    for root in killed_at_each_line(place, do):
        spare, data = found(root, SPARE), found(root, DATA)
        seen.append((spare is not None, data is not None))
        assert spare in (None, CONTENT, RENEWED)
        pool = after_a_restart(root)
        assert pool.exists(DATA) or pool.rename(SPARE, DATA, UID, renew)
        assert found(root, DATA) == RENEWED
        assert owners(root / DATA.key) == {os.geteuid() if UID is None else UID}
    assert set(seen) == {(True, False), (False, True)}


def test_killed_while_it_is_deleted(place: Path) -> None:
    def do(root: Path) -> None:
        pool = open_pool(root)
        pool.delete(SPARE)
        pool.remove_deleted()

    seen = []
    for root in killed_at_each_line(place, do):
        seen.append(found(root, SPARE))
        assert seen[-1] in (None, CONTENT)
        after_a_restart(root)
        assert found(root, SPARE) == seen[-1]
    assert seen[0] == CONTENT
    assert seen[-1] is None


def test_killed_while_what_was_left_is_removed(place: Path) -> None:
    def do(root: Path) -> None:
        make(root / "making/left/data")
        after_a_restart(root)

    for root in killed_at_each_line(place, do):
        after_a_restart(root)
        assert found(root, SPARE) == CONTENT


def test_killed_while_a_snapshot_is_made_and_removed(place: Path) -> None:
    snapshot = Volume("default", "snapshots/s")

    def do(root: Path) -> None:
        pool = open_pool(root)
        pool.snapshot(SPARE, snapshot)
        pool.settle(snapshot)
        pool.delete(snapshot)
        pool.remove_deleted()

    seen = []
    for root in killed_at_each_line(place, do):
        seen.append(found(root, snapshot))
        assert seen[-1] in (None, CONTENT)
        assert found(root, SPARE) == CONTENT
        after_a_restart(root)
        assert found(root, snapshot) == seen[-1]
    assert CONTENT in seen
    assert seen[-1] is None
