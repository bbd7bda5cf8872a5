"""ELF files: the libraries they need, and the directories in which the loader looks for these.

A program's DT_RPATH also counts for the libraries of its libraries and for modules loaded later;
DT_RUNPATH counts for the file's own needs only. See docs/decisions.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openrdb.errors import HostError

_MAGIC = b"\x7fELF\x02\x01"
"""64 bits, little endian."""
_SEGMENT_LOAD, _SEGMENT_DYNAMIC = 1, 2
_END, _NEEDED, _STRINGS, _RPATH, _RUNPATH = 0, 1, 5, 15, 29


@dataclass(frozen=True)
class _Entry:
    """An entry of the dynamic section."""

    place: int
    """Its offset in the file."""
    tag: int
    value: int


class _Elf:
    def __init__(self, content: bytes) -> None:
        self._content = content
        (table,) = struct.unpack_from("<Q", content, 32)
        size, count = struct.unpack_from("<HH", content, 54)
        self._segments = [
            struct.unpack_from("<IIQQQQ", content, table + i * size) for i in range(count)
        ]
        self.entries = list(self._entries())
        addresses = (entry.value for entry in self.entries if entry.tag == _STRINGS)
        self._strings = next((self._offset(address) for address in addresses), 0)

    def place_of_string(self, entry: _Entry) -> int:
        return self._strings + entry.value

    def string(self, entry: _Entry) -> str:
        place = self.place_of_string(entry)
        return self._content[place : self._content.index(b"\0", place)].decode()

    def _entries(self) -> Iterator[_Entry]:
        for kind, _, offset, _, _, size in self._segments:
            if kind == _SEGMENT_DYNAMIC:
                for place in range(offset, offset + size, 16):
                    tag, value = struct.unpack_from("<QQ", self._content, place)
                    if tag == _END:
                        return
                    yield _Entry(place, tag, value)

    def _offset(self, address: int) -> int:
        """Return the place in the file of what is loaded at an address."""
        for kind, _, offset, start, _, size in self._segments:
            if kind == _SEGMENT_LOAD and start <= address < start + size:
                return int(offset + address - start)
        raise HostError("a damaged ELF file")


def files(root: Path) -> list[Path]:
    """Return the programs and libraries below a directory, links left out."""
    return [path for path in sorted(root.rglob("*")) if not path.is_symlink() and _is_elf(path)]


def needed(path: Path) -> list[str]:
    """Return the names of the libraries that a program or library is linked with."""
    elf = _Elf(path.read_bytes())
    return [elf.string(entry) for entry in elf.entries if entry.tag == _NEEDED]


def search_in(path: Path, directory: str) -> None:
    """Turn the search path that a file was built with into a DT_RPATH of one directory.

    A file without a search path is left alone: that of the program that loads it counts.

    Raises:
        HostError: the new path is longer than the one in the file.
    """
    content = path.read_bytes()
    elf = _Elf(content)
    for entry in elf.entries:
        if entry.tag in {_RPATH, _RUNPATH}:
            if len(directory) > len(elf.string(entry)):
                raise HostError(f"{path.name}: its search path has no room for {directory}")
            with path.open("r+b") as file:
                file.seek(entry.place)
                file.write(struct.pack("<Q", _RPATH))
                file.seek(elf.place_of_string(entry))
                file.write(directory.encode() + b"\0")


def _is_elf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
