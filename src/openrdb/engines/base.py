"""What a database engine is to the rest: the `Engine` interface.

Engines know their own files, arguments and SQL. They know neither HTTP nor the supervisor: what they
return, `host/` writes and runs. A third engine is a new folder beside `postgresql/`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol
from uuid import UUID

from openrdb.host.accounts import Uid
from openrdb.host.bundles import Bundle
from openrdb.host.layout import NodePaths


@dataclass(frozen=True)
class NodeSpec:
    """A node as it is wanted: all that an engine needs to configure and run it."""

    instance_id: UUID
    node_id: UUID
    engine: str
    """The version's name on the wire, `PostgreSQL-17`."""
    address: str
    port: int
    uid: Uid
    memory: int
    """Bytes that the node type grants."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The user's, by the catalogue's names and in its units."""
    init_settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Administrator:
    """The first user: its password only as the engine's verifier."""

    name: str
    verifier: str


class Engine(Protocol):
    name: ClassVar[str]
    """As the catalogue has it: `PostgreSQL`."""
    port: ClassVar[int]
    """What clients expect on private endpoints."""
    stop_signal: ClassVar[signal.Signals]

    # -- users ---------------------------------------------------------------------------------
    def check_user_name(self, argument: str, name: str) -> None:
        """Raise InvalidArguments where a name is reserved or malformed."""

    def verifier(self, password: str) -> str:
        """What the engine stores in a password's place."""

    # -- files ---------------------------------------------------------------------------------
    def make_template(self, bundle: Bundle, data: Path, account: Uid, secret: str) -> None:
        """Make a data directory from nothing; its superuser's password is `secret`."""

    def personalise(self, data: Path) -> None:
        """Give a copy of the template an identity of its own, durably."""

    def configuration(self, spec: NodeSpec, paths: NodePaths) -> dict[str, str]:
        """The files of the node's configuration directory: name → text."""

    def command(self, bundle: Bundle, paths: NodePaths) -> list[str]:
        """The argument vector that runs the server in the foreground."""

    # -- a running server, over its Unix socket --------------------------------------------------
    def wait_accepting(self, paths: NodePaths, pid: int, timeout: float) -> bool:
        """Whether the server `pid` accepts connections within some seconds."""

    def bootstrap(
        self,
        spec: NodeSpec,
        paths: NodePaths,
        secrets: tuple[str, str],
        administrator: Administrator | None,
    ) -> None:
        """Turn a fresh copy of the template into an instance's node; harmless when done before.

        `secrets`: the template's superuser password and the one to replace it with.
        """

    def reload(self, spec: NodeSpec, paths: NodePaths, secret: str) -> None:
        """Have the server read its configuration files and certificate again."""
