"""Lines in which requests wait for their turn, as coroutines: waiting takes no thread."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


class LineFull(Exception):
    """There is no place left in a line, or nobody came out of it in time."""


@dataclass
class _Line:
    turns: asyncio.Semaphore
    length: int = 0


class Lines:
    """A line a key, there as long as somebody is in it."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}

    @asynccontextmanager
    async def turn(
        self,
        key: Hashable,
        running: int,
        *,
        most: float = math.inf,
        until: float | None = None,
    ) -> AsyncIterator[None]:
        """Wait for a turn.

        Args:
            running: how many have theirs at once.
            most: how many there are in all, with those who wait.
            until: a moment of the running loop's clock.

        Raises:
            LineFull: at once where the line has its most, or at that moment without a turn.
        """
        line = self._lines.setdefault(key, _Line(asyncio.Semaphore(running)))
        if line.length >= most:
            raise LineFull
        line.length += 1
        try:
            await _acquire(line.turns, until)
            try:
                yield
            finally:
                line.turns.release()
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[key]


async def _acquire(turns: asyncio.Semaphore, until: float | None) -> None:
    try:
        async with asyncio.timeout_at(until):
            await turns.acquire()
    except TimeoutError:
        raise LineFull from None


class FairThreads:
    """A few threads for short work: of what many ask for at once, each has a part.

    Five hundred requests of one tenant's wait for each other, and nobody else waits for them.
    """

    def __init__(self, count: int, of_one: int) -> None:
        self._limiter = anyio.CapacityLimiter(count)
        self._of_one = of_one
        self._lines = Lines()

    async def run(self, whose: Hashable, do: Callable[[], T]) -> T:
        """Call a function in a thread when it is its owner's turn, and return its result."""
        async with self._lines.turn(whose, self._of_one):
            return await anyio.to_thread.run_sync(do, limiter=self._limiter)
