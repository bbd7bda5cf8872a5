"""What holds for every kind of store."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest

from openrdb.errors import ObjectMissing
from openrdb.spec import StoreSpec
from openrdb.storage.base import Store
from tests.support.object_store import unfinished

MIB = 2**20
KEY = "backups/an-instance/a-backup.custom"
BLOCK = bytes(range(256)) * 4096


def blocks(size: int) -> Iterator[bytes]:
    """Yield bytes that are nowhere the same for long, in chunks of an odd size."""
    for start in range(0, size, 777_777):
        yield BLOCK[start // 777_777 % 256 :][: min(777_777, size - start)]


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 20 * MIB + 3])
def test_what_is_put_is_got(store: Store, spec: StoreSpec, size: int) -> None:
    content = b"".join(blocks(size))
    stored = store.put(KEY, blocks(size))
    assert (stored.size, stored.checksum) == (size, hashlib.sha256(content).hexdigest())
    assert b"".join(store.get(KEY)) == content
    (found,) = store.list("")
    assert (found.key, found.size) == (KEY, size)
    assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=5)
    assert not unfinished(spec)


def test_an_object_is_replaced_as_a_whole(store: Store) -> None:
    store.put(KEY, iter([b"a long first version"]))
    store.put(KEY, iter([b"short"]))
    assert b"".join(store.get(KEY)) == b"short"
    assert [one.size for one in store.list("backups")] == [5]


def test_nothing_is_visible_before_the_end(store: Store) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(store.list(""))
        with pytest.raises(ObjectMissing):
            store.get(KEY)

    def chunks() -> Iterator[bytes]:
        yield BLOCK * 20
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        yield b"the end"

    store.put(KEY, chunks())
    assert seen == [[]]
    assert [one.size for one in store.list("")] == [20 * len(BLOCK) + 7]


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), OSError(28, "of the dump"), ValueError()]
)
def test_an_iterator_that_fails_leaves_nothing(
    store: Store, spec: StoreSpec, error: Exception
) -> None:
    def chunks() -> Iterator[bytes]:
        yield BLOCK * 20
        raise error

    with pytest.raises(type(error)) as raised:
        store.put(KEY, chunks())
    assert raised.value is error
    assert store.list("") == []
    assert not unfinished(spec)


def test_a_killed_put_leaves_no_object(store: Store, spec: StoreSpec) -> None:
    program = """
import json, sys, time
from openrdb.spec import StoreSpec
from openrdb.storage import open_store

def chunks():
    yield bytes(20 * 2**20)
    print("half", flush=True)
    time.sleep(600)

open_store(StoreSpec(**json.loads(sys.argv[1]))).put(sys.argv[2], chunks())
"""
    command = [sys.executable, "-c", program, json.dumps(asdict(spec)), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.kill()
    assert store.list("") == []
    assert len(unfinished(spec)) == 1
    with pytest.raises(ObjectMissing):
        store.get(KEY)
    store.delete(KEY)
    assert not unfinished(spec)
    store.put(KEY, iter([b"again"]))
    assert b"".join(store.get(KEY)) == b"again"


def test_a_put_that_is_killed_at_any_moment_is_whole_or_nothing(
    store: Store, spec: StoreSpec
) -> None:
    program = """
import itertools, json, sys
from openrdb.spec import StoreSpec
from openrdb.storage import open_store

store = open_store(StoreSpec(**json.loads(sys.argv[1])))
for number in itertools.count():
    key = f"{sys.argv[2]}/{number}"
    store.put(key, (key.encode() * 100_000 for _ in range(10)))
    print(key, flush=True)
"""
    told = []
    for number in range(6):
        command = [sys.executable, "-c", program, json.dumps(asdict(spec)), f"round-{number}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            told.append(process.stdout.readline())
            time.sleep(secrets.randbelow(200) / 1000)  # any moment
            process.kill()
            told += process.stdout.readlines()
    found = {one.key for one in store.list("")}
    assert {line.decode().strip() for line in told if line.endswith(b"\n")} <= found
    for key in found:
        assert b"".join(store.get(key)) == key.encode() * 1_000_000
    for number in range(6):
        last = max(int(key.partition("/")[2]) for key in found if f"-{number}/" in key)
        for killed in (last, last + 1):
            store.delete(f"round-{number}/{killed}")
    assert not unfinished(spec)


def test_two_puts_of_a_key_do_not_mix(store: Store, spec: StoreSpec) -> None:
    contents = [bytes([number]) * (9 * MIB) for number in range(3)]
    threads = [
        threading.Thread(target=store.put, args=(KEY, iter([one[: 5 * MIB], one[5 * MIB :]])))
        for one in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(store.get(KEY)) in contents
    assert not unfinished(spec)


def test_a_missing_object_is_said_at_once_and_deleted_in_vain(store: Store) -> None:
    store.put("backups/other", iter([b"x"]))
    for key in (KEY, "backups/othe", "backups/other/more"):
        with pytest.raises(ObjectMissing, match=key):
            store.get(key)
        store.delete(key)
    assert [one.key for one in store.list("")] == ["backups/other"]


def test_lists_are_of_whole_segments(store: Store) -> None:
    keys = ["a/1", "a/2.json", "a/b/c", "ab/1", "b"]
    for key in reversed(keys):
        store.put(key, iter([b"x"]))
    assert [one.key for one in store.list("")] == keys
    assert [one.key for one in store.list("a")] == keys[:3]
    assert [one.key for one in store.list("a/b")] == ["a/b/c"]
    assert store.list("a/1") == store.list("nothing") == []


def test_what_is_deleted_is_gone(store: Store, spec: StoreSpec) -> None:
    for key in (KEY, f"{KEY}.json"):
        store.put(key, iter([b"x"]))
    store.delete(KEY)
    assert [one.key for one in store.list("")] == [f"{KEY}.json"]
    store.delete(f"{KEY}.json")
    assert store.list("") == []
    store.put(KEY, iter([b"again"]))


@pytest.mark.parametrize(
    "key",
    ["", "/", "/a", "a/", "a//b", "..", "a/../../b", ".partial/x", "a\0", "a b", "ä", "a" * 900],
)
def test_what_is_no_key_is_refused_by_every_verb(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        store.put(key, iter([b"x"]))
    with pytest.raises(ValueError, match="no key"):
        store.get(key)
    with pytest.raises(ValueError, match="no key"):
        store.delete(key)
    if key:
        with pytest.raises(ValueError, match="no key"):
            store.list(key)


def test_a_large_object_is_never_in_memory(spec: StoreSpec) -> None:
    program = """
import json, resource, sys
from openrdb.spec import StoreSpec
from openrdb.storage import open_store

store = open_store(StoreSpec(**json.loads(sys.argv[1])))
store.put("small", iter([bytes(10)]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("large", (bytes(2**20) for _ in range(256)))
assert sum(map(len, store.get("large"))) == 2**28
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    command = [sys.executable, "-c", program, json.dumps(asdict(spec))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100, "MiB"
