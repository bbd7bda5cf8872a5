"""Standbys that cannot be brought back: whoever waits is told, and it is tried ever more seldom."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from openrdb.errors import HostError
from tests.support.pairs import PROTECTED, Pair
from tests.support.service import wait_until
from tests.support.writers import Writers

pytestmark = [pytest.mark.slow]

_COPIES = 3


@contextmanager
def ending_at_once(pair: Pair) -> Iterator[list[int]]:
    """Let the standby end soon after each start; yield the processes that it was."""
    standby, ending = pair.record.standby, threading.Event()
    ended: list[int] = []

    def end() -> None:
        while not ending.wait(0.01):
            pid = pair.pid(standby)
            if pid is not None and pid not in ended:
                pair.signal(standby, signal.SIGKILL)
                ended.append(pid)

    killer = threading.Thread(target=end)
    killer.start()
    try:
        yield ended
    finally:
        ending.set()
        killer.join()


def test_a_standby_that_always_ends_is_not_copied_without_end(
    pair: Pair, writers: Writers, caplog: pytest.LogCaptureFixture
) -> None:
    """Each copy was a success that let the failures before it be forgotten: copies followed each other
    at once, and who waited for the pair was never told."""
    caplog.set_level("INFO")
    with ending_at_once(pair):

        def is_told() -> bool:
            try:
                return pair.agent.host.ensure_pair(*pair.specs, 1.0) and False
            except HostError as error:
                assert "the standby does not start" in error.explanation
                return True

        wait_until(is_told, PROTECTED / 2)
        assert caplog.text.count("the standby's data is being copied") <= _COPIES
        writers.wait_for(20)
    wait_until(lambda: pair.keeper.is_protected, PROTECTED)
