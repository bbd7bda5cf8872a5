"""Which nodes of a host have changed since somebody last asked."""

from __future__ import annotations

import threading
from uuid import UUID


class NodeChanges:
    """Counts changes, so that whoever follows a host hears of changed nodes only."""

    def __init__(self) -> None:
        self._count = 0
        self._changed_at: dict[UUID, int] = {}
        self._changed = threading.Condition()

    def note(self, node_id: UUID) -> None:
        """Note that a node has changed, and wake those who wait."""
        with self._changed:
            self._count += 1
            self._changed_at[node_id] = self._count
            self._changed.notify_all()

    def forget(self, node_id: UUID) -> None:
        """Drop what is known of a node that was removed."""
        with self._changed:
            self._changed_at.pop(node_id, None)

    def wait(self, since: int, timeout: float) -> tuple[int, list[UUID]]:
        """Wait for a change after `since`, or for some seconds.

        Returns:
            The count of changes so far, and the nodes that changed after `since`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._count != since, timeout)
            changed = [one for one, count in self._changed_at.items() if count > since]
            return self._count, changed
