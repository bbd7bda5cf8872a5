"""What only a directory has: modes, durability's files, a full disk."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrdb.errors import DiskFull, ObjectMissing, StoreUnavailable
from openrdb.storage.directory import DirectoryStore
from openrdb.system import files
from tests.support.mounts import mount

KEY = "backups/an-instance/a-backup.custom"
MIB = 2**20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects" / "fr-par"


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_nobody_else_can_read_objects(root: Path) -> None:
    before = os.umask(0)
    try:
        DirectoryStore(root).put(KEY, iter([b"x"]))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (root, *root.rglob("*")) if path.is_dir()}
    assert modes == {0o700}
    assert (root / KEY).stat().st_mode & 0o777 == 0o600
    assert root.parent.stat().st_mode & 0o777 == 0o700


def test_a_reserve_is_left_for_databases(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(root)
    store.put("present", iter([b"x"]))
    monkeypatch.setattr(files, "LEAST_FREE", 2**60)
    with pytest.raises(DiskFull, match=f"cannot write to the object store {root}: no space left"):
        store.put(KEY, iter([b"x"]))
    assert everything(root) == ["present"]
    store.delete("present")
    assert everything(root) == []


def test_the_reserve_is_looked_at_while_an_object_grows(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def chunks() -> Iterator[bytes]:
        for number in range(100):
            if number == 20:
                monkeypatch.setattr(files, "LEAST_FREE", 2**60)
            asked.append(number)
            yield bytes(MIB)

    with pytest.raises(DiskFull):
        DirectoryStore(root).put(KEY, chunks())
    assert len(asked) < 40
    assert everything(root) == []


@pytest.mark.root
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LEAST_FREE", 0)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "none", str(disk))
    try:
        store = DirectoryStore(disk / "objects")
        store.put("present", iter([bytes(MIB)]))
        with pytest.raises(DiskFull, match="no space left"):
            store.put(KEY, (bytes(300_000) for _ in range(100)))
        assert everything(disk / "objects") == ["present"]
        store.put(KEY, iter([bytes(2 * MIB)]))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_directory_that_is_not_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = DirectoryStore(tmp_path / "file" / "fr-par")
    with pytest.raises(StoreUnavailable, match=r"cannot write to .*: not a directory"):
        store.put(KEY, iter([b"x"]))
    with pytest.raises(ObjectMissing):
        store.get(KEY)
    assert store.list("") == []
    store.delete(KEY)


def test_what_a_living_writer_has_is_not_swept(root: Path) -> None:
    store = DirectoryStore(root)

    def chunks() -> Iterator[bytes]:
        yield b"first "
        for _ in range(3):
            DirectoryStore(root).put("another", iter([b"x"]))
            DirectoryStore(root).delete("another")
        yield b"second"

    store.put(KEY, chunks())
    assert b"".join(store.get(KEY)) == b"first second"
    assert everything(root) == [KEY]


def test_what_a_killed_writer_had_is_swept_by_whoever_is_next(root: Path) -> None:
    store = DirectoryStore(root)
    store.put("present", iter([b"x"]))
    (root / ".partial" / "left").write_bytes(b"of a killed one")
    assert [one.key for one in store.list("")] == ["present"]
    store.put("present", iter([b"y"]))
    assert everything(root) == ["present"]
    (root / ".partial" / "left").write_bytes(b"of a killed one")
    store.delete("absent")
    assert everything(root) == ["present"]


def test_no_directory_stays_empty_and_none_vanishes_under_a_put(root: Path) -> None:
    """Deletions remove an instance's directory while others put into it."""
    store, failures = DirectoryStore(root), []

    def work(number: int) -> None:
        try:
            for _ in range(60):
                store.put(f"a/b/{number}", iter([b"x"]))
                store.delete(f"a/b/{number}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in root.iterdir()] == [".partial"]


def test_links_out_of_the_store_are_not_followed(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    store = DirectoryStore(root)
    store.put("present", iter([b"x"]))
    (root / "link").symlink_to(secret)
    with pytest.raises(StoreUnavailable):
        store.get("link")


def test_only_the_control_plane_makes_links(root: Path) -> None:
    with pytest.raises(StoreUnavailable, match="control plane"):
        DirectoryStore(root).sign(KEY, 60, "x")
