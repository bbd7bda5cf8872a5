"""Long work in the background, which callers wait for in turns: no call lasts as long as it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait


class Underway:
    """Work of this process by its key, one at a time each; it ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[str, Future[None]] = {}

    def ensure(self, key: str, do: Callable[[], None], timeout: float) -> bool:
        """Begin some work, unless it is under way, and wait for its end for some seconds.

        What has ended before is begun again, so it has to be work that ensures.

        Returns:
            Whether it has ended; what it raised is raised here.
        """
        with self._lock:
            future = self._futures.get(key)
            if future is None:
                future = self._futures[key] = Future()
                # A daemon's: a process that is to end does not wait for it.
                threading.Thread(target=self._run, args=(key, do, future), daemon=True).start()
        if not wait([future], timeout).done:
            return False
        future.result()
        return True

    def wait_out(self, key: str) -> None:
        """Wait until nothing of that key is under way."""
        with self._lock:
            future = self._futures.get(key)
        if future is not None:
            wait([future])

    def _run(self, key: str, do: Callable[[], None], future: Future[None]) -> None:
        error: BaseException | None = None
        try:
            do()
        except BaseException as raised:
            error = raised
        with self._lock:
            del self._futures[key]
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
