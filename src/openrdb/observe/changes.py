"""Waiting for an instance to change, without asking the database again and again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final
from uuid import UUID

patience: Final = ContextVar("patience", default=math.inf)
"""Seconds that whoever asks waits at most for a status to settle: pages are shown at once."""


class Subscription:
    """Set at each change of one instance, until it has been waited for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout: float) -> bool:
        """Return whether there was a change since the last one waited for, within some seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Changes:
    """Says to waiting requests that an instance's row has changed."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, set[Subscription]] = defaultdict(set)
        self._lock = threading.Lock()

    def announce(self, instance_id: UUID) -> None:
        """Wake up all who wait for this instance; from any thread."""
        with self._lock:
            for subscription in self._waiting.get(instance_id, ()):
                subscription.notify()

    @contextlib.contextmanager
    def of(self, instance_id: UUID) -> Iterator[Subscription]:
        """Yield a subscription to changes from here on; within a running event loop."""
        subscription = Subscription()
        with self._lock:
            self._waiting[instance_id].add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._waiting[instance_id].discard(subscription)
                if not self._waiting[instance_id]:
                    del self._waiting[instance_id]
