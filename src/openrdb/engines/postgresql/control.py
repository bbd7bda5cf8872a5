"""What `pg_control` tells of a server that has ended (src/include/catalog/pg_control.h; the same from
11 to 18)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from openrdb.engines.postgresql import identity
from openrdb.errors import HostError
from openrdb.system import files

_FIELDS = struct.Struct("<Q 8x I 12x Q 8x I")
"""The system identifier, the state, the place of the last checkpoint, and its timeline."""
_LIMITS_AT, _LIMITS = 180, struct.Struct("<5i")
"""From 13 on."""
LIMITS = (
    *("max_connections", "max_worker_processes", "max_wal_senders"),
    *("max_prepared_transactions", "max_locks_per_transaction"),
)
"""Settings that no server which replays WAL may have lower than the one that has written it."""
_SHUT_DOWN = 1
"""`DB_SHUTDOWNED`: it ended cleanly, and took writes before."""
_IN_PRODUCTION = 6


@dataclass(frozen=True)
class Control:
    system_identifier: int
    state: int
    checkpoint: int
    timeline: int
    limits: Mapping[str, int]
    """What `LIMITS` are in the server that has written the WAL."""

    @classmethod
    def read(cls, data: Path) -> Self:
        """Read that of a data directory.

        Raises:
            HostError: it is not whole, or not there.
        """
        try:
            content = files.read_small(data / "global" / "pg_control")
            identity.find_crc(content)
        except (OSError, ValueError) as error:
            raise HostError(f"pg_control cannot be read: {error}") from error
        limits = zip(LIMITS, _LIMITS.unpack_from(content, _LIMITS_AT), strict=True)
        identifier, state, checkpoint, timeline = _FIELDS.unpack_from(content)
        return cls(identifier, state, checkpoint, timeline, dict(limits))

    @property
    def is_shut_down(self) -> bool:
        """Return whether the last checkpoint is the last of all that the server has written."""
        return self.state == _SHUT_DOWN

    @property
    def takes_writes(self) -> bool:
        """Return whether the server takes writes, or did when it crashed."""
        return self.state == _IN_PRODUCTION

    @property
    def position(self) -> str:
        """Return where the record of the last checkpoint begins, as SQL has it."""
        return f"{self.checkpoint >> 32:X}/{self.checkpoint & 0xFFFFFFFF:X}"


def write_limits(data: Path, limits: Mapping[str, int]) -> None:
    """Change the limits in the directory of a server that has ended cleanly, durably."""
    identity.change_control(data, _LIMITS_AT, _LIMITS.pack(*(limits[name] for name in LIMITS)))
