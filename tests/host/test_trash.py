"""The trash of a pool: what is in it is whole, leaves it the oldest first, and comes back as it was."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from openrdb.host.volumes import keep_for_return, open_pool, trashed_since
from tests.support.volumes import (
    CONTENT,
    DATA,
    after_a_restart,
    content,
    killed_at_each_line,
    make,
)

OWNER = UUID("00000000-0000-4000-8000-00000000000a")
PLACE = "instances/i"
FOUND = {f"nodes/n/data/{name}": text for name, text in CONTENT.items()}


def an_instance(root: Path, owner: UUID) -> Path:
    place = root / "instances" / str(owner)
    place.mkdir(parents=True)
    make(place / "data")
    return place


def test_put_aside_and_back(tmp_path: Path) -> None:
    pool = open_pool(tmp_path)
    place = an_instance(tmp_path, OWNER)
    (place / "data/one").chmod(0o640)
    before = time.time()
    pool.put_aside(place, OWNER)
    pool.put_aside(place, OWNER)  # a no-op
    assert not place.exists()
    ((owner, since),) = pool.put_aside_since().items()
    assert owner == OWNER
    assert before - 1 <= since <= time.time()
    assert trashed_since(tmp_path) == {OWNER: since}
    assert (tmp_path / "trash").stat().st_mode & 0o077 == 0
    for _ in range(2):  # as after a crash
        assert pool.put_back(OWNER, place)
    assert content(place / "data") == CONTENT
    assert (place / "data/one").stat().st_mode & 0o777 == 0o640
    assert pool.put_aside_since() == {}
    assert not pool.put_back(uuid4(), tmp_path / "instances/none")


def test_what_is_in_the_trash_is_what_comes_back(tmp_path: Path) -> None:
    """What repetitions after a crash make in its place is nobody's, and replaces nothing."""
    pool = open_pool(tmp_path)
    place = an_instance(tmp_path, OWNER)
    pool.put_aside(place, OWNER)
    (place / "nodes").mkdir(parents=True)
    pool.put_aside(place, OWNER)
    assert not place.exists()
    (place / "routes").mkdir(parents=True)
    assert pool.put_back(OWNER, place)
    assert content(place) == {f"data/{name}": text for name, text in CONTENT.items()}
    pool.remove_deleted()
    assert not [*(tmp_path / "removed").iterdir(), *(tmp_path / "trash").iterdir()]


def test_emptied_by_age(tmp_path: Path) -> None:
    pool = open_pool(tmp_path)
    old, new = uuid4(), uuid4()
    for owner in (old, new):
        pool.put_aside(an_instance(tmp_path, owner), owner)
    (entry,) = (tmp_path / "trash").glob(f"*.{old}")
    entry.rename(tmp_path / "trash" / f"1000.{old}")
    pool.empty(time.time() - 60)
    assert pool.put_aside_since().keys() == {new}
    assert not list((tmp_path / "removed").iterdir())


def test_the_oldest_give_way_when_space_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only as many as have to."""
    pool = open_pool(tmp_path)
    owners = [uuid4() for _ in range(4)]
    for at, owner in enumerate(owners):
        pool.put_aside(an_instance(tmp_path, owner), owner)
        (entry,) = (tmp_path / "trash").glob(f"*.{owner}")
        entry.rename(tmp_path / "trash" / f"{1000 + at}.{owner}")

    def free() -> int:
        """What a disk has on which each of them takes one byte."""
        left = [*(tmp_path / "trash").iterdir(), *(tmp_path / "removed").iterdir()]
        return 10 - len(left)

    monkeypatch.setattr(pool, "free", free)
    assert pool.ensure_free(6)
    assert pool.put_aside_since().keys() == set(owners)
    assert pool.ensure_free(8)
    assert pool.put_aside_since().keys() == set(owners[2:])
    assert not pool.ensure_free(11)
    assert pool.put_aside_since() == {}


def test_what_comes_back_is_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes or fails; if it is given up, it waits for the whole time again."""
    pool = open_pool(tmp_path)
    place = an_instance(tmp_path, OWNER)
    pool.put_aside(place, OWNER)
    keep_for_return(tmp_path, OWNER)  # by another process
    keep_for_return(tmp_path, uuid4())  # a no-op
    assert trashed_since(tmp_path) == {}
    with monkeypatch.context() as patch:
        patch.setattr(pool, "free", lambda: 0)
        assert not pool.ensure_free(1)
    pool.empty(time.time() + 60)
    place.parent.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        pool.put_back(OWNER, place)
    pool.empty(time.time() + 60)
    (tmp_path / "away").rename(place.parent)
    before = time.time()
    pool.stop_return(OWNER)
    pool.stop_return(OWNER)  # a no-op
    assert before - 1 <= trashed_since(tmp_path)[OWNER]
    assert pool.put_back(OWNER, place)
    assert content(place / "data") == CONTENT


def test_emptied_meanwhile_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool has looked before the return began."""
    pool = open_pool(tmp_path)
    place = an_instance(tmp_path, OWNER)
    pool.put_aside(place, OWNER)
    looked = pool.put_aside_since()
    keep_for_return(tmp_path, OWNER)
    monkeypatch.setattr(pool, "put_aside_since", lambda: looked)
    pool.empty(time.time() + 60)
    assert pool.put_back(OWNER, place)
    assert content(place / "data") == CONTENT


@pytest.mark.parametrize("way", ["aside", "back"])
def test_killed_at_any_line_it_is_here_or_there(tmp_path: Path, way: str) -> None:
    def do(root: Path) -> None:
        pool = open_pool(root)
        make(root / DATA.key)
        pool.put_aside(root / PLACE, OWNER)
        if way == "back":
            pool.put_back(OWNER, root / PLACE)

    seen = set()
    for root in killed_at_each_line(tmp_path, do):
        in_trash = any((root / "trash").glob("*"))
        if not (root / DATA.key / "sub/deep/three").exists() and not in_trash:
            continue  # it had not been made
        pool = after_a_restart(root)
        here, there = (root / PLACE).exists(), any((root / "trash").glob(f"*.{OWNER}"))
        assert here != there
        seen.add(here)
        assert pool.put_back(OWNER, root / PLACE)
        assert content(root / PLACE) == FOUND
    assert seen == {True, False}
