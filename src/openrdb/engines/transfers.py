"""Dumps and restores of one logical database: what each engine does of them.

A dump is a program's output, taken by the superuser, and the *contents*: what a restore needs to know
besides, as plain data. A restore runs code of the tenant's (constraints, generated columns, indexes):
no session in which that may happen belongs to a superuser.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

from openrdb.engines.names import OWN_PREFIX

Contents = dict[str, Any]
"""What a restore needs besides the dump, as JSON can hold it: users, levels, owners, extensions."""

RESTORE_ROLE: Final = f"{OWN_PREFIX}_restore"
"""The account that loads dumps: it can log in only meanwhile, by the Unix socket."""
LOADED: Final = f"{OWN_PREFIX}_restore_"
"""The beginning of the name of the database that a dump is loaded into; the job's id follows."""
REPLACED: Final = f"{OWN_PREFIX}_replaced_"
"""The beginning of the name of a database that a restore has replaced and is about to drop."""


OF_RESTORES: Final = re.compile(f"(?:{LOADED}|{REPLACED})([0-9a-f]{{32}})")
"""The names of both, which users do not see."""


class TransferFailed(Exception):
    """A dump or a restore cannot be done, and the database is as it was.

    The message is one sentence for the user, without paths and secrets.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass(frozen=True)
class Child:
    """A program of the engine's that the host runs with the account of the node."""

    command: list[str]
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Dump:
    """A dump that can be taken as long as its context lasts."""

    children: list[Child]
    """Write the dump to their standard outputs, one after the other."""
    contents: Contents
    compress: bool
    """Whether the outputs are still to be compressed, each as a frame (zstd) of its own."""
    last_words: bytes = b""
    """What the output of each program that was not interrupted has within its last bytes."""


class Transfers(Protocol):
    """Dumps and restores of a running server."""

    def dump(self, database: str) -> AbstractContextManager[Dump]:
        """Begin a dump of a database.

        Raises:
            TransferFailed: there is no such database.
        """

    def failure(self, stderr: str) -> TransferFailed:
        """Return why the program of a dump failed, from what it said."""

    def check_restore(self, database: str, contents: Contents) -> None:
        """Raise TransferFailed if a dump cannot be restored here: users or extensions are missing."""

    def restore(self, job_id: UUID, database: str, contents: Contents, archive: Path) -> None:
        """Make a database what it was at the dump, or leave all as it is.

        A database that is not there is made, as a managed one.

        Raises:
            TransferFailed: nothing has changed.
        """

    def settle(self, job_id: UUID) -> bool:
        """Remove what a killed restore has left. Repeatable.

        Returns:
            Whether the restore had taken effect.

        Raises:
            TransferFailed: the server is not there, or what is left is not to be removed yet.
        """
