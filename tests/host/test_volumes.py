"""Volumes: whole or not there, whoever is killed when; on ext4 and btrfs."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import pytest

from openrdb.errors import HostError
from openrdb.host.volumes import DirectoryPool, Volume, directory
from openrdb.system import accounts, files
from tests.support.mounts import btrfs

CONTENT = {"one": b"1" * 5000, "sub/two": b"2", "sub/deep/three": b""}
TEMPLATE, SPARE = (
    Volume("default", "templates/x/template"),
    Volume("default", "templates/x/spare-1"),
)
DATA = Volume("default", "instances/i/nodes/n/data")
UID = 54321 if os.geteuid() == 0 else None


def on_disk(place: Path) -> Path:
    return place


@pytest.fixture(params=[on_disk, btrfs])
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A data directory, on the disk's own file system and on a btrfs."""
    if request.param is btrfs and os.geteuid() != 0:
        pytest.skip("needs uid 0")
    place = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
    place.mkdir(mode=0o755)
    try:
        yield data_directory(request.param(place) / "data")
    finally:
        if os.path.ismount(place / "m"):
            subprocess.run(["umount", "--lazy", str(place / "m")], check=True)
        shutil.rmtree(place)


def data_directory(path: Path) -> Path:
    (path / DATA.key).parent.mkdir(parents=True)
    (path / TEMPLATE.key).parent.mkdir(parents=True)
    return path


def make(data: Path) -> None:
    for name, content in CONTENT.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)


def renew(data: Path) -> None:
    (data / "one").write_bytes(b"renewed")


def content(path: Path) -> dict[str, bytes]:
    found = [one for one in path.rglob("*") if one.is_file()]
    return {str(one.relative_to(path)): one.read_bytes() for one in found}


RENEWED = CONTENT | {"one": b"renewed"}


def owners(path: Path) -> set[int]:
    return {one.lstat().st_uid for one in (path, *path.rglob("*"))}


def is_tidy(root: Path) -> bool:
    """Whether there are nothing but volumes."""
    return not [*(root / "making").iterdir(), *(root / "removed").iterdir()]


@pytest.mark.parametrize("key", ["", ".", "/etc", "a/../b", ".."])
def test_no_key_leads_elsewhere(key: str) -> None:
    with pytest.raises(ValueError, match="no volume's key"):
        Volume("default", key)


def test_another_pools_volume_is_none_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of pool other"):
        DirectoryPool(tmp_path).delete(Volume("other", "data"))


def test_made_copied_taken_and_deleted(root: Path) -> None:
    pool = DirectoryPool(root)
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
    pool = DirectoryPool(root)

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
    pool = DirectoryPool(root)

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


def test_nothing_that_is_there_is_replaced(root: Path) -> None:
    pool = DirectoryPool(root)
    pool.create(TEMPLATE, make)
    pool.clone(TEMPLATE, DATA, None, renew)
    with pytest.raises(OSError, match="not empty"):
        pool.clone(TEMPLATE, DATA, None)
    with pytest.raises(OSError, match="not empty"):
        pool.create(DATA, make)
    assert content(pool.path(DATA)) == RENEWED
    assert is_tidy(root)


def test_a_spare_goes_to_one_taker(root: Path) -> None:
    pool = DirectoryPool(root)
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
    pool = DirectoryPool(root)
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
    pool = DirectoryPool(root)
    pool.create(SPARE, make)
    os.mkfifo(pool.path(SPARE) / "sub/fifo")
    with pytest.raises(OSError, match="regular file") as refused:
        pool.clone(SPARE, DATA, None)
    assert refused.value.errno == errno.EINVAL
    assert not pool.exists(DATA)
    assert is_tidy(root)


def test_what_a_kill_left_goes_and_nothing_else(root: Path) -> None:
    pool = DirectoryPool(root)
    pool.create(DATA, make)
    (root / "instances/i/making").mkdir()
    for place in ("making", "removed"):
        make(root / place / "left/data")
        (root / place / "left/link").symlink_to(root / "instances")
    make(root / "instances/i/removed")
    pool = DirectoryPool(root)
    assert not list((root / "making").iterdir())
    pool.remove_deleted()
    assert is_tidy(root)
    assert content(pool.path(DATA)) == CONTENT
    assert (root / "instances/i/making").exists()
    assert content(root / "instances/i/removed") == CONTENT


def test_a_name_is_durable_up_to_the_pools_root(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = DirectoryPool(root)
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
    pool = DirectoryPool(root)

    def make_large(data: Path) -> None:
        make(data)
        with (data / "large").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2**24)
        with (data / "hole").open("wb") as file:
            file.truncate(2**30)

    pool.create(DATA, make_large)
    assert 2**24 <= pool.usage(DATA) < 2**24 + 2**17
    assert pool.free() == pytest.approx(shutil.disk_usage(root).free, rel=0.2)
    assert pool.has_room()
    assert not pool.has_room(pool.free())


def test_a_copy_shares_its_bytes_where_the_file_system_can(root: Path) -> None:
    if root.parent.name != "s":
        pytest.skip("ext4 copies them")
    pool = DirectoryPool(root)

    def make_large(data: Path) -> None:
        data.mkdir()
        (data / "dense").write_bytes(os.urandom(2**26 + 123))
        with (data / "sparse").open("wb") as file:
            file.write(os.urandom(2**26))
            file.truncate(2**27)

    pool.create(TEMPLATE, make_large)
    os.sync()
    before = pool.free()
    pool.clone(TEMPLATE, DATA, UID)
    os.sync()
    # What was a hole is reserved in the copy.
    assert before - pool.free() < 2**26 + 2**22
    for name in ("dense", "sparse"):
        assert (pool.path(DATA) / name).read_bytes() == (pool.path(TEMPLATE) / name).read_bytes()


# -- kill -9 ---------------------------------------------------------------------------------------

CODE = {module.__file__ for module in (directory, files, accounts, shutil)}


def killed_at_each_line(place: Path, do: Callable[[Path], None]) -> Iterator[Path]:
    """Let a process die at one line after the other of what makes and removes volumes.

    Yields:
        The data directory that it leaves, each time another.
    """
    for line in count(1):
        root = data_directory(place / str(line))
        for volume in (TEMPLATE, SPARE):
            make(root / volume.key)
        child = os.fork()
        if child == 0:
            die_at(line)
            do(root)
            os._exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (7, -signal.SIGKILL)
        yield root
        if code == 7:
            assert line > 5, "nothing was looked at"
            return


def die_at(line: int) -> None:
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in CODE:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def after_a_restart(root: Path) -> DirectoryPool:
    pool = DirectoryPool(root)
    pool.remove_deleted()
    assert is_tidy(root)
    assert content(pool.path(TEMPLATE)) == CONTENT
    return pool


def found(root: Path, volume: Volume) -> dict[str, bytes] | None:
    path = root / volume.key
    return content(path) if path.exists() else None


def test_killed_while_it_is_made(tmp_path: Path) -> None:
    seen = []
    for root in killed_at_each_line(tmp_path, lambda root: DirectoryPool(root).create(DATA, make)):
        seen.append(found(root, DATA))
        assert seen[-1] in (None, CONTENT)
        assert found(root, DATA) is None or owners(root / DATA.key) == {os.geteuid()}
        pool = after_a_restart(root)
        if not pool.exists(DATA):
            pool.create(DATA, make)
    assert None in seen
    assert CONTENT in seen


@pytest.mark.parametrize("way", ["clone", "take"])
def test_killed_while_it_is_taken(tmp_path: Path, way: str) -> None:
    def do(root: Path) -> None:
        pool = DirectoryPool(root)
        getattr(pool, way)(SPARE, DATA, UID, renew)
        pool.settle(DATA)

    seen = []
    for root in killed_at_each_line(tmp_path, do):
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


def test_killed_while_it_is_deleted(tmp_path: Path) -> None:
    def do(root: Path) -> None:
        pool = DirectoryPool(root)
        pool.delete(SPARE)
        pool.remove_deleted()

    seen = []
    for root in killed_at_each_line(tmp_path, do):
        seen.append(found(root, SPARE))
        assert seen[-1] in (None, CONTENT)
        after_a_restart(root)
        assert found(root, SPARE) == seen[-1]
    assert seen[0] == CONTENT
    assert seen[-1] is None


def test_killed_while_what_was_left_is_removed(tmp_path: Path) -> None:
    def do(root: Path) -> None:
        make(root / "making/left/data")
        after_a_restart(root)

    for root in killed_at_each_line(tmp_path, do):
        after_a_restart(root)
        assert found(root, SPARE) == CONTENT
