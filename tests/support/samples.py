"""Tests of which a run takes a part only."""

from __future__ import annotations

from collections.abc import Collection

import pytest


def leave_out(
    config: pytest.Config, items: list[pytest.Item], left_out: Collection[pytest.Item]
) -> None:
    """Do not run some of the collected tests, and count them as deselected."""
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
