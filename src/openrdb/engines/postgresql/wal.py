"""Names of the segments of WAL: the timeline, and the number in two parts, eight digits each."""

from __future__ import annotations

import re
from collections.abc import Collection

_SEGMENT = re.compile(r"[0-9A-F]{24}")
_LOG = 2**32


def is_segment(name: str) -> bool:
    """Return whether a file of that name is a whole segment of WAL."""
    return _SEGMENT.fullmatch(name) is not None


def segments(first: str, last: str, size: int) -> set[str]:
    """Return the names of the segments from one to another, of one timeline."""
    timeline, a_log = first[:8], _LOG // size

    def number(name: str) -> int:
        return int(name[8:16], 16) * a_log + int(name[16:], 16)

    return {
        f"{timeline}{one // a_log:08X}{one % a_log:08X}"
        for one in range(number(first), number(last) + 1)
    }


def has_gap(names: Collection[str], first: str, size: int) -> bool:
    """Return whether a segment is missing between the first one that is needed and the last that there
    is, whatever their timelines: a later one goes on where the former ended."""
    there = {name[8:] for name in names if name[8:] >= first[8:]}
    last = max(there, default="")
    return {name[8:] for name in segments(first, first[:8] + last, size)} != there if last else True


def segment_of(timeline: int, position: str, size: int, *, ends: bool = False) -> str:
    """Return the segment that a position (`0/3000028`) is in.

    Args:
        ends: the position is the end of something: at a segment's beginning the one before is meant.
    """
    high, _, low = position.partition("/")
    found = (int(high, 16) * _LOG + int(low, 16) - ends) // size
    a_log = _LOG // size
    return f"{timeline:08X}{found // a_log:08X}{found % a_log:08X}"
