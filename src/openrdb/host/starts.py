"""What came of a program's latest starts."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from openrdb.engines.failures import KILLED
from openrdb.host.backoff import pause_after

_AT_ONCE: Final = 3
"""Failed starts after which the next one waits; and after which a program that ended by itself each
time is failing."""
_KILLED_OFTEN: Final = 10
"""Failed starts after which it is failing whoever ended it: that may be the kernel, for want of
memory."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_ASKED: Final = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGQUIT, 0)
"""Exit statuses of a program that somebody killed or asked to end."""


@dataclass
class Starts:
    """Counts the starts in a row after which a program ended before it did what it is for."""

    failures: int = 0
    own: int = 0
    """Those of them that the program ended by itself: a kill says nothing of whether it can start."""
    reason: str = ""
    """Why the last one ended; empty if it has not."""

    def note_failure(self, reason: str, status: int | None = None) -> None:
        """Note that a start has failed.

        Args:
            status: the exit status, negative for a signal; None if it is not known, or nothing was
                started.
        """
        self.failures += 1
        self.own += reason != KILLED and status not in _ASKED
        self.reason = reason

    def forget(self) -> None:
        """Forget the failed starts: the program runs as it should."""
        self.failures, self.own, self.reason = 0, 0, ""

    @property
    def is_failing(self) -> bool:
        """Whether the program does not start, whatever is tried."""
        return self.own >= _AT_ONCE or self.failures >= _KILLED_OFTEN

    @property
    def pause(self) -> float:
        """Seconds until the next start."""
        if self.failures < _AT_ONCE:
            return 0.0
        return pause_after(self.failures - _AT_ONCE + 1, _FIRST_PAUSE, _LONGEST_PAUSE)
