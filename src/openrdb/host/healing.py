"""Healing: what should run, runs, whether or not the control plane is there.

The kernel says when a process ends (pidfd); nobody asks again and again. What ends is started again at
once, and with a growing pause when it ends soon after its start each time. Whatever is frozen is
noticed by a look at each second.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import logging
import os
import select
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from openrdb.engines.failures import KILLED
from openrdb.errors import HostError, NodeRemoved, StartFailed
from openrdb.host import processes
from openrdb.host.processes import Program, Running
from openrdb.host.starts import Starts
from openrdb.system.processes import Identity, is_stopped, send, wait_ended

log = logging.getLogger(__name__)

_ROUND = 10.0
"""Seconds between two looks for what no pidfd tells."""
_LOOK = 1.0
"""The same for a process that is stopped (SIGSTOP)."""
_SHORTEST = 0.05
"""Seconds after which the loop looks again for what is due, at the soonest."""
_FROZEN_LOOKS = 2
"""Looks in a row that find a process stopped, after which it is replaced."""
_STEADY = 10.0
"""A program that ran this many seconds has not failed to start."""
_WORKERS = 8
_LAST_WORDS = 1.0
_WATCHERS = 64
"""Starts that are followed at once; a recovery may take minutes."""


@dataclass
class _Kept:
    """A program that is kept running."""

    program: Program
    changed: threading.Condition = field(
        default_factory=lambda: threading.Condition(threading.RLock())
    )
    """Its lock guards everything here; notified at each start, end and failure."""
    wanted: bool = False
    running: Running | None = None
    starts: Starts = field(default_factory=Starts)
    stopped: int = 0
    """Looks in a row that found it stopped."""


@dataclass
class _Task:
    """A function that is called at intervals."""

    do: Callable[[], None]
    interval: float
    due: float = 0.0
    running: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.due = time.monotonic() + self.interval

    def run(self) -> None:
        if self.running.acquire(blocking=False):
            try:
                self.do()
            finally:
                self.running.release()


class Healer:
    """Keeps programs running, each known by its name."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._by_descriptor: dict[int, _Kept] = {}
        self._guard = threading.Lock()
        self._due: list[tuple[float, str]] = []
        self._tasks = [_Task(self._look, _LOOK)]
        self._alarms: dict[int, tuple[socket.socket, Callable[[], None]]] = {}
        self._on_change: Callable[[str], None] = lambda _: None
        self._epoll = select.epoll()
        self._waking, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._waking, select.EPOLLIN)
        self._finalize = weakref.finalize(self, _close, self._epoll, self._waking, self._woken)
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="healer")
        self._watchers = ThreadPoolExecutor(_WATCHERS, thread_name_prefix="starts")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="healer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop healing; programs run on."""
        self._stopping.set()
        self._wake()
        was_started = self._thread.ident is not None
        if was_started:
            self._thread.join()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._watchers.shutdown(wait=False, cancel_futures=True)
        if not was_started:  # else what is under way in the background may still use them
            self._finalize()

    def every(self, seconds: float, do: Callable[[], None]) -> None:
        """Call a function in the background every so many seconds, never twice at once."""
        self._tasks.append(_Task(do, seconds))

    def each_round(self, do: Callable[[], None]) -> None:
        """Call a function in the background every few seconds."""
        self.every(_ROUND, do)

    def on_alarm(self, alarm: socket.socket, do: Callable[[], None]) -> None:
        """Call a function in the background when a socket becomes readable."""
        self._alarms[alarm.fileno()] = (alarm, do)
        self._epoll.register(alarm, select.EPOLLIN)

    def on_change(self, do: Callable[[str], None]) -> None:
        """Call a function with the program's name after each start, end and failure."""
        self._on_change = do

    def in_background(self, do: Callable[[], None]) -> None:
        """Do something that nobody waits for."""

        self._workers.submit(_guarded, do)

    # -- what is to run ------------------------------------------------------------------------

    def keep(self, program: Program, *, forgets_failures: bool = True) -> None:
        """Keep a program running from now on, starting it if it does not run; one that is not restarted
        by itself is started this once.

        Args:
            forgets_failures: Forget that earlier starts failed.

        Raises:
            HostError: it cannot be started; it is tried again nevertheless.
        """
        kept = self._entry(program)
        with kept.changed:
            kept.program, kept.wanted = program, True
            if kept.running is None:
                if forgets_failures:
                    kept.starts.forget()
                self._start(kept)

    def adopt(self, program: Program) -> Identity | None:
        """Watch a program that runs, and return its main process; None if it does not run."""
        kept = self._entry(program)
        with kept.changed:
            kept.program, kept.wanted = program, True
            if kept.running is not None and wait_ended([kept.running.descriptor], 0.0):
                self._note_end(kept, kept.running)  # before the loop hears of it
            if kept.running is None:
                self._adopt(kept)
            return kept.running.identity if kept.running is not None else None

    def kill_all(self, program: Program) -> None:
        """Kill a program to its last process, whatever it is doing; a no-op if it does not run.

        Raises:
            HostError: something of it does not end.
        """
        kept = self._entry(program)
        with kept.changed:
            if kept.running is None:
                self._adopt(kept)
            running = kept.running
            self._forget(kept)
            processes.kill(program, running)
            self._tell(kept)

    def keep_later(self, program: Program) -> None:
        """Keep a program running from now on, adopting or starting it in the background."""
        kept = self._entry(program)
        with kept.changed:
            kept.program, kept.wanted = program, True
            if kept.running is None:
                self._workers.submit(self._revive, kept)

    def release(self, program: Program, *, at_once: bool = False) -> bool:
        """End a program, which is not started again; a no-op if it does not run.

        Args:
            at_once: as for `processes.end`.

        Returns:
            Whether it did not have to be killed.

        Raises:
            HostError: something of it does not end.
        """
        kept = self._entry(program)
        with kept.changed:
            kept.wanted = False
            if kept.running is None:
                self._adopt(kept)
            running = kept.running
            self._forget(kept)
            has_ended = processes.end(program, running, at_once=at_once)
            self._tell(kept)
            return has_ended

    def remove(self, program: Program) -> None:
        """End a program and drop all knowledge of it."""
        self.release(program)
        with self._guard:
            self._kept.pop(program.name, None)

    def release_all(self, programs: Iterable[Program]) -> None:
        """End programs, as many at once as there are workers."""
        for future in [self._workers.submit(self.release, program) for program in programs]:
            future.result()

    def restart(self, program: Program) -> None:
        """End a program and start it again at once, to be kept running from now on.

        A start that fails is tried again; who waits for the program is told.

        Raises:
            HostError: something of it does not end.
        """
        kept = self._entry(program)
        with kept.changed:
            self.release(program)
            with contextlib.suppress(HostError):
                self.keep(program)

    def replace(self, program: Program) -> None:
        """End a program and start it again, if it is kept running; a no-op if it is not."""
        with self._guard:
            kept = self._kept.get(program.name)
        if kept is None:
            return
        with kept.changed:
            if kept.wanted and kept.running is not None:
                self.restart(program)

    def kill_main(self, program: Program) -> None:
        """Kill a program's main process, whatever else is being done to it; a no-op if it does not run.

        It is started again, as whenever it ends, if it is kept running.
        """
        with self._guard:
            kept = self._kept.get(program.name)
            running = kept.running if kept else None
            # Its descriptor is closed only after it is forgotten there.
            if running is not None and self._by_descriptor.get(running.descriptor) is kept:
                send(running.descriptor, signal.SIGKILL)

    # -- what runs -----------------------------------------------------------------------------

    def pid(self, name: str) -> int | None:
        """Return the pid of a program's main process; None if it does not run."""
        with self._guard:
            kept = self._kept.get(name)
        running = kept.running if kept else None
        return running.pid if running else None

    def reason(self, name: str) -> str:
        """Return why a program that should run does not; empty if it does."""
        with self._guard:
            kept = self._kept.get(name)
        return kept.starts.reason if kept else ""

    def is_failing(self, name: str) -> bool:
        """Return whether a program that should run does not: several starts in a row failed."""
        with self._guard:
            kept = self._kept.get(name)
        return kept is not None and kept.running is None and kept.starts.is_failing

    def wait_running(
        self,
        program: Program,
        timeout: float,
        other_than: int | None = None,
        *,
        patient: bool = False,
    ) -> int:
        """Return the pid of a program that is kept running, once it runs by another pid than one
        that is known to have ended.

        Raises:
            StartFailed: it ended by itself soon after each of several starts; its own words say why.
                Not for the patient: it is started again, and may stay.
            HostError: it does not run within some seconds.
        """
        kept = self._entry(program)

        def runs() -> bool:
            return kept.running is not None and kept.running.pid != other_than

        with kept.changed:
            kept.changed.wait_for(
                lambda: runs() or (kept.starts.is_failing and not patient) or not kept.wanted,
                timeout,
            )
            if kept.running is not None and runs():
                return kept.running.pid
            if kept.starts.is_failing:
                raise StartFailed(kept.starts.reason)
            raise HostError(f"{program.name} does not run")

    def note_steady(self, program: Program) -> None:
        """Take a start for successful: the program does what it is for."""
        kept = self._entry(program)
        with kept.changed:
            kept.starts.forget()

    # -- the loop ------------------------------------------------------------------------------

    def _entry(self, program: Program) -> _Kept:
        with self._guard:
            return self._kept.setdefault(program.name, _Kept(program))

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._woken, b".")

    def _loop(self) -> None:
        while not self._stopping.is_set():
            now = time.monotonic()
            for task in self._tasks:
                if now >= task.due and not task.running.locked():
                    task.due = now + task.interval
                    self.in_background(task.run)
            for descriptor, _ in self._epoll.poll(max(self._next_due() - now, 0)):
                self._handle(descriptor)
            self._start_due()

    def _next_due(self) -> float:
        soonest = min(max(task.due, time.monotonic() + _SHORTEST) for task in self._tasks)
        with self._guard:
            return min(soonest, self._due[0][0]) if self._due else soonest

    def _handle(self, descriptor: int) -> None:
        if descriptor == self._waking:
            with contextlib.suppress(BlockingIOError):
                os.read(self._waking, 4096)
        elif descriptor in self._alarms:
            alarm, do = self._alarms[descriptor]
            _silence(alarm)
            self.in_background(do)
        elif (kept := self._unwatch(descriptor)) is not None:
            self.in_background(lambda: self._ended(kept))

    def _start_due(self) -> None:
        due = []
        with self._guard:
            while self._due and self._due[0][0] <= time.monotonic():
                due.append(heapq.heappop(self._due)[1])
            found = [self._kept[name] for name in due if name in self._kept]
        for kept in found:
            self._workers.submit(self._revive, kept)

    def _look(self) -> None:
        with self._guard:
            kept = list(self._kept.values())
        for one in kept:
            running = one.running
            frozen = running is not None and is_stopped(running.pid)
            one.stopped = one.stopped + 1 if frozen else 0
            if running is not None and one.stopped >= _FROZEN_LOOKS:
                log.warning("%s is frozen: replacing it", one.program.name)
                self.kill_main(one.program)

    # -- one program ---------------------------------------------------------------------------

    def _watch(self, kept: _Kept, running: Running) -> None:
        kept.running, kept.stopped = running, 0
        self._hear_of(kept, running)
        self._tell(kept)

    def _hear_of(self, kept: _Kept, running: Running) -> None:
        """Hear when a process ends; a no-op where that is so already."""
        with self._guard:
            if running.descriptor not in self._by_descriptor:
                self._by_descriptor[running.descriptor] = kept
                self._epoll.register(running.descriptor, select.EPOLLIN)

    def _forget(self, kept: _Kept) -> None:
        """Stop watching a process; its parent reaps it."""
        if kept.running is not None:
            self._unwatch(kept.running.descriptor)
            kept.running = None

    def _unwatch(self, descriptor: int) -> _Kept | None:
        # Both at once: the number of a closed descriptor is soon another's.
        with self._guard:
            kept = self._by_descriptor.pop(descriptor, None)
            if kept is not None:
                self._epoll.unregister(descriptor)
            return kept

    def _adopt(self, kept: _Kept) -> bool:
        running = processes.adopt(kept.program)
        if running is not None:
            self._watch(kept, running)
        return running is not None

    def _start(self, kept: _Kept) -> None:
        """Adopt or start it; a failure is noted, and the next attempt planned."""
        try:
            if self._adopt(kept):
                return
            kept.program.prepare()
            self._watch(kept, processes.start(kept.program))
            self._follow(kept.program, kept.running)
        except (HostError, OSError) as error:
            self._note_failure(kept, str(error))
            raise HostError(str(error)) from error

    def _follow(self, program: Program, running: Running | None) -> None:
        if program.watch is not None and running is not None:
            self._watchers.submit(_guarded, partial(program.watch, running.pid))

    def _revive(self, kept: _Kept) -> None:
        with kept.changed:
            is_ours = kept.wanted and kept.program.is_restarted
            if is_ours and kept.running is None and not self._stopping.is_set():
                with contextlib.suppress(HostError):
                    self._start(kept)

    def _ended(self, kept: _Kept) -> None:
        """Take note of a program's end, which somebody may have done already.

        Its descriptor says nothing: that number may be the next process' by now.
        """
        with kept.changed:
            running = kept.running
            if running is None:
                return  # ended on purpose
            if wait_ended([running.descriptor], 0.0):
                self._note_end(kept, running)
            else:
                self._hear_of(kept, running)

    def _note_end(self, kept: _Kept, running: Running) -> None:
        """Take note of a program's end, and start it again if that is wanted."""
        self._unwatch(running.descriptor)
        kept.running = None
        status = running.reap()
        if not kept.wanted or self._stopping.is_set():
            return
        if time.monotonic() - running.started < _STEADY:
            # What is killed has no last words; those in its files are of another time. What ends
            # by itself may have a process that still writes them down.
            was_killed = status == -signal.SIGKILL
            if not was_killed and kept.program.is_restarted:
                processes.wait_gone(kept.program, _LAST_WORDS)
            self._note_failure(kept, KILLED if was_killed else kept.program.explain(), status)
        elif kept.program.is_restarted:
            log.warning("%s ended: starting it again", kept.program.name)
            kept.starts.forget()
            self._revive(kept)
        else:
            kept.starts.forget()
            self._tell(kept)

    def _note_failure(self, kept: _Kept, reason: str, status: int | None = None) -> None:
        if not kept.starts.failures or reason != kept.starts.reason:
            log.warning("%s does not run: %s", kept.program.name, reason)
        kept.starts.note_failure(reason, status)
        with self._guard:
            due = time.monotonic() + kept.starts.pause
            heapq.heappush(self._due, (due, kept.program.name))
        self._tell(kept)
        self._wake()

    def _tell(self, kept: _Kept) -> None:
        kept.changed.notify_all()
        self._on_change(kept.program.name)


def _close(epoll: select.epoll, *descriptors: int) -> None:
    epoll.close()
    for descriptor in descriptors:
        os.close(descriptor)


def _guarded(do: Callable[[], None]) -> None:
    try:
        do()
    except NodeRemoved:
        log.debug("work in the background ended: its node has been removed")
    except Exception:
        log.exception("work in the background failed")


def _silence(alarm: socket.socket) -> None:
    """Read what an alarm says: only that it says something is of interest."""
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                alarm.recv(65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # it had more to say than it can keep
                    raise
