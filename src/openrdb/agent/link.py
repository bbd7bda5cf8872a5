"""The control plane's link to this machine's agent: started, watched, and replaced when frozen."""

from __future__ import annotations

import logging
import signal
import threading

from openrdb.agent import keeper, settings
from openrdb.agent.client import AgentConnection, remote_host
from openrdb.agent.settings import AgentSettings
from openrdb.build import build
from openrdb.errors import HostError, HostUnavailable
from openrdb.host.base import PROTOCOL, Host
from openrdb.spec import HostState
from openrdb.system import accounts, files, locks, processes
from openrdb.system.layout import Layout
from openrdb.system.processes import Identity

log = logging.getLogger(__name__)

_UP_TIMEOUT = 60.0
_LOOK = 5.0
"""Seconds between two looks whether keeper and agent answer."""
_FROZEN = 10.0
"""Seconds without an answer after which an agent is taken for frozen."""
_LOOKS = 3
"""Looks in a row without an answer after which it is replaced: it may just be starting."""


class AgentLink:
    """This machine's agent, of this very build, kept running."""

    def __init__(self, layout: Layout, wanted: AgentSettings) -> None:
        self._layout = layout
        self._wanted = wanted
        self._keeper = keeper.keeper_of(layout)
        self._connection = AgentConnection(layout.agent_socket, settings.token(layout))
        self.host: Host = remote_host(self._connection)
        self._silent: Identity | None = None
        """The agent that was looked at last, and how often in a row it did not answer."""
        self._silences = 0
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="agent-watch", daemon=True)

    def open(self) -> HostState:
        """Make sure that an agent of this build runs, and watch it; return its state.

        Raises:
            HostError: it does not start.
        """
        accounts.passable_directory(self._layout.run)
        changed = settings.write(self._layout, self._wanted)
        keeper.end_predecessors(self._layout)
        if changed or not self._is_current():
            self._end_agent()
        files.remove_file(self._layout.agent_refusal)
        self._keeper.ensure_up()
        started = files.wait_for(self._layout.run, self._is_settled, _UP_TIMEOUT)
        if started and (why := self._refusal()):
            raise HostError(why)
        if not started:
            raise HostError(f"the agent does not start; see {self._layout.run / 'agent.log'}")
        self._watcher.start()
        return self._connection.ask_state(_FROZEN)

    def close(self) -> None:
        """Stop watching; the agent keeps running."""
        self._stopping.set()
        if self._watcher.ident is not None:
            self._watcher.join()
        self._connection.close()

    def _is_settled(self) -> bool:
        return self._is_current() or self._refusal() is not None

    def _refusal(self) -> str | None:
        """Return why the agent does not start; None if it says nothing."""
        try:
            return self._layout.agent_refusal.read_text()
        except FileNotFoundError:
            return None

    def _is_current(self) -> bool:
        try:
            state = self._connection.ask_state(_FROZEN)
        except HostError:  # it does not answer, or refuses this token: the state was restored
            return False
        return state.build == build() and state.protocol == PROTOCOL

    def _end_agent(self) -> None:
        """End an agent of another build, with other settings, or that does not answer."""
        if (agent := self._agent()) is not None:
            _end(agent)

    def _agent(self) -> Identity | None:
        return locks.holder(self._layout.agent_lock)

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK):
            try:
                self._look()
            except HostError as error:
                log.warning("the agent is not kept: %s", error)
            except Exception:
                log.exception("watching the agent failed; it is tried again")

    def _look(self) -> None:
        """Let keeper and agent be there, and end an agent that is frozen: not its successor."""
        self._keeper.ensure_up()
        agent = self._agent()
        if agent != self._silent:
            self._silent, self._silences = agent, 0
        if agent is not None and processes.is_stopped(agent.pid):
            log.warning("replacing the agent: it was stopped (SIGSTOP)")
            _end(agent)
        try:
            self._connection.ask_state(_FROZEN)
            self._silences = 0
        except HostUnavailable as error:
            self._silences += 1
            if self._silences >= _LOOKS and agent is not None:
                self._silences = 0
                log.warning("replacing the agent: %s", error)
                _end(agent)


def _end(agent: Identity) -> None:
    """End an agent; what it started runs on."""
    processes.end(agent, signal.SIGTERM, _FROZEN)
