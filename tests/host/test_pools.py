"""Several pools of a host: copies from one into another, the trash of all of them as one."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from openrdb.errors import PoolMissing
from openrdb.host.volumes import Pool, Volume, open_pool
from openrdb.host.volumes.pools import MARK, Pools, keep_whole_for_return, known_pools, place_of
from openrdb.system import comparing, mirror
from openrdb.system.layout import Layout
from tests.support.mounts import FileSystems
from tests.support.volumes import (
    CONTENT,
    DATA,
    RENEWED,
    SPARE,
    UID,
    content,
    die_at,
    is_tidy,
    make,
    owners,
    renew,
)

INSTANCE, NODE = UUID(int=10), UUID(int=11)
KINDS = ("ext4", "xfs", "btrfs")


@pytest.fixture(params=product(KINDS, KINDS), ids="-to-".join)
def two(request: pytest.FixtureRequest, file_systems: FileSystems) -> Iterator[tuple[Pool, Pool]]:
    """A pool with a volume, and another one, on each pair of file systems."""
    places = [file_systems.directory(kind) for kind in request.param]
    pools = [open_pool(place, name) for place, name in zip(places, ("one", "two"), strict=True)]
    source = Volume("one", SPARE.key)
    pools[0].path(source).parent.mkdir(parents=True)
    pools[1].path(Volume("two", DATA.key)).parent.mkdir(parents=True)
    pools[0].create(source, make)
    yield pools[0], pools[1]
    for place in places:
        file_systems.remove(place)


def test_brought(two: tuple[Pool, Pool]) -> None:
    there, here = two
    source, target = there.path(Volume("one", SPARE.key)), Volume("two", DATA.key)
    (source / "one").chmod(0o640)
    sparse = source / "sparse"
    with sparse.open("wb") as file:
        file.truncate(2**20)
        os.pwrite(file.fileno(), b"end", 2**20 - 3)
    (source / "link").symlink_to("/etc/passwd")
    here.bring(source, target, UID, renew)
    path = here.path(target)
    assert content(path) == content(source) | RENEWED
    assert (path / "link").readlink() == Path("/etc/passwd")
    assert (path / "one").stat().st_mode & 0o777 == 0o640
    assert owners(path) == {os.geteuid() if UID is None else UID}
    assert here.exists(target)
    here.remove_deleted()
    assert not [*path.parents[3].glob("making/*"), *path.parents[3].glob("removed/*")]


def test_brought_while_it_is_written_to(two: tuple[Pool, Pool]) -> None:
    """What is there when the writer has been held is what the copy has, and nothing else."""
    there, here = two
    source, target = there.path(Volume("one", SPARE.key)), Volume("two", DATA.key)
    (source / "old").mkdir()
    (source / "old/file").write_bytes(b"x")
    (source / "becomes").write_bytes(b"a file")

    def hold() -> None:
        (source / "one").write_bytes(b"9" * 5000)  # as large as before
        shutil.rmtree(source / "old")
        (source / "becomes").unlink()
        (source / "becomes").mkdir()
        (source / "becomes/file").write_bytes(b"in a directory")
        (source / "sub/two").rename(source / "sub/renamed")
        (source / "new").write_bytes(b"new")

    here.bring(source, target, UID, hold=hold)
    assert content(here.path(target)) == content(source)
    assert owners(here.path(target)) == {os.geteuid() if UID is None else UID}
    assert not (here.path(target) / "old").exists()


def test_only_what_may_have_changed_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = list[str]()
    for verb in ("file", "refresh"):
        real = getattr(mirror.Copier, verb)

        def copy_it(
            self: mirror.Copier,
            name: str,
            *where: int,
            real: Callable[..., os.stat_result] = real,
        ) -> os.stat_result:
            copied.append(name)
            return real(self, name, *where)

        monkeypatch.setattr(mirror.Copier, verb, copy_it)
    monkeypatch.setattr(mirror, "_IN_FLIGHT", 0.0)
    source, target = tmp_path / "source", tmp_path / "target"
    make(source)
    target.mkdir()
    time.sleep(0.05)
    copy = mirror.Mirror(source, target, None, share=False, reserve=False)
    copy.update(in_use=True)
    assert sorted(copied) == ["one", "three", "two"]
    copied.clear()
    copy.update(in_use=True)
    assert copied == []
    before = (source / "one").stat()
    (source / "one").write_bytes(b"2" * before.st_size)
    os.utime(source / "one", ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.update(in_use=False)
    assert copied == ["one"], "times that were set back hide nothing"
    monkeypatch.setattr(mirror, "_IN_FLIGHT", 3600.0)
    copied.clear()
    fresh = mirror.Mirror(source, target, None, share=False, reserve=False)
    for _ in range(2):
        fresh.update(in_use=False)
    assert len(copied) == 6, "a write may have begun before, and been under way"
    assert content(target) == content(source)


@pytest.mark.parametrize("is_old_kernel", [False, True])
@pytest.mark.parametrize("in_use", [False, True])
def test_of_a_large_file_only_differences_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_use: bool, is_old_kernel: bool
) -> None:
    """A server stops for as long as this takes."""
    if is_old_kernel:
        monkeypatch.setattr(comparing, "_POPULATE_READ", 999)
    written = list[tuple[int, int]]()
    real = comparing.write

    def write(descriptor: int, content: memoryview, offset: int) -> None:
        written.append((offset, len(content)))
        real(descriptor, content, offset)

    monkeypatch.setattr(comparing, "write", write)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    size = 40 * 2**20 + 5
    (source / "large").write_bytes(os.urandom(size))
    copy = mirror.Mirror(source, target, None, share=False, reserve=False)
    copy.update(in_use=True)
    with (source / "large").open("r+b") as file:
        for offset in (0, 20 * 2**20 + 100, size - 1):
            file.seek(offset)
            file.write(b"new")
    copy.update(in_use=in_use)
    assert content(target) == content(source)
    block = comparing.BLOCK
    assert written == [(0, block), (20 * 2**20, block), (40 * 2**20, 7)]
    written.clear()
    os.truncate(source / "large", 20 * 2**20)
    (source / "large").chmod(0o640)
    copy.update(in_use=in_use)
    assert content(target) == content(source)
    assert (target / "large").stat().st_mode & 0o777 == 0o640
    assert written == []


# -- what a host knows of its pools -----------------------------------------------------------------


def pools_of(root: Path, **directories: Path) -> Pools:
    return Pools(Layout(root), directories)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("data", "fast"):
        (tmp_path / name).mkdir()
    (tmp_path / "data/instances").mkdir()
    return tmp_path / "data"


def test_a_pool_that_is_not_mounted_is_not_used(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fast = root.with_name("fast")
    pools = pools_of(root, fast=fast)
    assert {pool.name for pool in pools} == {"fast", "default"}
    mounted = fast.rename(root.with_name("mounted"))
    with pytest.raises(PoolMissing, match="missing"):
        pools.named("fast")
    fast.mkdir()  # what it is mounted on
    pools = pools_of(root, fast=fast)
    assert "lacks the file openrdb.pool; mount its file system" in caplog.text
    with pytest.raises(PoolMissing, match="mount its file system"):
        pools.named("fast")
    assert not list(fast.iterdir())
    fast.rmdir()
    mounted.rename(fast)
    pools.look()
    assert pools.named("fast").name == "fast"


def test_what_the_configuration_says_later_loses_no_pool(root: Path) -> None:
    fast, other = root.with_name("fast"), root.with_name("other")
    pools_of(root, fast=fast)
    assert pools_of(root).layout("fast").root == fast, "it is not configured any more"
    other.mkdir()
    assert pools_of(root, fast=other).layout("fast").root == fast, "nothing was moved there"
    assert not list(other.iterdir())
    other.rmdir()
    fast.rename(other)
    assert pools_of(root, fast=other).layout("fast").root == other
    with pytest.raises(PoolMissing, match="it is pool fast"):
        pools_of(root, faster=other).named("faster")


def test_a_pool_of_another_data_directory(root: Path) -> None:
    fast, second = root.with_name("fast"), root.with_name("second")
    pools_of(root, fast=fast)
    second.mkdir()
    with pytest.raises(PoolMissing, match="of a data directory"):
        pools_of(second, fast=fast).named("fast")


def test_killed_while_a_pool_is_first_opened(root: Path) -> None:
    """Afterwards it is opened as if nothing had been."""
    for line in range(1, 40):
        fast = root.with_name(f"fast{line}")
        fast.mkdir()
        child = os.fork()
        if child == 0:
            die_at(line)
            pools_of(root, **{f"fast{line}": fast})
            os._exit(7)
        os.waitpid(child, 0)
        pools = pools_of(root, **{f"fast{line}": fast})
        assert pools.named(f"fast{line}").name == f"fast{line}"
        layout = Layout(root)
        assert place_of(known_pools(layout), f"fast{line}", fast) == (fast, True)


# -- the trash ---------------------------------------------------------------------------------------


def an_instance(pools: Pools, name: str, owner: UUID = INSTANCE) -> None:
    """Make an instance's files, with its volume in a pool."""
    for one in {"default", name}:
        pools.ensure_passage(one, owner, NODE, None)
    (pools.layout("default").node(owner, NODE).record).write_text("{}")
    pools.named(name).create(pools.volume(name, owner, NODE), make)


def is_whole(pools: Pools, owner: UUID = INSTANCE) -> bool:
    volume = pools.volume("fast", owner, NODE)
    record = pools.layout("default").node(owner, NODE).record
    return (
        record.exists()
        and pools.exists(volume)
        and content(pools.named("fast").path(volume)) == CONTENT
    )


def is_gone(root: Path, owner: UUID = INSTANCE) -> bool:
    places = [root, root.with_name("fast")]
    return not any([*place.glob(f"*/*{owner}*")] for place in places)


def test_aside_and_back_as_one(root: Path) -> None:
    pools = pools_of(root, fast=root.with_name("fast"))
    an_instance(pools, "fast")
    assert pools.has_data(INSTANCE)
    assert not pools.has_data(uuid4())
    pools.put_aside(INSTANCE)
    pools.put_aside(INSTANCE)
    assert not is_whole(pools)
    pools.empty(time.time() - 60)
    for _ in range(2):
        assert pools.put_back(INSTANCE)
        assert is_whole(pools)
    assert pools.put_back(INSTANCE)
    pools.put_aside(INSTANCE)
    keep_whole_for_return(Layout(root), INSTANCE)  # by another process
    pools.empty(time.time() + 60)
    assert pools.put_back(INSTANCE)
    assert is_whole(pools)
    pools.put_aside(INSTANCE)
    pools.empty(time.time() + 60)
    pools.remove_deleted()
    assert is_gone(root)
    assert not pools.put_back(INSTANCE)


def test_want_of_space_in_one_empties_the_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = pools_of(root, fast=root.with_name("fast"))
    for owner in (INSTANCE, UUID(int=20)):
        an_instance(pools, "fast", owner)
        pools.put_aside(owner)
    fast, default = pools.named("fast"), pools.default
    monkeypatch.setattr(default, "free", lambda: 0)
    assert not default.ensure_free(1)
    assert len(default.put_aside_since()) == 2, "its data is elsewhere: nothing would be gained"
    (oldest, *_) = sorted(fast.put_aside_since(), key=fast.put_aside_since().__getitem__)
    monkeypatch.setattr(fast, "free", lambda: 1 - len(fast.put_aside_since()))
    assert fast.ensure_free(0)
    assert oldest not in default.put_aside_since()
    assert len(default.put_aside_since()) == 1
    pools.remove_deleted()
    assert is_gone(root, oldest)


@pytest.mark.parametrize("way", ["aside", "back", "empty"])
def test_killed_at_any_line_it_is_one_or_gone(tmp_path: Path, way: str) -> None:
    """A repetition, and the rounds of the next agent, make of it what was asked for."""
    for line in range(1, 1000):
        root = tmp_path / f"{line}/data"
        for place in (root / "instances", root.with_name("fast")):
            place.mkdir(parents=True)
        pools = pools_of(root, fast=root.with_name("fast"))
        an_instance(pools, "fast")
        if way != "aside":
            pools.put_aside(INSTANCE)
        child = os.fork()
        if child == 0:
            die_at(line)
            _do(pools, way)
            os._exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        pools = pools_of(root, fast=root.with_name("fast"))
        if way == "empty":
            listed = INSTANCE in pools.default.put_aside_since()
            pools.empty(0)
            pools.remove_deleted()
            assert is_gone(root) or listed
            assert pools.put_back(INSTANCE) == listed
            assert is_whole(pools) == listed
        else:
            pools.empty(0)  # a round of the agent takes nothing away
            assert (
                pools.has_data(INSTANCE)
                or INSTANCE in pools.default.put_aside_since()
                or (way == "back")
            )
            _do(pools, way)
            assert is_whole(pools) == (way == "back")
            assert pools.put_back(INSTANCE)
            assert is_whole(pools)
        if code == 7:
            assert line > 20, "nothing was looked at"
            return
    raise AssertionError("it never ended")


def _do(pools: Pools, way: str) -> None:
    if way == "aside":
        pools.put_aside(INSTANCE)
    elif way == "back":
        pools.put_back(INSTANCE)
    else:
        pools.empty(time.time() + 60)


def test_what_is_written_down(root: Path) -> None:
    fast = root.with_name("fast")
    pools_of(root, fast=fast)
    known = json.loads((root / "pools.json").read_text())
    assert (fast / MARK).read_text() == f"{known['host']} fast\n"
    assert known["directories"] == {"fast": str(fast)}
    assert is_tidy(fast)
