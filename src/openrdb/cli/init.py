"""`openrdb serve` as the first process of a container that has no init.

Orphans become the first process' children, and somebody has to take their exit status: a killed
server's zombie would otherwise look alive. When a container is to stop, its first process gets SIGTERM
and everything is killed soon after, so SIGTERM ends the databases too, cleanly.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(serve: Callable[[], None], stop: Callable[[], None]) -> int:
    """Serve in a child until it ends or SIGTERM comes, then stop everything.

    Returns:
        The exit code: the serving child's, or 0 after SIGTERM.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    serving = _fork(serve)
    stopping: int | None = None
    code = 0
    while True:
        number = signal.sigwait(_SIGNALS)
        if number == signal.SIGHUP:
            if stopping is None:
                os.kill(serving, signal.SIGHUP)  # which reads its certificate again
            continue
        if number != signal.SIGCHLD:
            stopping = stopping or _fork(stop)
            continue
        for pid, status in _ended():
            if pid == serving and stopping is None:
                code = os.waitstatus_to_exitcode(status)
                stopping = _fork(stop)
            elif pid == stopping:
                return code or os.waitstatus_to_exitcode(status)


def _fork(do: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGHUP, lambda *_: None)  # nothing to read again does no harm
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            do()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except KeyboardInterrupt:
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def _ended() -> list[tuple[int, int]]:
    """Return pids and statuses of all children that have ended."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, status))
