"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or nothing if it would have no rows."""
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    if not lines:
        return ""
    head = "| " + " | ".join(columns) + " |"
    return "\n".join([head, "|" + " --- |" * len(columns), *lines, ""])


def cell(text: str) -> str:
    """Return a text as a cell may have it: on one line, and without a bar of its own."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """Return a text as code, whatever quotes it has; nothing for an empty one."""
    shown = str(text)
    if "`" in shown:
        return f"`` {shown} ``"
    return f"`{shown}`" if shown else ""
