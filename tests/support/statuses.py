"""Tables of statuses: where they lead to."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def reachable(moves: Mapping[str, Collection[str]], status: str) -> set[str]:
    """The statuses that a resource may be in later, and the one that it is in."""
    found: set[str] = set()
    ahead = {status}
    while ahead:
        found |= ahead
        ahead = {str(after) for before in ahead for after in moves[before]} - found
    return found
