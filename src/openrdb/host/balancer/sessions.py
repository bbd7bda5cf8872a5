"""TCP sessions that the kernel leads elsewhere: finding and cutting them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from openrdb.errors import HostError
from openrdb.host.balancer import tools
from openrdb.host.balancer.base import Place, address_text

_TUPLE = r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)"
_ENTRY = re.compile(rf"^tcp .*?{_TUPLE} .*?{_TUPLE}", re.MULTILINE)
_AT_ONCE = 100
"""Sessions in one filter of ss."""
_GAVE_UP = "Operation failed"
_ATTEMPTS = 50


@dataclass(frozen=True)
class Session:
    client: Place
    listen: Place
    node: Place
    """Where it was led."""


def led_from(listens: Collection[Place]) -> list[Session]:
    """Return the sessions that came to some addresses and were led elsewhere."""
    if len(listens) == 1:
        listed = [tools.run("conntrack", "-L", *_came_to(*listens))]
    else:
        versions = {_family(listen) for listen in listens}
        listed = [tools.run("conntrack", "-L", "-f", family, "-p", "tcp") for family in versions]
    sessions = []
    for entry in _ENTRY.findall("".join(listed)):
        client, at, client_port, port, node, _, node_port, _ = entry
        session = Session((client, int(client_port)), (at, int(port)), (node, int(node_port)))
        if session.listen in listens and session.node != session.listen:
            sessions.append(session)
    return sessions


def cut(sessions: Sequence[Session]) -> None:
    """End sessions at once: the node's sockets are destroyed, which resets the clients'.

    Then the kernel forgets them, so that what a client still sends is judged as if it were new: where
    the kernel cannot destroy sockets (`INET_DIAG_DESTROY`) this is what ends them.
    """
    for some in _batches(sessions):
        ends = (
            f"( src {address_text(one.node)} and dst {address_text(one.client)} )" for one in some
        )
        tools.run("ss", "-K", "-tnH", " or ".join(ends), allowed=(0, 1, 255))
    # All that one client has here are alike: each is a session of the same listener and node.
    for source, listen, node in {(one.client[0], one.listen, one.node) for one in sessions}:
        led_to = ["--reply-src", node[0], "--reply-port-src", str(node[1])]
        whose = ["--orig-src", source, *_came_to(listen), *led_to]
        _forget(whose)


def _forget(whose: Sequence[str]) -> None:
    """Let the kernel forget some sessions.

    The next session of a client's port would be led where a forgotten one was. conntrack gives up when
    one of them ends by itself meanwhile: whatever it had not come to is left.

    Raises:
        HostError: it gives up each time.
    """
    for _ in range(_ATTEMPTS):
        said = tools.attempt("conntrack", "-D", *whose).stderr
        if _GAVE_UP not in said:
            return
    raise HostError(f"conntrack does not delete sessions: {said.strip()}")


def _batches(sessions: Sequence[Session]) -> Iterable[Sequence[Session]]:
    return (sessions[at : at + _AT_ONCE] for at in range(0, len(sessions), _AT_ONCE))


def _came_to(listen: Place) -> list[str]:
    came_to = ["--orig-dst", listen[0], "--orig-port-dst", str(listen[1])]
    return ["-f", _family(listen), "-p", "tcp", *came_to]


def _family(listen: Place) -> str:
    return "ipv6" if ":" in listen[0] else "ipv4"
