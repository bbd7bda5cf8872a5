"""What the server's releases differ in."""

from __future__ import annotations


def is_at_least(version: str, major: int, minor: int) -> bool:
    """Return whether a version as the server tells it, `9.7.4` or `8.0.31-…`, is this or later."""
    first, second, *_ = version.split(".")
    return (int(first), int(second)) >= (major, minor)
