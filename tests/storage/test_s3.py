"""What only S3 has: signatures, credentials, parts, and a server that goes away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import obstore
import pytest

from openrdb.errors import ObjectMissing, StoreUnavailable
from openrdb.spec import StoreSpec
from openrdb.storage import open_store, s3
from openrdb.storage.base import Store
from openrdb.storage.presigned import Access
from openrdb.storage.s3 import BucketStore
from tests.support.object_store import CREDENTIALS, KEY_ID, SECRET, SeaweedFS, unfinished
from tests.support.service import wait_until

KEY = "backups/one.custom"
CONTENT = b"0123456789" * 100
MIB = 2**20
FEW_RETRIES = {
    "max_retries": 2,
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=1)},
}


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, tmp_path: Path) -> StoreSpec:
    return seaweedfs.spec("tests", tmp_path.name)


@pytest.fixture
def store(bucket: StoreSpec) -> Store:
    made = open_store(bucket)
    made.put(KEY, iter([CONTENT]))
    return made


def test_a_signed_url_needs_no_key(store: Store) -> None:
    url = store.sign(KEY, 60, 'été "x".custom')
    answer = httpx.get(url)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"_t_ _x_.custom\"; filename*=UTF-8''%C3%A9t%C3%A9%20%22x%22.custom"
    )
    part = httpx.get(url, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, b"56789")


def test_a_signature_is_for_one_object_and_name(store: Store) -> None:
    store.put("backups/two.custom", iter([b"another one's"]))
    url = store.sign(KEY, 60, "name.custom")
    for altered in (
        url.replace("one.custom", "two.custom"),
        url.replace("name.custom", "game.custom"),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        url.partition("?")[0],
    ):
        assert httpx.get(altered).status_code == 403, altered
    assert httpx.put(url, content=b"x").status_code == 403


def test_a_url_expires(seaweedfs: SeaweedFS, store: Store, bucket: StoreSpec) -> None:
    access = Access(seaweedfs.endpoint, s3.DEFAULT_REGION, KEY_ID, SECRET)
    path = f"/tests/{bucket.prefix}/{KEY}"
    now = datetime.now(UTC)
    assert httpx.get(access.sign("GET", path, {}, 60, now - timedelta(30))).status_code == 403
    assert (
        httpx.get(access.sign("GET", path, {}, 60, now - timedelta(seconds=61))).status_code == 403
    )
    assert (
        httpx.get(access.sign("GET", path, {}, 60, now - timedelta(seconds=20))).status_code == 200
    )


@pytest.mark.parametrize("name", CREDENTIALS)
def test_wrong_credentials_are_refused_and_not_told(
    store: Store, bucket: StoreSpec, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    given = {**CREDENTIALS, name: "another-secret"}
    other = open_store(replace(bucket, environment=given))
    with pytest.raises(StoreUnavailable, match="cannot write to bucket tests of http:"):
        other.put("x", iter([b"x"]))
    with pytest.raises(StoreUnavailable, match=r"cannot delete from .*\((Sig|Inv)\w+\)") as refused:
        other.delete(KEY)
    with pytest.raises(StoreUnavailable, match="cannot read from"):
        other.get(KEY)
    told = str(refused.value) + caplog.text + repr(bucket) + repr(vars(other))
    assert given["AWS_SECRET_ACCESS_KEY"] not in told
    assert httpx.get(other.sign(KEY, 60, "x")).status_code == 403


@pytest.mark.parametrize("name", CREDENTIALS)
def test_missing_credentials_are_named(bucket: StoreSpec, name: str) -> None:
    given = {**CREDENTIALS, name: ""}
    with pytest.raises(StoreUnavailable, match=f"bucket tests needs {name} in the environment"):
        open_store(replace(bucket, environment=given))


def test_a_missing_bucket_is_no_missing_object(bucket: StoreSpec) -> None:
    absent = open_store(replace(bucket, location="absent"))
    with pytest.raises(StoreUnavailable, match="bucket does not exist"):
        absent.get(KEY)


def test_another_clients_environment_means_nothing(
    bucket: StoreSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "another")
    monkeypatch.setenv("AWS_BUCKET", "another")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    open_store(bucket).put(KEY, iter([CONTENT]))
    assert b"".join(open_store(bucket).get(KEY)) == CONTENT


def test_parts_grow_with_the_expected_size(store: Store) -> None:
    assert isinstance(store, BucketStore)
    content = bytes(40 * MIB)
    for at_most, parts in ((0, 5), (len(content), 5), (20 * 999 * MIB, 2), (2**40, 1)):
        store.put(KEY, iter([content]), at_most)
        tag = obstore.head(store._store, KEY)["e_tag"]
        assert tag is not None
        assert tag.strip('"').endswith(f"-{parts}")


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(store: Store) -> None:
    store.put(KEY, iter([b"1" * 20 * MIB]))
    reading = store.get(KEY)
    next(reading)
    store.put(KEY, iter([b"2" * 20 * MIB]))
    with pytest.raises(StoreUnavailable, match="was replaced while it was read"):
        next(reading)
    reading = store.get(KEY)
    next(reading)
    store.delete(KEY)
    with pytest.raises(ObjectMissing):
        next(reading)


def test_a_region_is_a_prefix(seaweedfs: SeaweedFS, bucket: StoreSpec, store: Store) -> None:
    other = open_store(replace(bucket, prefix=f"{bucket.prefix}x"))
    assert other.list("") == []
    with pytest.raises(ObjectMissing):
        other.get(KEY)


def test_an_authority_of_ones_own(seaweedfs: SeaweedFS, bucket: StoreSpec, store: Store) -> None:
    by_tls = replace(bucket, endpoint=seaweedfs.endpoint_tls)
    trusting = CREDENTIALS | {"AWS_CA_BUNDLE": str(seaweedfs.ca)}
    trusted = open_store(replace(by_tls, environment=trusting))
    assert b"".join(trusted.get(KEY)) == CONTENT
    trusted.delete(KEY)  # which also asks without the library
    with pytest.raises(StoreUnavailable, match=r"cannot delete from .*certificate verify failed"):
        open_store(by_tls).delete(KEY)
    for wrong in ("/nowhere.pem", "/etc/passwd"):
        with pytest.raises(StoreUnavailable, match=f"AWS_CA_BUNDLE: cannot read {wrong}"):
            open_store(replace(by_tls, environment=trusting | {"AWS_CA_BUNDLE": wrong}))


# -- a server that goes away ----------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path / "own") as running:
        yield running


def assert_given_up(store: Store, server: SeaweedFS, stop: Callable[[], None]) -> None:
    """A store whose server stops in the middle of a put and of a get says so, also later."""
    store.put("present", iter([bytes(20 * MIB)]))
    reading = store.get("present")
    next(reading)

    def chunks() -> Iterator[bytes]:
        yield bytes(20 * MIB)
        stop()
        yield bytes(20 * MIB)

    where = f"cannot write to bucket tests of {server.endpoint}"
    with pytest.raises(StoreUnavailable, match=where):
        store.put(KEY, chunks())
    with pytest.raises(StoreUnavailable, match="cannot read from"):
        list(reading)
    with pytest.raises(StoreUnavailable, match="cannot delete from"):
        store.delete(KEY)


@pytest.mark.slow
def test_a_store_that_goes_away_fails_and_leaves_no_object(
    own: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "RETRIES", FEW_RETRIES)
    spec = own.spec("tests", "fr-par")
    store = open_store(spec)
    assert_given_up(store, own, own.kill)
    with pytest.raises(StoreUnavailable, match="cannot read from"):
        store.get("present")
    monkeypatch.undo()
    own.start()
    store = open_store(spec)
    assert [one.key for one in store.list("")] == ["present"]
    assert sum(map(len, store.get("present"))) == 20 * MIB
    store.delete(KEY)
    assert not unfinished(spec)


@pytest.mark.slow
def test_a_store_that_comes_back_is_waited_for(own: SeaweedFS) -> None:
    store = open_store(own.spec("tests", "fr-par"))
    back = threading.Thread(target=own.start)

    def chunks() -> Iterator[bytes]:
        yield bytes(20 * MIB)
        own.kill()
        back.start()
        yield bytes(20 * MIB)

    assert store.put(KEY, chunks()).size == 40 * MIB
    back.join()
    reading = store.get(KEY)
    size = len(next(reading))
    own.kill()
    back = threading.Thread(target=own.start)
    back.start()
    size += sum(map(len, reading))
    back.join()
    assert size == 40 * MIB


@pytest.mark.slow
def test_a_store_that_freezes_is_given_up(own: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a put and of a get: it takes bytes and never answers."""
    monkeypatch.setattr(s3, "RETRIES", FEW_RETRIES)
    spec = replace(own.spec("tests", "fr-par"), timeout=5.0)
    store = open_store(spec)
    assert_given_up(store, own, own.freeze)
    with pytest.raises(StoreUnavailable, match="cannot read from"):
        store.list("")
    own.thaw()
    wait_until(lambda: [one.key for one in store.list("")] == ["present"])
    assert sum(map(len, store.get("present"))) == 20 * MIB
    store.delete(KEY)
    assert not unfinished(spec)
