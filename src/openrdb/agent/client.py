"""The control plane's side of the connection: the `Host` interface, each verb a call to the agent.

Verbs ensure, so a call that broke off, as when the agent is being replaced, is simply made again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import httpx

from openrdb import logs
from openrdb.agent.wire import PROTOCOL_HEADER, REQUEST_HEADER, VERBS, Verb, decode_error
from openrdb.errors import HostUnavailable
from openrdb.host.base import PROTOCOL, Host
from openrdb.spec import HostState
from openrdb.system import files

_BACK = 30.0
"""Seconds in which an agent that ended is back: its keeper starts it again."""
_ANSWER = 60.0
_LONG = 360.0
_LONG_VERBS = frozenset(
    {
        "changed_nodes",
        "check_configuration",
        "ensure_accepting",
        "ensure_bootstrapped",
        "ensure_no_pair",
        "ensure_no_snapshot",
        "ensure_no_volume",
        "ensure_nothing_written",
        "ensure_reloaded",
        "ensure_restarted",
        "ensure_room",
        "ensure_stopped",
        "ensure_taken_over",
        "ensure_volume",
        "ensure_writable",
        "obstacle_to_copying",
        "obstacle_to_following",
        "start_restore",
        "administer",
        "stop_job",
        "wait_for_job",
        "wait_for_transfer",
    }
)
"""Verbs that wait for an engine."""
_UNBOUNDED = 24 * 3600.0
_UNBOUNDED_VERBS = frozenset({"ensure_upgrade_completed"})
"""Verbs that take as long as there is data."""
_CONNECTIONS = 512


class AgentConnection:
    """Calls of verbs to one agent; any number of threads may use it."""

    def __init__(self, socket: Path, token: str) -> None:
        self._socket = socket
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(
                uds=str(socket),
                limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=32),
            ),
            base_url="http://agent/v1/",
            headers={"authorization": f"Bearer {token}", PROTOCOL_HEADER: str(PROTOCOL)},
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def ask_state(self, timeout: float) -> HostState:
        """Return what the agent says of itself, asked once.

        Raises:
            HostUnavailable: it does not answer.
        """
        verb = VERBS["state"]
        try:
            return cast(HostState, self._post(verb, {}, timeout))
        except httpx.TransportError as error:
            raise HostUnavailable(f"the agent does not answer: {error}") from error

    def call(self, verb: Verb, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a verb, again where the connection broke off.

        Raises:
            HostUnavailable: the agent is not back within some seconds.
            OpenRDBError: what the agent refused with.
        """
        timeout = _LONG if verb.name in _LONG_VERBS else _ANSWER
        if verb.name in _UNBOUNDED_VERBS:
            timeout = _UNBOUNDED
        deadline = time.monotonic() + _BACK
        while True:
            try:
                return self._post(verb, arguments, timeout)
            except httpx.TransportError as error:
                left = deadline - time.monotonic()
                if left <= 0 or not self._wait_back(left):
                    raise HostUnavailable(f"the agent does not answer: {error}") from error

    def _post(self, verb: Verb, arguments: dict[str, Any], timeout: float) -> Any:  # noqa: ANN401
        request_id = logs.subject(logs.REQUEST)
        headers = {REQUEST_HEADER: request_id} if request_id else None
        answer = self._client.post(verb.name, json=arguments, headers=headers, timeout=timeout)
        plain = answer.json()
        if answer.status_code != 200:
            raise decode_error(plain)
        return verb.result.validate_python(plain["result"])

    def _wait_back(self, timeout: float) -> bool:
        """Return whether the agent answers within some seconds."""

        def answers() -> bool:
            try:
                self.ask_state(min(timeout, 5.0))
            except HostUnavailable:
                return False
            return True

        return files.wait_for(self._socket.parent, answers, timeout)


class _RemoteHost:
    def __init__(self, connection: AgentConnection) -> None:
        for name, verb in VERBS.items():
            setattr(self, name, _caller(connection, verb))


def _caller(connection: AgentConnection, verb: Verb) -> Any:  # noqa: ANN401
    def call(*positional: Any, **named: Any) -> Any:  # noqa: ANN401
        return connection.call(verb, verb.encode(*positional, **named))

    call.__name__ = verb.name
    return call


def remote_host(connection: AgentConnection) -> Host:
    """Return a host whose verbs are calls to its agent."""
    return cast(Host, _RemoteHost(connection))
