"""Whether a program can start: what it does by itself tells, a few kills do not."""

from __future__ import annotations

import signal

import pytest

from openrdb.engines.failures import KILLED
from openrdb.host.starts import Starts

ASKED = [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGQUIT, 0]


def after(*ends: tuple[str, int | None]) -> Starts:
    starts = Starts()
    for reason, status in ends:
        starts.note_failure(reason, status)
    return starts


@pytest.mark.parametrize("status", [1, -signal.SIGSEGV, None])
def test_ends_by_itself(status: int | None) -> None:
    end = ("the port is taken", status)
    assert [after(*[end] * count).is_failing for count in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("status", ASKED)
def test_a_few_kills_say_nothing(status: int) -> None:
    assert not after(*[("any words", status)] * 9).is_failing
    assert after(*[("any words", status)] * 10).is_failing  # as for want of memory


def test_kills_of_another_process_of_it_say_nothing() -> None:
    assert not after(*[(KILLED, 1)] * 9).is_failing


def test_kills_excuse_nothing() -> None:
    own, killed = ("the port is taken", 1), (KILLED, -signal.SIGKILL)
    assert after(own, killed, own, killed, own).is_failing


def test_what_runs_is_forgiven() -> None:
    starts = after(*[("the port is taken", 1)] * 3)
    starts.forget()
    assert (starts.is_failing, starts.reason, starts.pause) == (False, "", 0.0)


def test_pauses_grow() -> None:
    pauses = [after(*[("the port is taken", 1)] * count).pause for count in range(20)]
    assert pauses[:6] == [0.0, 0.0, 0.0, 0.2, 0.4, 0.8]
    assert pauses[-1] == 10.0
