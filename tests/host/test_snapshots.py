"""Snapshots, limits and room of pools, on each file system."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from openrdb.host.templates import Templates
from openrdb.host.volumes import (
    BtrfsPool,
    DirectoryPool,
    Pool,
    Volume,
    how_copies_are_made,
    how_fills_are_held,
    open_pool,
)
from openrdb.system import btrfs
from tests.support.mounts import FileSystems
from tests.support.volumes import (
    CONTENT,
    DATA,
    RENEWED,
    SPARE,
    TEMPLATE,
    UID,
    content,
    data_directory,
    is_tidy,
    make,
    owners,
    renew,
)

SNAPSHOT = Volume("default", "snapshots/s")
OURS = os.geteuid()
OWNER = UUID(int=7)


def a_snapshot(pool: Pool) -> Volume:
    pool.create(TEMPLATE, make)
    pool.clone(TEMPLATE, DATA, UID)
    pool.snapshot(DATA, SNAPSHOT)
    pool.settle(SNAPSHOT)
    return SNAPSHOT


def test_the_driver_is_what_the_file_system_can(root: Path, request: pytest.FixtureRequest) -> None:
    pool = open_pool(root)
    kind = request.node.callspec.params["root"]
    assert isinstance(pool, BtrfsPool if kind == "btrfs" else DirectoryPool)
    pool.create(DATA, make)
    assert pool.is_atomic(DATA) == (kind == "btrfs")
    said = {"xfs": "share their bytes", "btrfs": "at work"}
    if kind != "ext4":
        assert pool.reflink
        assert said[kind] in how_copies_are_made(root)
    assert "polled" in how_fills_are_held(root)
    if kind == "btrfs":
        with simple_quotas(root):
            assert "quotas hold" in how_fills_are_held(root)
    assert is_tidy(root)


def test_a_snapshot_outlives_its_source_and_is_cloned(root: Path) -> None:
    pool = open_pool(root)
    a_snapshot(pool)
    renew(pool.path(DATA))
    pool.delete_below(root / "instances/i")
    pool.remove_deleted()
    assert content(pool.path(SNAPSHOT)) == CONTENT
    assert (root / "snapshots").stat().st_mode & 0o077 == 0
    for _ in range(2):
        pool.clone(SNAPSHOT, SPARE, UID, renew)
        assert content(pool.path(SPARE)) == RENEWED
        assert owners(pool.path(SPARE)) == {OURS if UID is None else UID}
        pool.delete(SPARE)
    pool.clone(SNAPSHOT, SPARE, None)
    assert owners(pool.path(SPARE)) == {OURS}
    pool.snapshot(SPARE, Volume("default", "snapshots/of-a-clone"))
    pool.delete(SNAPSHOT)
    assert not pool.exists(SNAPSHOT)
    pool = open_pool(root)
    pool.remove_deleted()
    assert is_tidy(root)
    assert content(pool.path(SPARE)) == content(root / "snapshots/of-a-clone") == CONTENT


def test_the_data_directory_may_be_a_link(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root)
    pool = open_pool(link)
    assert type(pool) is type(open_pool(root))
    plain = Volume("default", "plain")
    pool.create(plain, make)
    pool.snapshot(plain, Volume("default", "copy"))
    assert content(root / "copy") == CONTENT


def test_a_snapshot_on_btrfs_cannot_be_written_to(root: Path) -> None:
    pool = open_pool(root)
    path = pool.path(a_snapshot(pool))
    if not pool.is_atomic(SNAPSHOT):
        return
    with pytest.raises(OSError, match="Read-only") as refused:
        renew(path)
    assert refused.value.errno == errno.EROFS


def test_a_snapshot_is_completed_before_it_has_its_name(root: Path) -> None:
    pool = open_pool(root)
    pool.create(DATA, make)

    def complete(copy: Path) -> None:
        assert not pool.exists(SNAPSHOT)
        renew(copy)

    def fail(_: Path) -> None:
        raise OSError("the engine is gone")

    with pytest.raises(OSError, match="engine is gone"):
        pool.snapshot(DATA, SNAPSHOT, fail)
    assert not pool.exists(SNAPSHOT)
    pool.snapshot(DATA, SNAPSHOT, complete)
    assert content(pool.path(SNAPSHOT)) == RENEWED
    assert content(pool.path(DATA)) == CONTENT
    with pytest.raises(OSError, match=r"not empty|exists"):
        pool.snapshot(DATA, SNAPSHOT)
    assert content(pool.path(SNAPSHOT)) == RENEWED
    assert is_tidy(root)


def test_a_directory_that_changes_meanwhile_is_copied(root: Path) -> None:
    """As a server at work makes, truncates and removes tables, and whole databases."""
    pool = DirectoryPool(root)  # whatever the file system: a btrfs' own pool copies nothing
    pool.create(DATA, make)
    stop, data = threading.Event(), pool.path(DATA)

    def work() -> None:
        while not stop.is_set():
            database = data / "database"
            database.mkdir()
            for number in range(8):
                (database / str(number)).write_bytes(b"x" * 100_000)
            for path in (*database.iterdir(), data / "one"):
                os.truncate(path, 10)
            (data / "one").write_bytes(CONTENT["one"])
            shutil.rmtree(database)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(40):
            copy = Volume("default", f"snapshots/{number}")
            pool.snapshot(DATA, copy)
            assert content(pool.path(copy))["sub/two"] == CONTENT["sub/two"]
    finally:
        stop.set()
        worker.join()
    assert is_tidy(root)


def test_copies_share_their_bytes_where_the_file_system_can(root: Path) -> None:
    pool = open_pool(root)
    if not pool.reflink:
        pytest.skip("this file system copies them")
    large = 24 * 2**20

    def make_large(data: Path) -> None:
        data.mkdir()
        (data / "dense").write_bytes(os.urandom(large + 123))
        with (data / "sparse").open("wb") as file:
            file.write(os.urandom(2**20))
            file.truncate(2**22)

    pool.create(TEMPLATE, make_large)
    os.sync()
    before = pool.free()
    pool.clone(TEMPLATE, DATA, UID)
    pool.snapshot(DATA, SNAPSHOT)
    os.sync()
    # What was a hole may be reserved in the copies.
    assert before - pool.free() < large // 2
    for copy in (DATA, SNAPSHOT):
        assert pool.usage(copy) >= large
        for name in ("dense", "sparse"):
            copied = (pool.path(copy) / name).read_bytes()
            assert copied == (pool.path(TEMPLATE) / name).read_bytes()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_the_trash_gives_no_more_than_is_needed(kind: str, file_systems: FileSystems) -> None:
    """What leaves it must be free at once: else the next one leaves as well, for nothing."""
    directory = file_systems.directory(kind)
    root = data_directory(directory / "data")
    pool = open_pool(root)
    size = 24 * 2**20

    def make_large(data: Path) -> None:
        data.mkdir()
        (data / "file").write_bytes(os.urandom(size))

    first, second, third = (UUID(int=number) for number in (1, 2, 3))
    for since, owner in enumerate((first, second, third)):
        place = root / "instances" / str(owner)
        volume = pool.volume(place / "nodes/n/data")
        pool.path(volume).parent.mkdir(parents=True)
        pool.create(volume, make_large)
        pool.put_aside(place, owner)
        (aside,) = (root / "trash").glob(f"*.{owner}")
        aside.rename(aside.with_name(f"{since}.{owner}"))
    os.sync()
    assert pool.ensure_free(pool.free() + size // 2)
    assert pool.put_aside_since() == {second: 1, third: 2}
    place = root / "instances" / str(third)
    assert pool.put_back(third, place)
    assert pool.is_atomic(pool.volume(place / "nodes/n/data")) == (kind == "btrfs")
    pool.empty(before=time.time())
    assert not list((root / "trash").iterdir())
    assert is_tidy(root)
    file_systems.remove(directory)


# -- btrfs -----------------------------------------------------------------------------------------


@pytest.fixture
def btrfs_root(file_systems: FileSystems) -> Iterator[Path]:
    directory = file_systems.directory("btrfs")
    yield data_directory(directory / "data")
    file_systems.remove(directory)


def test_a_plain_directory_of_an_earlier_version_is_used_as_it_is(btrfs_root: Path) -> None:
    before = DirectoryPool(btrfs_root)
    for volume in (TEMPLATE, SPARE, DATA):
        before.create(volume, make)
    pool = open_pool(btrfs_root)
    assert not pool.is_atomic(DATA)
    pool.snapshot(DATA, SNAPSHOT)
    assert content(pool.path(SNAPSHOT)) == CONTENT
    pool.delete(DATA)
    assert pool.take(SPARE, DATA, UID, renew)
    assert pool.is_atomic(DATA)
    assert content(pool.path(DATA)) == RENEWED
    assert owners(pool.path(DATA)) == {OURS if UID is None else UID}
    pool.clone(TEMPLATE, SPARE, None)
    assert pool.is_atomic(SPARE)
    pool.remove_deleted()
    assert is_tidy(btrfs_root)


def test_templates_of_an_earlier_version_are_made_again(btrfs_root: Path) -> None:
    """The bytes of their files cannot be shared with files that are overwritten in place."""
    DirectoryPool(btrfs_root).create(TEMPLATE, make)
    open_pool(btrfs_root).create(SPARE, make)
    pool = open_pool(btrfs_root)
    Templates(btrfs_root / "templates", pool, 0, "secret").close()
    assert not pool.exists(TEMPLATE)
    assert pool.exists(SPARE)


@pytest.mark.parametrize("no_cow", [True, False])
def test_files_are_overwritten_in_place_if_that_is_chosen(btrfs_root: Path, no_cow: bool) -> None:
    file_system = btrfs.file_system(btrfs_root)
    assert file_system is not None
    pool = BtrfsPool(btrfs_root, file_system, no_cow=no_cow)
    pool.create(TEMPLATE, make)
    pool.clone(TEMPLATE, DATA, UID)
    with (pool.path(DATA) / "new").open("wb") as file:
        flags = bytearray(8)
        fcntl.ioctl(file, 0x80086601, flags)
    assert bool(int.from_bytes(flags, "little") & 0x00800000) == no_cow


@contextmanager
def simple_quotas(directory: Path) -> Iterator[None]:
    """As `btrfs quota enable --simple` turns them on."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, 0xC0109428, bytearray(b"\4" + bytes(15)))
        yield
        fcntl.ioctl(descriptor, 0xC0109428, bytearray(b"\2" + bytes(15)))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        pytest.skip("this kernel has no simple quotas")
    finally:
        os.close(descriptor)


def test_a_limit_holds_and_can_be_raised(btrfs_root: Path) -> None:
    pool = open_pool(btrfs_root)
    pool.create(TEMPLATE, make)
    pool.clone(TEMPLATE, DATA, None)
    pool.limit(DATA, 2**20)  # a no-op
    assert not pool.quota

    def write() -> None:
        with (pool.path(DATA) / "large").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2**24)

    with simple_quotas(btrfs_root):
        assert pool.quota
        assert as_nobody(lambda: btrfs.may_limit(btrfs_root.parent)) is False, "only root may"
        pool.limit(DATA, 2**23)
        with pytest.raises(OSError, match="quota") as refused:
            write()
        assert refused.value.errno == errno.EDQUOT
        pool.limit(DATA, 2**25)
        write()
        pool.limit(DATA, None)


def test_rootless(btrfs_root: Path) -> None:
    """No mount option is needed: volumes are removed file by file."""
    nobody = pwd.getpwnam("nobody").pw_uid
    root = data_directory(btrfs_root / "of-nobody")
    for path in (root, *root.rglob("*")):
        os.chown(path, nobody, nobody)

    def work() -> bool:
        pool = open_pool(root)
        pool.create(TEMPLATE, make)
        pool.clone(TEMPLATE, SPARE, None)
        assert pool.take(SPARE, DATA, None, renew)
        assert pool.is_atomic(DATA)
        assert not pool.quota
        pool.snapshot(DATA, SNAPSHOT)
        pool.clone(SNAPSHOT, SPARE, None)
        assert content(pool.path(SPARE)) == RENEWED
        pool.delete_below(root / "snapshots")
        pool.put_aside(root / "instances/i", OWNER)
        pool.empty(before=2**40)
        assert is_tidy(root)
        assert not list((root / "trash").iterdir())
        return True

    assert as_nobody(work)


def as_nobody(do: Callable[[], bool]) -> bool:
    """Return what a function returns in a process of an ordinary account; False if it raises."""
    nobody = pwd.getpwnam("nobody").pw_uid
    child = os.fork()
    if child == 0:
        done = False
        with contextlib.suppress(BaseException):
            os.setresgid(nobody, nobody, nobody)
            os.setresuid(nobody, nobody, nobody)
            done = do()
        os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
