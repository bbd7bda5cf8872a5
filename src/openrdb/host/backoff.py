"""How long to wait before something that failed is tried again."""

from __future__ import annotations

_MOST_DOUBLINGS = 10


def pause_after(failures: int, first: float, longest: float) -> float:
    """Return the seconds to wait after so many failures in a row: twice as long each time, from `first`
    up to `longest`."""
    return min(first * float(2 ** min(failures - 1, _MOST_DOUBLINGS)), longest)
