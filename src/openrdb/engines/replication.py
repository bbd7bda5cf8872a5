"""What an engine does for high availability and read replicas: one node as a part of several.

A *pair* has a primary, which takes writes, and a standby, whose confirmation each commit waits for
while the pair is *armed*. A *follower* is a standby or a read replica: it gets what its *upstream*
writes. Who is what is decided by the host; the verbs here bring it about on one running server, and
each may be repeated.

Every server of a pair or of a replica starts inert: it takes no writes until `open`, whoever starts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from openrdb.engines.base import EngineNode
    from openrdb.system.layout import NodePaths


@dataclass(frozen=True)
class Upstream:
    """The node that a follower gets its changes from."""

    node_id: UUID
    address: str
    port: int
    secret: str = field(repr=False)
    """Of the replication account."""
    paths: NodePaths
    """Where the superuser gets in, by the socket: the secret is the same on all nodes. Its port lets
    nobody in but the instance's own account."""


@dataclass(frozen=True)
class Following:
    """How a follower stands with its upstream."""

    streams: bool
    """Whether it receives now, on the upstream's own history: this alone is health."""
    lag: float | None = None
    """Seconds that what it shows is behind what its upstream shows; None: not known."""
    lost: str | None = None
    """Why it will never be able to follow with the data that it has; None: nothing says so. It may
    have diverged, or its upstream has removed what it needs: its data is to be copied again."""
    reason: str = ""
    """Why it does not receive at the moment."""
    hangs: bool = False
    """Whether what receives has stopped to work: it cannot be told to end, so the server is killed."""
    held_at: str | None = None
    """What it has applied, where the rest waits for a lock of a user's session; None: it does not."""
    is_passing: bool = False
    """Whether what keeps it from receiving passes by itself, and says nothing of its data: somebody
    ended its connection, or its upstream did not say in time whether it has all of it."""
    source: str = ""
    """Which server it receives from: one whose data was made again is another one, at the same place.
    Empty where the engine itself connects to none that it has diverged from."""


Answer = Literal["written", "full", "busy", "silent", "refused"]
"""Of a probe: `written`: a write was committed; `full`: there is no room for it; `busy`: the server is
well, but users hold a lock on everything, or all connections; `silent`: no answer in time; `refused`:
an error of another kind, such as a disk that takes no writes."""


@dataclass(frozen=True)
class Probed:
    """What a probe of a primary found."""

    answer: Answer
    unconfirmed: float = 0.0
    """Seconds since which the synchronous standby, which lacks something, has confirmed nothing: 0
    where it has everything, nothing waits for it, or the probe could not ask for that."""
    reason: str = ""
    waits: bool = True
    """Whether commits wait for a standby, as far as it was told."""
    late: float = 0.0
    """Seconds since which it has lacked something that was written, though it confirms what was
    written before; as far as the probe could tell."""


class Probe(Protocol):
    """Looks again and again whether a primary commits, by a session of its own that stays open.

    What it writes it commits locally: it must not wait for the standby, or a lost standby would look
    like a lost primary.
    """

    def look(self, timeout: float) -> Probed:
        """Write and commit something small; return within about so many seconds whatever happens."""

    def disarm(self) -> None:
        """As `Replication.disarm`, by the session that is open, where there is one: users may have
        taken all others.

        Raises:
            HostError: the server does not do it.
        """

    def close(self) -> None:
        """End the session; never waits."""


class Replication(Protocol):
    """One server as a part of several.

    What it is, is in its `EngineNode`: `is_inert` for all servers of pairs and for replicas, `upstream`
    for followers, `synchronous` for the primary of a pair that is armed or about to be. The
    configuration files are written for it before each verb.

    Any verb raises HostError where the server does not do it.
    """

    hands_over_running: bool
    """Whether a primary stays up while it hands over: where not, `hand_over` is followed by a clean
    end of the server, which sends the rest to the follower."""

    opens_unasked: bool
    """Whether `open` is for servers that do not accept connections yet as well: some never would."""
    keeps_received: bool
    """Whether what a follower has confirmed is on its disk, and stays there when its server ends: else
    only one that lives may become the primary, and one whose host lost power is copied again."""
    passes_on_received: bool
    """Whether a follower's own followers get what it has received at once: else what it has applied."""

    def obstacles(self) -> list[str]:
        """Return what is in the way of a pair in the data, each in a sentence for the user."""

    def is_started_for_pair(self) -> bool:
        """Return whether it was started with what members of a pair have: one that was alone until now
        may lack what only a start gives it."""

    def warnings(self) -> list[str]:
        """Return what works now, and would not with nodes on several hosts."""

    # -- a primary ---------------------------------------------------------------------------------
    def open(self) -> None:
        """Let an inert server take writes, and return when it does; a no-op where it does already.

        All that it has received is applied before. Its next start is inert again. Commits wait for
        nobody afterwards.

        Raises:
            Unopenable: it can never apply what it has received.
            HostError: it does not within a minute.
        """

    def settle(self) -> None:
        """Bring an open server to what one has that never followed another; a no-op where it is so.
        What it still has of that keeps nobody from writing, and may take a minute to end."""

    def is_open(self) -> bool:
        """Return whether it takes writes.

        Raises:
            HostError: it does not say.
        """

    def is_ending(self, pid: int) -> bool:
        """Return whether the process of a running server has been asked to end: it lets nobody in any
        more, and may wait for those who are in."""

    def probe(self) -> Probe:
        """Return what looks whether it commits."""

    def admit(self, follower: UUID) -> None:
        """Keep what a follower has not received yet from now on, within a bound that keeps the volume
        from being filled."""

    def dismiss(self, follower: UUID) -> None:
        """Keep nothing for a follower any more, and end what it receives by; a no-op if there is none
        of that id."""

    def kept_for(self) -> set[UUID]:
        """Return the followers for whom it keeps something until it is told to `dismiss` them, whether
        the server runs or not."""

    def arm(self, follower: EngineNode) -> bool:
        """Let commits wait for a follower, if it is one that can be waited for: it receives on this
        server's own history, and has nearly everything.

        Returns:
            Whether every commit from now on waits for it, and it has on disk all that was committed
            before. If not, some commits may wait for it: call again soon, or `disarm`.
        """

    def disarm(self) -> None:
        """Let commits wait for nobody; those that wait now are acknowledged. Returns when it is so."""

    def is_armed(self) -> bool:
        """Return whether commits wait for a follower in the server that runs."""

    def tell_followers(self) -> None:
        """Let followers know what replication itself does not tell them, and what they need once they
        take writes. Asked for every few seconds."""

    # -- a follower --------------------------------------------------------------------------------
    def follow(self) -> None:
        """Let a running inert server receive from its `upstream`; returns at once.

        Raises:
            HostError: it cannot be told to.
        """

    def following(self, known: str | None = "") -> Following:
        """Return how it stands with its upstream.

        Args:
            known: the `source` that it was last found to follow: another one is asked first whether
                it has all that the follower has; None: none is asked.
        """

    def release(self) -> None:
        """End the sessions of users, whose locks keep a follower from applying what it receives."""

    def wait_lowered(self, timeout: float) -> bool:
        """Return whether within some seconds a follower has received which settings its upstream has
        lowered: until then it does not start with less than they were (`EngineNode.at_least`)."""

    # -- planned changes ---------------------------------------------------------------------------
    def prepare_handover(self) -> None:
        """Do what takes time before `hand_over`, while the primary works on."""

    def hand_over(self, timeout: float) -> None:
        """Let the primary commit nothing any more, and end its users' sessions.

        Raises:
            HostError: it is impossible in time; the server takes writes as before.
        """

    def take_back(self) -> None:
        """Undo `hand_over` on a server that runs on; a no-op otherwise."""

    def has_all_of(self, primary: EngineNode) -> bool:
        """Return whether this follower has all that a primary has, which handed over (and ended, if it
        does not hand over running): then that one can follow this one with the data that it has."""
