"""Markdown as GitHub reads it (CommonMark), written as Python-Markdown, which makes the site, reads it.

They differ in two things that the repository's texts make use of.
There a list or a table may follow text or code without an empty line between, and what belongs to an
item of a list is indented as far as the item's text; here they need the empty line, and four spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ITEM = re.compile(r"( *)([-*+]|\d+\.) +(?=\S)")
_FENCE = re.compile(r" *(```+|~~~+)")


def converted(text: str) -> str:
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    items: list[int] = []
    """Where the text of each item begins that the line may belong to, the outermost first."""
    fence = ""
    before = ""
    first = ""
    """The line that the one before has followed without an empty one."""
    for line in lines:
        if not line.strip():
            yield line
            before = ""
            continue
        if fence:
            yield _moved(line, items)
            if line.strip() == fence:
                fence, before, first = "", line, line
            continue
        indent = len(line) - len(line.lstrip(" "))
        while items and indent < items[-1]:
            items.pop()
        inside = len(items)
        item = _ITEM.match(line)
        if before and _begins(line, before, first):
            yield ""
            before = ""
        yield _moved(line, items)
        if item:
            items = [*items[:inside], item.end()]
        if found := _FENCE.match(line):
            fence = found[1]
        first = first if before else line
        before = "" if line.startswith("#") else line


def _moved(line: str, items: list[int]) -> str:
    """Return a line with four spaces for each item that it belongs to."""
    begin = items[-1] if items else 0
    return " " * 4 * len(items) + (line[begin:] if not line[:begin].strip() else line.lstrip())


def _begins(line: str, before: str, first: str) -> bool:
    """Return whether a list or a table begins that is no part of what the line before belongs to."""
    if _ITEM.match(line):
        return not _ITEM.match(first)
    return _is_row(line) and not _is_row(before)


def _is_row(line: str) -> bool:
    return line.lstrip().startswith("|")
