"""Signed URLs, and what keys and file names may be in them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrdb.errors import PermissionsDenied
from openrdb.storage.base import check_key, is_key
from openrdb.storage.links import Links, disposition
from openrdb.storage.presigned import Access

LINKS = Links(b"k" * 32, "https://api.example.com", "fr-par")
SEGMENTS = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True)
KEYS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
NAMES = st.text(max_size=60)
SECONDS = st.integers(min_value=10, max_value=604_800)


def parts(url: str) -> tuple[str, str, str, str]:
    """Return what the API's route finds in a URL."""
    found = urlsplit(url)
    query = dict(parse_qsl(found.query, keep_blank_values=True, strict_parsing=True))
    key = unquote(found.path).removeprefix("/objects/fr-par/")
    return key, query["expires"], query["filename"], query["signature"]


@given(KEYS, SECONDS, NAMES.filter(lambda name: name.isprintable()))
def test_what_was_signed_is_let_in(key: str, seconds: int, filename: str) -> None:
    url = LINKS.sign(key, seconds, filename)
    assert url.isascii()
    assert parts(url)[0] == key
    assert parts(url)[2] == filename
    LINKS.check(*parts(url))


@given(KEYS, SECONDS, st.integers(0, 3), st.text(max_size=80))
def test_what_is_altered_is_refused(key: str, seconds: int, which: int, other: str) -> None:
    signed = list(parts(LINKS.sign(key, seconds, "name.custom")))
    if signed[which] == other:
        return
    signed[which] = other
    with pytest.raises(PermissionsDenied):
        LINKS.check(*signed)


@given(KEYS)
def test_a_url_is_one_regions_and_one_deployments(key: str) -> None:
    signed = parts(LINKS.sign(key, 60, "x"))
    for other in (Links(b"o" * 32, "", "fr-par"), Links(b"k" * 32, "", "nl-ams")):
        with pytest.raises(PermissionsDenied):
            other.check(*signed)


def test_a_url_expires() -> None:
    for seconds in (0, -1, -100_000):
        with pytest.raises(PermissionsDenied):
            LINKS.check(*parts(LINKS.sign("a", seconds, "x")))


def test_the_secret_is_not_told() -> None:
    assert "kkk" not in repr(LINKS)
    assert "sss" not in repr(Access("https://s3.example.com", "x", "id", "sss", "sss"))


@given(st.text(max_size=100))
def test_a_file_name_cannot_end_its_header(filename: str) -> None:
    header = disposition(filename)
    assert header.isascii()
    assert header.isprintable()
    plain = header.removeprefix('attachment; filename="').partition('"; filename*=')[0]
    assert not set(plain) & set('"\\/;')
    named = unquote(header.partition("UTF-8''")[2])
    assert not set(named) & {"/", "\\", "\0", "\r", "\n"}


@given(st.text(max_size=60) | KEYS)
def test_a_key_is_a_path_below_the_store(text: str) -> None:
    if not is_key(text):
        with pytest.raises(ValueError, match="no key"):
            check_key(text)
        return
    path = Path("/store") / text
    assert Path("/store") in path.resolve().parents
    assert str(path) == f"/store/{text}"
    assert text.isascii()
    assert not any(part.startswith(".") for part in path.parts)


@given(KEYS)
def test_what_we_make_is_a_key(key: str) -> None:
    assert check_key(key) == key


def test_signatures_are_those_of_amazons_documentation() -> None:
    """The example of "Authenticating Requests: Using Query Parameters"."""
    access = Access(
        "https://examplebucket.s3.amazonaws.com",
        "us-east-1",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    )
    url = access.sign("GET", "/test.txt", {}, 86400, datetime(2013, 5, 24, tzinfo=UTC))
    assert url.endswith(
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
