"""What `pgoutput` says, version 1 of its protocol, as far as the tests read it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Row = dict[str, str | None]


@dataclass(frozen=True)
class Change:
    """A row that was changed."""

    kind: str
    """insert, update, delete."""
    table: str
    row: Row
    """As it is now, or as it was identified by before it was deleted."""


class Decoder:
    """Turns messages, in their order, into changes; it knows the tables that were described."""

    def __init__(self) -> None:
        self._tables: dict[int, tuple[str, list[str]]] = {}

    def changes(self, messages: Iterable[bytes]) -> Iterator[Change]:
        for message in messages:
            match message[:1]:
                case b"R":
                    self._describe(message)
                case b"I":
                    yield self._change("insert", message, 5)
                case b"U":
                    # With the row as it was identified by before, where that was changed.
                    start = 5
                    if message[start : start + 1] in (b"K", b"O"):
                        _, start = self._values(message, start + 1)
                    yield self._change("update", message, start)
                case b"D":
                    yield self._change("delete", message, 5)

    def _describe(self, message: bytes) -> None:
        (oid,) = struct.unpack_from("!I", message, 1)
        _, name, rest = message[5:].split(b"\0", 2)
        (count,) = struct.unpack_from("!h", rest, 1)
        names, rest = [], rest[3:]
        for _ in range(count):
            column, rest = rest[1:].split(b"\0", 1)
            names.append(column.decode())
            rest = rest[8:]  # its type
        self._tables[oid] = (name.decode(), names)

    def _change(self, kind: str, message: bytes, start: int) -> Change:
        (oid,) = struct.unpack_from("!I", message, 1)
        table, names = self._tables[oid]
        values, _ = self._values(message, start + 1)
        return Change(kind, table, dict(zip(names, values, strict=True)))

    def _values(self, message: bytes, at: int) -> tuple[list[str | None], int]:
        (count,) = struct.unpack_from("!h", message, at)
        values: list[str | None] = []
        at += 2
        for _ in range(count):
            kind, at = message[at : at + 1], at + 1
            if kind == b"t":
                (length,) = struct.unpack_from("!I", message, at)
                values.append(message[at + 4 : at + 4 + length].decode())
                at += 4 + length
            else:
                values.append(None)
        return values, at
