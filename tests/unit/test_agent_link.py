"""How the control plane watches its machine's agent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrdb.agent import link
from openrdb.agent.link import AgentLink
from openrdb.errors import HostUnavailable
from openrdb.system import locks
from openrdb.system.layout import Layout
from tests.support.service import wait_until

_HOLDS = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
time.sleep(600)
"""


class Agents:
    """Processes that have the agent's lock, one after the other, and answer nothing."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self.running = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", _HOLDS, self._lock])
        wait_until(lambda: (holder := locks.holder(self._lock)) and holder.pid == process.pid)
        return process

    def replace(self) -> None:
        self.end()
        self.running = self._start()

    def end(self) -> None:
        self.running.kill()
        self.running.wait()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    made = Agents(Layout(tmp_path).agent_lock)
    yield made
    made.end()


class Silent:
    """A connection to an agent that never answers, and is another one at the third question."""

    def __init__(self, watched: AgentLink, agents: Agents, asked_most: int) -> None:
        self._watched, self._agents, self._most, self.asked = watched, agents, asked_most, 0

    def ask_state(self, _: float) -> None:
        self.asked += 1
        if self.asked == 3:
            self._agents.replace()
        if self.asked == self._most:
            self._watched._stopping.set()
        raise HostUnavailable("it does not answer")


class Kept:
    def ensure_up(self) -> None: ...


@pytest.mark.parametrize(("looks", "is_ended"), [(4, False), (6, True)])
def test_an_agent_is_not_ended_for_the_silence_of_another_one(
    tmp_path: Path, agents: Agents, monkeypatch: pytest.MonkeyPatch, looks: int, is_ended: bool
) -> None:
    monkeypatch.setattr(link, "_LOOK", 0.0)
    watched = AgentLink.__new__(AgentLink)
    watched._layout, watched._silent, watched._silences = Layout(tmp_path), None, 0
    watched._stopping = link.threading.Event()
    watched._keeper = Kept()  # type: ignore[assignment]
    watched._connection = Silent(watched, agents, looks)  # type: ignore[assignment]
    watched._watch()
    assert (agents.running.poll() is not None) == is_ended
