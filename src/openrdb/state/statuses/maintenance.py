"""The statuses of a planned maintenance."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class MaintenanceStatus(StrEnum):
    PENDING = "pending"
    ONGOING = "ongoing"
    """While its operation is under way."""
    DONE = "done"
    CANCELED = "canceled"
    """There is nothing to apply any more, or it was tried and taken back."""


OPEN: Final = frozenset({MaintenanceStatus.PENDING, MaintenanceStatus.ONGOING})
"""An instance has at most one maintenance in these."""
