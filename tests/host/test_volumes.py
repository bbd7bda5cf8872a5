"""Volumes, on each file system that has a driver of its own or does more than others."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from uuid import UUID

import pytest

from openrdb.errors import HostError
from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes import DirectoryPool, Volume, open_pool
from openrdb.system import files
from tests.support.volumes import (
    CONTENT,
    DATA,
    RENEWED,
    SPARE,
    TEMPLATE,
    UID,
    content,
    is_tidy,
    make,
    owners,
    renew,
)


@pytest.mark.parametrize("key", ["", ".", "/etc", "a/../b", ".."])
def test_no_key_leads_elsewhere(key: str) -> None:
    with pytest.raises(ValueError, match="no volume's key"):
        Volume("default", key)


def test_another_pools_volume_is_none_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of pool other"):
        DirectoryPool(tmp_path).delete(Volume("other", "data"))


def test_made_copied_taken_and_deleted(root: Path) -> None:
    pool = open_pool(root)
    pool.create(TEMPLATE, make)
    pool.clone(TEMPLATE, SPARE, None)
    assert pool.exists(SPARE)
    inode = pool.path(SPARE).stat().st_ino
    assert pool.take(SPARE, DATA, UID, renew)
    pool.settle(DATA)
    assert not pool.exists(SPARE)
    assert pool.path(DATA).stat().st_ino == inode, "it was copied"
    assert content(pool.path(DATA)) == RENEWED
    assert owners(pool.path(DATA)) == {os.geteuid() if UID is None else UID}
    assert not pool.take(SPARE, DATA, UID, renew), "there is none"
    pool.delete(DATA)
    assert not pool.exists(DATA)
    pool.clone(TEMPLATE, DATA, UID, renew)
    assert content(pool.path(DATA)) == RENEWED
    assert owners(pool.path(DATA)) == {os.geteuid() if UID is None else UID}
    assert content(pool.path(TEMPLATE)) == CONTENT
    pool.delete_below(root / "instances/i")
    assert not (root / "instances/i").exists()
    pool.delete(DATA)
    pool.remove_deleted()
    assert is_tidy(root)
    assert content(pool.path(TEMPLATE)) == CONTENT


def test_nobody_else_can_enter_what_is_made(root: Path) -> None:
    pool = open_pool(root)

    def make_openly(data: Path) -> None:
        make(data)
        for path in (data, *data.rglob("*")):
            path.chmod(0o777)
            if UID is not None:
                os.chown(path, UID, UID)

    pool.create(TEMPLATE, make_openly)
    path = pool.path(TEMPLATE)
    assert {one.stat().st_mode & 0o077 for one in (path, *path.rglob("*"))} == {0}
    assert owners(path) == {os.geteuid()}


def test_what_fails_leaves_nothing(root: Path) -> None:
    pool = open_pool(root)

    def fail(data: Path) -> None:
        renew(data)
        raise HostError("no identity")

    def make_link(data: Path) -> None:
        make(data)
        (data / "link").symlink_to("/etc/passwd")

    def make_half(data: Path) -> None:
        make(data)
        raise HostError("no programs")

    for making, why in ((make_link, "no plain file"), (make_half, "no programs")):
        with pytest.raises(HostError, match=why):
            pool.create(TEMPLATE, making)
        assert not pool.exists(TEMPLATE)
    pool.create(TEMPLATE, make)
    with pytest.raises(HostError, match="no identity"):
        pool.clone(TEMPLATE, DATA, UID, fail)
    with pytest.raises(FileNotFoundError):
        pool.clone(SPARE, DATA, UID)
    pool.clone(TEMPLATE, SPARE, None)
    with pytest.raises(HostError, match="no identity"):
        pool.take(SPARE, DATA, UID, fail)
    assert not pool.exists(DATA)
    assert not pool.exists(SPARE), "half given, it is nobody's"
    assert content(pool.path(TEMPLATE)) == CONTENT
    assert is_tidy(root)


def test_nobody_goes_on_writing_where_a_volume_was_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server does whose copy was broken off: what it wrote was left until the next start."""
    pool, late = open_pool(root), list[Path]()

    def make_half(data: Path) -> None:
        make(data)
        late.append(data)
        raise HostError("broken off")

    def remove(place: Path, **_: object) -> None:
        """Remove what was there; something comes at the same time."""
        (place / "late").mkdir()

    with monkeypatch.context() as patch, pytest.raises(HostError, match="broken off"):
        patch.setattr(shutil, "rmtree", remove)
        pool.create(TEMPLATE, make_half)
    with pytest.raises(FileNotFoundError):
        (late[0].parent / "later").mkdir()
    pool.remove_deleted()
    assert is_tidy(root)


def test_what_is_written_late_is_removed(root: Path) -> None:
    """A server that runs as we do makes the place itself again; not what is being made is removed."""
    pool, late = open_pool(root), list[Path]()

    def make_half(data: Path) -> None:
        make(data)
        late.append(data)
        pool.remove_deleted()
        assert data.exists()
        raise HostError("broken off")

    with pytest.raises(HostError, match="broken off"):
        pool.create(TEMPLATE, make_half)
    late[0].mkdir(parents=True)
    pool.remove_deleted()
    assert is_tidy(root)


def test_what_cannot_be_renamed_stays(root: Path) -> None:
    pool = open_pool(root)

    def fail(data: Path) -> None:
        renew(data)
        raise HostError("no identity")

    assert not pool.rename(SPARE, DATA, UID, renew), "there is none"
    pool.create(SPARE, make)
    inode = pool.path(SPARE).stat().st_ino
    with pytest.raises(HostError, match="no identity"):
        pool.rename(SPARE, DATA, UID, fail)
    assert pool.exists(SPARE)
    assert not pool.exists(DATA)
    assert pool.rename(SPARE, DATA, UID, renew)
    assert not pool.exists(SPARE)
    assert pool.path(DATA).stat().st_ino == inode, "it was copied"
    assert content(pool.path(DATA)) == RENEWED
    assert owners(pool.path(DATA)) == {os.geteuid() if UID is None else UID}
    assert is_tidy(root)


def test_nothing_that_is_there_is_replaced(root: Path) -> None:
    pool = open_pool(root)
    pool.create(TEMPLATE, make)
    pool.clone(TEMPLATE, DATA, None, renew)
    with pytest.raises(OSError, match=r"not empty|exists"):
        pool.clone(TEMPLATE, DATA, None)
    with pytest.raises(OSError, match=r"not empty|exists"):
        pool.create(DATA, make)
    assert content(pool.path(DATA)) == RENEWED
    assert is_tidy(root)


def test_a_spare_goes_to_one_taker(root: Path) -> None:
    pool = open_pool(root)
    pool.create(SPARE, make)
    targets = [Volume("default", f"instances/i/nodes/n/data{number}") for number in range(8)]
    start, got = threading.Barrier(len(targets)), []

    def take(target: Volume) -> None:
        start.wait()
        if pool.take(SPARE, target, None):
            got.append(target)

    threads = [threading.Thread(target=take, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert [one for one in targets if pool.exists(one)] == got


def test_no_link_is_followed_out_of_a_volume(root: Path) -> None:
    pool = open_pool(root)
    outside = root / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"x" * 2**20)
    pool.create(SPARE, make)
    (pool.path(SPARE) / "sub/file").symlink_to(outside / "file")
    (pool.path(SPARE) / "sub/directory").symlink_to(outside)
    assert pool.usage(SPARE) < 2**20
    pool.clone(SPARE, TEMPLATE, UID)
    assert (pool.path(TEMPLATE) / "sub/directory").readlink() == outside
    pool.take(SPARE, DATA, UID)
    assert owners(outside) == {os.geteuid()}
    pool.delete(DATA)
    pool.delete(TEMPLATE)
    pool.path(TEMPLATE).symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        pool.clone(TEMPLATE, DATA, None)
    pool.delete(TEMPLATE)
    pool.remove_deleted()
    assert is_tidy(root)
    assert content(outside) == {"file": b"x" * 2**20}


def test_a_copy_waits_for_nobody(root: Path) -> None:
    """An account may put a FIFO into its volume: nobody will ever write to it."""
    pool = open_pool(root)
    pool.create(SPARE, make)
    os.mkfifo(pool.path(SPARE) / "sub/fifo")
    if pool.is_atomic(SPARE):
        pool.clone(SPARE, DATA, None)  # nothing was opened
    else:
        with pytest.raises(OSError, match="regular file") as refused:
            pool.clone(SPARE, DATA, None)
        assert refused.value.errno == errno.EINVAL
        assert not pool.exists(DATA)
    assert is_tidy(root)


def test_what_a_kill_left_goes_and_nothing_else(root: Path) -> None:
    pool = open_pool(root)
    pool.create(DATA, make)
    (root / "instances/i/making").mkdir()
    for place in ("making", "removed"):
        make(root / place / "left/data")
        (root / place / "left/link").symlink_to(root / "instances")
    make(root / "instances/i/removed")
    pool = open_pool(root)
    assert not list((root / "making").iterdir())
    pool.remove_deleted()
    assert is_tidy(root)
    assert content(pool.path(DATA)) == CONTENT
    assert (root / "instances/i/making").exists()
    assert content(root / "instances/i/removed") == CONTENT


def test_a_name_is_durable_up_to_the_pools_root(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = open_pool(root)
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    pool.create(TEMPLATE, make)
    pool.clone(TEMPLATE, SPARE, None)
    pool.take(SPARE, DATA, None)
    assert synced == [], "a spare that is lost is made again"
    pool.settle(DATA)
    parents = ("instances/i/nodes/n", "instances/i/nodes", "instances/i", "instances")
    assert synced == [root / one for one in parents]
    pool.delete(DATA)
    assert synced[4:] == [root / "instances/i/nodes/n"]
    synced.clear()
    owner = UUID(int=1)
    pool.put_aside(root / "instances/i", owner)
    assert synced == [root / "trash", root / "instances"]
    pool.put_back(owner, root / "instances/i")
    assert synced[2:] == [root / "trash", root / "instances", root / "trash"]


def test_room(root: Path) -> None:
    pool = open_pool(root)

    def make_large(data: Path) -> None:
        make(data)
        with (data / "large").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2**24)
        with (data / "hole").open("wb") as file:
            file.truncate(2**25)

    pool.create(DATA, make_large)
    assert 2**24 <= pool.usage(DATA) < 2**24 + 2**17
    assert pool.free() == pytest.approx(shutil.disk_usage(root).free, rel=0.2)
    assert pool.has_room() == (pool.free() >= LEAST_FREE)
    assert not pool.has_room(pool.free())
