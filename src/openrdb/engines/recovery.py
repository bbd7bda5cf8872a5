"""What an engine does for recovery to a point in time: `Recovery` of a running node, and `Replay`.

A *base* is a copy of a node's data as of some time, a *stream* all that was written since: both lie in
directories of the host's choice. The engine says which programs make them, what of a stream a base
needs, and makes a data directory of both. It starts nothing itself that outlives a call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from openrdb.system.accounts import Uid
from openrdb.system.bundle import Bundle

StreamState = Literal["kept", "none", "lost"]
"""Whether the server keeps what the receiver has not got yet: `none`, it was never told to, or forgot;
`lost`, some of it is gone already."""


@dataclass(frozen=True)
class Span:
    """The part of a stream without which a base is of no use."""

    first: str
    """The file that replaying the base begins in."""
    last: str
    """The file in which the base becomes consistent."""
    file_size: int
    """Bytes of each of the stream's files; 0: they differ."""
    data_size: int
    """Bytes of the data directory in the base."""


@dataclass(frozen=True)
class Mark:
    """A moment in what a server writes: a transaction of ours, which a stream has or has not yet."""

    at: datetime
    """All that was committed before is before the mark, and the mark's own commit is later."""
    position: str
    written: str
    """What the server had written by then, for `mark` to see whether there is anything new."""


@dataclass(frozen=True)
class Command:
    """A program, run as the node's account."""

    arguments: list[str]
    environment: dict[str, str]
    secret: str = field(default="", repr=False)
    """A line that it reads from its standard input."""


class Recovery(Protocol):
    """One running node, whose data is to be recoverable."""

    def identity(self) -> str:
        """Return what distinguishes the node's data from all others', also from copies of it."""

    def stream_state(self, stream: Path) -> StreamState:
        """Return whether the server keeps what the receiver of a stream lacks."""

    def begin_stream(self) -> None:
        """Let the server keep all that it writes from now on until the receiver has got it, within
        the bound that the configuration sets; what was kept before is given up.

        The receiver must not run.
        """

    def end_stream(self) -> None:
        """Let the server keep nothing any more; a no-op if it does not."""

    def leave_stream(self) -> None:
        """Let a follower keep nothing of what it kept for a receiver while it was the primary.

        A no-op if it keeps nothing, or takes writes.

        The receiver must not run.
        """

    def receiver(self, stream: Path) -> Command:
        """Return the program that receives what the server writes, into a directory; it goes on from
        what is there, and ends when it loses its server."""

    def has_lost(self, complaint: str) -> bool:
        """Return whether a receiver ended because the server has not kept what comes next."""

    def is_received(self, mark: Mark, stream: Path) -> bool:
        """Return whether the receiver of a stream has a mark on disk."""

    def mark(self, since: str | None) -> Mark | None:
        """Write a mark; None if nothing was written since another one."""

    def base(self, directory: Path) -> Command:
        """Return the program that makes a base in an empty directory.

        Raises:
            PreconditionFailed: the data has parts that cannot be copied.
        """


class Stream(Protocol):
    """What an engine knows of bases and streams without a server."""

    def serves(self, version: str) -> bool:
        """Return whether servers of a version, `17.11`, can be recovered to a point in time."""

    def span(self, base: Path) -> Span:
        """Return what a base that was made needs of the stream, after a look whether it is whole.

        Raises:
            HostError: it is not.
        """

    def covers(self, stream: Path, span: Span) -> bool:
        """Return whether a stream has all that a base needs."""

    def superfluous(self, stream: Path, spans: Collection[Span]) -> list[Path]:
        """Return the files of a stream that none of its bases needs; none if there is no base."""

    def replay(self, work: Replay) -> None:
        """Make a data directory as it was at a moment, that a server can be started on, durably.

        No code of a tenant's runs. Identity and passwords are the source's.

        Raises:
            HostError: the base is damaged, or something of the stream is missing.
        """


@dataclass(frozen=True)
class Replay:
    """A data directory that is to be made."""

    bundle: Bundle
    data: Path
    """Where there is nothing yet."""
    base: Path
    span: Span
    stream: Path
    until: datetime | None
    """None: all that there is."""
    account: Uid
    """Whose base and stream are, and by which it is replayed."""
    secret: str
    """The superuser's in the data."""
    init_settings: Mapping[str, str]
    sockets: Path
    """An empty directory of the account's, whose path is short."""
    memory: int
    """Bytes that replaying may take."""
    lock: int
    """A descriptor that every process gets and keeps."""
