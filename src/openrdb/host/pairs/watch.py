"""Whether the processes of a pair live: the kernel tells at once when one ends."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from uuid import UUID

from openrdb.system import processes
from openrdb.system.processes import Identity


class Watch:
    """The main processes of some servers, each by a pidfd."""

    def __init__(self, adopt: Callable[[UUID], Identity | None]) -> None:
        self._adopt = adopt
        self._lock = threading.RLock()
        self._known: dict[UUID, tuple[Identity, int]] = {}
        self._is_closed = False
        self._waking, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def lives(self, node_id: UUID) -> bool:
        """Return whether a server's main process lives, as of this moment."""
        with self._lock:
            known = self._known.get(node_id)
            if known is not None:
                if not processes.wait_ended([known[1]], 0.0):
                    return True
                self.forget(node_id)
            identity = self._adopt(node_id)
            descriptor = processes.open_pidfd(identity) if identity is not None else None
            if identity is None or descriptor is None:
                return False
            self._known[node_id] = (identity, descriptor)
            return True

    def pid(self, node_id: UUID) -> int | None:
        """Return the pid of a server that lives."""
        with self._lock:
            return self._known[node_id][0].pid if self.lives(node_id) else None

    def accepts_nobody(self, node_id: UUID) -> bool:
        """Return whether a server's main process is stopped (SIGSTOP): whoever has a session may go on,
        and nobody comes in."""
        pid = self.pid(node_id)
        return pid is not None and processes.is_stopped(pid)

    def is_frozen(self, node_id: UUID) -> bool:
        """Return whether one of a server's processes is stopped (SIGSTOP): the others wait for it."""
        pid = self.pid(node_id)
        return pid is not None and processes.is_frozen(pid)

    def resume(self, node_id: UUID) -> bool:
        """Let the stopped processes (SIGSTOP) of a server go on; return whether there were any.

        A no-op where its main process is stopped too. Else it is as if they had been slow.
        """
        pid = self.pid(node_id)
        return pid is not None and processes.resume_children(pid)

    def forget(self, node_id: UUID) -> None:
        """Look again at the next question: the server was ended or started on purpose."""
        with self._lock:
            if (known := self._known.pop(node_id, None)) is not None:
                os.close(known[1])

    def wait(self, timeout: float) -> None:
        """Return when a known process ends, at `wake`, or after some seconds."""
        poll = select.poll()
        poll.register(self._waking, select.POLLIN)
        with self._lock:
            # Of our own: another thread may forget a process, and close its descriptor.
            watched = [os.dup(descriptor) for _, descriptor in self._known.values()]
        try:
            for descriptor in watched:
                poll.register(descriptor, select.POLLIN)
            poll.poll(timeout * 1000)
        finally:
            for descriptor in watched:
                os.close(descriptor)
        with contextlib.suppress(BlockingIOError):
            os.read(self._waking, 4096)

    def wake(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            if not self._is_closed:
                os.write(self._woken, b".")

    def close(self) -> None:
        with self._lock:
            for node_id in list(self._known):
                self.forget(node_id)
            self._is_closed = True
            os.close(self._waking)
            os.close(self._woken)
