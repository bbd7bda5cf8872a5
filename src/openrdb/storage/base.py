"""The five verbs that every object store has, and what keys look like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", re.ASCII)
_LONGEST = 800
"""Bytes of a key; S3 allows 1,024, of which the prefix takes some."""


@dataclass(frozen=True)
class Stored:
    """What a put has stored."""

    size: int
    checksum: str
    """sha256 of all bytes, hexadecimal."""


@dataclass(frozen=True)
class StoredObject:
    """An object that is in a store."""

    key: str
    size: int
    modified: datetime


class Store(Protocol):
    """Keeps objects by their keys: segments of letters, digits, `.`, `_` and `-`, joined by `/`.

    An object is there as a whole or not at all, and is never changed, only replaced.
    Every verb may be called by several threads and processes at once. None logs or names a
    credential. All raise ValueError for what is no key, and StoreUnavailable if the store does not
    answer or refuses, after some repetitions where that may help.
    """

    def put(self, key: str, chunks: Iterator[bytes], at_most: int = 0) -> Stored:
        """Store an object, durably, and replace one of the same key.

        Nothing is visible before all chunks are stored, and nothing is left if the iterator raises:
        its exception passes through. What is left of a put that was killed, or whose store went
        away, is invisible; `delete` removes it. The chunks are never all in memory.

        Args:
            key: the object's key.
            chunks: its bytes, asked for as fast as they can be written. The iterator calls no store:
                it is run inside the library of S3, which cannot be entered twice.
            at_most: how many bytes there may be, if that is known: S3 takes a limited number of
                parts, so the parts of a large object must be larger. 8 GB fit without it, 256 GB with
                it; ten times as much where the provider takes 10,000 parts.

        Raises:
            DiskFull: there is no room.
        """

    def get(self, key: str) -> Iterator[bytes]:
        """Return an object's bytes, which are read as they are asked for.

        Raises:
            ObjectMissing: there is none; at once, not at the first chunk.
        """

    def list(self, prefix: str) -> list[StoredObject]:
        """Return the objects whose first segments are those of `prefix`, by key; `""`: all."""

    def delete(self, key: str) -> None:
        """Remove an object, and what an interrupted put of it left; a no-op if there is neither.

        For when no put of the key is under way: S3 would end it.
        """

    def sign(self, key: str, seconds: int, filename: str) -> str:
        """Return a URL from which anybody can download an object, under a name, for at most a week."""


def is_key(text: str) -> bool:
    return len(text) <= _LONGEST and all(_SEGMENT.fullmatch(part) for part in text.split("/"))


def check_key(key: str) -> str:
    """Return a key.

    Raises:
        ValueError: it is none: empty, too long, with other characters, or with a segment that begins
            with a dot.
    """
    if not is_key(key):
        raise ValueError(f"{key[:100]!r} is no key of an object")
    return key
