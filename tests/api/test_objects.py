"""Downloads by signed URLs: whoever has one needs no key, and nobody gets anything else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from openrdb.api import objects
from openrdb.api.objects import wanted_part
from openrdb.state.database import Database
from openrdb.storage.base import Store
from tests.support.service import wait_until
from tests.support.state_database import Api

KEY = "backups/an-instance/a-backup.custom"
CONTENT = b"0123456789" * 100_000


@pytest.fixture
def api(tmp_path: Path, cache: Path) -> Iterator[Api]:
    database = Database(f"sqlite:///{tmp_path}/state.sqlite")
    database.migrate()
    with Api(database, tmp_path, cache) as served:
        yield served
    database.close()


@pytest.fixture
def store(api: Api) -> Store:
    found = api.stores["nl-ams"]
    found.put(KEY, iter([CONTENT]))
    return found


@pytest.fixture
def url(store: Store) -> str:
    return store.sign(KEY, 60, "my database.custom")


def test_a_download_needs_no_key_and_has_its_name(url: str) -> None:
    answer = httpx.get(url)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="my database.custom"')
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    head = httpx.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Length", "Content-Disposition", "ETag", "Accept-Ranges"):
        assert head.headers[name] == answer.headers[name]


def test_a_download_goes_on_where_it_broke_off(url: str) -> None:
    part = httpx.get(url, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, b"56789")
    assert part.headers["Content-Range"] == f"bytes 5-9/{len(CONTENT)}"
    rest = {"Range": f"bytes={len(CONTENT) - 7}-", "If-Range": part.headers["ETag"]}
    assert httpx.get(url, headers=rest).content == CONTENT[-7:]
    assert httpx.get(url, headers=rest | {"If-Range": '"other"'}).content == CONTENT
    beyond = httpx.get(url, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status_code, beyond.content) == (416, b"")
    assert beyond.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", range(100)),
        ("bytes=0-0", range(1)),
        ("bytes=10-", range(10, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-1000", range(100)),
        ("bytes=50-1000", range(50, 100)),
        ("bytes=100-", range(100, 100)),
        ("bytes=-0", range(100, 100)),
        ("bytes=9-3", range(100)),
        ("bytes=-", range(100)),
        ("bytes=0-1,5-6", range(100)),
        ("lines=0-1", range(100)),
        ("bytes=٣-٤", range(100)),
    ],
)
def test_ranges(header: str, expected: range) -> None:
    assert wanted_part(header, 100) == expected


def test_what_was_not_signed_is_refused(store: Store, url: str) -> None:
    store.put("backups/another", iter([b"another one's"]))
    answers = {
        altered: httpx.get(altered)
        for altered in (
            url.replace("a-backup.custom", "another"),
            url.replace(KEY, "backups/another"),
            url.replace("nl-ams", "fr-par"),
            url.replace("my+database", "your+database"),
            url.replace("expires=", "expires=9"),
            url.replace("expires=", "expires="),
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.partition("?")[0],
            url.replace(KEY, "../../master.key"),
            url.replace(KEY, "..%2f..%2fmaster.key"),
            url.replace(KEY, "%2fetc%2fpasswd"),
            url.replace(KEY, ""),
            url.replace(KEY, f".partial/%2e%2e/{KEY}"),
            url.replace(KEY, f"{KEY}%00"),
        )
        if altered != url
    }
    for altered, answer in answers.items():
        assert answer.status_code in (403, 404), altered
        assert b"another one" not in answer.content
    refused = httpx.get(url[:-1])
    assert refused.status_code == 403
    assert refused.json() == {
        "message": "insufficient permissions",
        "details": [{"action": "read", "resource": "object"}],
        "type": "permissions_denied",
    }
    assert httpx.put(url, content=b"x").status_code == 405


def test_a_url_expires(store: Store) -> None:
    assert httpx.get(store.sign(KEY, -1, "x")).status_code == 403


def test_a_deleted_object_is_missing(store: Store, url: str) -> None:
    store.delete(KEY)
    answer = httpx.get(url)
    assert answer.status_code == 404
    assert answer.json()["type"] == "not_found"
    assert httpx.get(url.replace("nl-ams", "mars")).status_code == 404


def test_downloads_take_nothing_that_the_api_needs(
    api: Api, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_DOWNLOADS", 6)
    monkeypatch.setattr(objects, "_DOWNLOADS_OF_ONE", 3)
    content = os.urandom(30_000_000)
    for key in ("large/0", "large/1", "large/2"):
        store.put(key, iter([content]))
    urls = [store.sign(key, 60, "x") for key in ("large/0", "large/1", "large/2")]
    with httpx.Client() as client, httpx.Client(timeout=10) as other:
        held = [client.send(client.build_request("GET", urls[0]), stream=True) for _ in range(3)]
        refused = other.get(urls[0])
        assert refused.status_code == 503
        assert refused.json()["type"] == "out_of_stock"
        held += [client.send(client.build_request("GET", urls[1]), stream=True) for _ in range(3)]
        assert [one.status_code for one in held] == [200] * 6
        assert other.get(urls[2]).status_code == 503
        begun = time.monotonic()
        for _ in range(20):
            assert api.request("GET", "/instances").status_code == 200
        assert time.monotonic() - begun < 10
        digests = {hashlib.sha256(one.read()).digest() for one in held}
        assert digests == {hashlib.sha256(content).digest()}
        assert other.get(urls[2]).content == content


def test_a_client_that_leaves_frees_its_file(store: Store) -> None:
    store.put("large", iter([bytes(30_000_000)]))
    url = store.sign("large", 60, "x")

    def leave(_: int) -> None:
        with httpx.stream("GET", url) as answer:
            next(answer.iter_raw())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(leave, range(80)))  # more than there may be at once
    assert len(httpx.get(url).content) == 30_000_000
    wait_until(lambda: not [one for one in descriptors() if one.endswith("/large")])


def descriptors() -> list[str]:
    """Return what this process has open."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(path.readlink()))
    return found
