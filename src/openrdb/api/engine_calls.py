"""Where requests wait for tenants' engines: in a bounded line an instance, apart from all others.

A tenant can make their engine answer late: by a lock, a large catalogue, or all connections taken.
Calls wait for their turn without a thread. Those that run have threads that nothing else needs, and no
project has all of them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from openrdb.api.lines import LineFull, Lines
from openrdb.errors import Busy
from openrdb.state.models import Instance

T = TypeVar("T")

_OF_PROJECT = 24
_IN_ALL = 96
"""Calls that run at once, each in a thread; what waits beyond these bounds waits without."""
_PATIENCE = 30.0
"""Seconds that a call waits for its turn, in all lines together; whoever asked gives up soon after."""


class Kind(Enum):
    """What an engine is asked for: calls of an instance that run at once, and that wait for them.

    One change at a time, as changes take turns anyway. With two reads that makes three sessions, the
    number of connections that PostgreSQL keeps for its superuser.
    """

    READ = ("read", 2, 16)
    CHANGE = ("change", 1, 16)
    CHECK = ("check", 1, 8)
    """An engine's program that looks at settings; it needs no session."""

    @property
    def running(self) -> int:
        return self.value[1]

    @property
    def most(self) -> int:
        return self.value[1] + self.value[2]


class EngineCalls:
    """All calls of this process that wait for engines; there is one."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._threads = anyio.CapacityLimiter(math.inf)  # the lines are the bound

    async def run(self, instance: Instance, kind: Kind, do: Callable[[], T]) -> T:
        """Call a function in a thread when it is the instance's turn, and return its result.

        Raises:
            Busy: too many calls of the kind wait for the instance already; nothing was called.
        """
        until = asyncio.get_running_loop().time() + _PATIENCE
        turn = partial(self._lines.turn, until=until)
        try:
            async with (
                turn((instance.id, kind), kind.running, most=kind.most),
                turn(instance.project_id, _OF_PROJECT),
                turn(None, _IN_ALL),
            ):
                return await anyio.to_thread.run_sync(do, limiter=self._threads)
        except LineFull:
            raise Busy(str(instance.id), instance.status) from None
