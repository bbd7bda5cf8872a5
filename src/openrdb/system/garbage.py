"""How often the interpreter looks for objects that only refer to each other."""

from __future__ import annotations

import gc

_YOUNGEST, _OLDER = 50_000, 20


def look_less_often() -> None:
    """Make the collector wait for more new objects than by default; call it before imports.

    What is imported stays: to look at it over and over takes an eighth of the start of `serve`.
    """
    gc.set_threshold(_YOUNGEST, _OLDER, _OLDER)
