"""Long work in the background: once at a time, waited for in turns."""

from __future__ import annotations

import threading

import pytest

from openrdb.errors import HostError
from openrdb.host.underway import Underway
from tests.support.service import in_background


def test_it_is_done_once_however_many_wait() -> None:
    underway, go, calls = Underway(), threading.Event(), list[int]()

    def work() -> None:
        calls.append(1)
        go.wait(30)

    for _ in range(3):
        assert not underway.ensure("one", work, 0.01)
    assert underway.ensure("another", lambda: None, 30)
    results = list[bool]()
    waiting = [
        in_background(lambda: results.append(underway.ensure("one", work, 30))) for _ in range(3)
    ]
    waiting.append(in_background(lambda: underway.wait_out("one")))
    go.set()
    for thread in waiting:
        thread.join(30)
    assert results == [True] * 3
    assert 1 <= len(calls) <= 4, "those who came when it had ended began it again"


def test_what_it_raises_is_the_callers_and_it_is_begun_again() -> None:
    underway, failures = Underway(), [HostError("no room")]

    def work() -> None:
        if failures:
            raise failures.pop()

    with pytest.raises(HostError, match="no room"):
        underway.ensure("one", work, 30)
    assert underway.ensure("one", work, 30)
    underway.wait_out("one")
