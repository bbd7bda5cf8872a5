"""What schedules have in common: a thread that looks when something is due, and at least so often."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from openrdb.errors import NotFound, PreconditionFailed, TransientState
from openrdb.operations.begin import record_scheduled
from openrdb.operations.registry import Operation
from openrdb.operations.run import Services
from openrdb.state.models import Instance, now

log = logging.getLogger(__name__)


class Schedule:
    """Looks, when the next thing is due and at least every `schedule_round`, what there is to begin."""

    name: str
    """What it begins, as its thread is called."""

    def __init__(
        self,
        services: Services,
        start: Callable[[UUID], None],
        clock: Callable[[], datetime] = now,
        wake: threading.Event | None = None,
    ) -> None:
        """`wake`: set at the end of what it may be waiting for."""
        self._services = services
        self._start = start
        self._clock = clock
        self._wake = wake or threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Begin nothing any more."""
        self._closing = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def round(self) -> float:
        """Begin what is due; return in how many seconds something is due next."""
        raise NotImplementedError

    def _run(self) -> None:
        longest = self._services.settings.schedule_round
        while not self._closing:
            self._wake.clear()
            left = longest
            try:
                left = min(self.round(), longest)
            except Exception:
                log.exception("the schedule of %s failed; it is tried again", self.name)
            if not self._closing:
                self._wake.wait(left)

    def _seconds_to(self, moment: datetime | None) -> float:
        """Return how long there is until a moment; None: for ever."""
        if moment is None:
            return float("inf")
        return max(0.0, (moment - self._clock()).total_seconds())

    def _record(
        self, operation: Operation, change: Callable[[Instance], None] | None = None
    ) -> bool:
        """Record and start an operation; return whether its subject allows it."""
        try:
            with self._services.database.write() as session:
                recorded = record_scheduled(session, operation).id
                if change is not None:
                    change(session.get_one(Instance, operation.subject_id))
        except (TransientState, PreconditionFailed, NotFound):
            return False  # it has changed since it was looked at
        self._start(recorded)
        self._services.changes.announce(operation.subject_id)
        return True
