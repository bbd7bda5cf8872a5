"""The `Pool` interface: where volumes are, and the only one that copies or removes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from uuid import UUID

from openrdb.system.accounts import Uid

Prepare = Callable[[Path], None]
"""Changes a volume's files, durably, before anybody sees it."""


@dataclass(frozen=True)
class Volume:
    """A data directory of a pool; there need not be one yet."""

    pool: str
    key: str
    """Which one of the pool: a relative path."""

    def __post_init__(self) -> None:
        path = PurePosixPath(self.key)
        if path.is_absolute() or not path.parts or ".." in path.parts:
            raise ValueError(f"{self.key!r} is no volume's key")


class Pool(Protocol):
    """Makes, copies, renames and removes volumes; nothing else does.

    A volume has its name only when it is whole and on disk. kill -9 at any moment leaves a verb's
    target as it was or as it is to be; what else is left has no volume's name, and goes when the
    pool is next opened. No verb replaces a volume, or follows a symbolic link within one.
    """

    name: str
    reflink: bool
    """Whether a copy shares its bytes with its source, until one of them is written to: it takes
    moments and next to no room, however large the volume is."""

    @property
    def quota(self) -> bool:
        """Return whether a volume can be limited: see `limit`."""

    # -- which there are -----------------------------------------------------------------------

    def volume(self, path: Path) -> Volume:
        """Return the volume that lies, or is to lie, at a path."""

    def path(self, volume: Volume) -> Path:
        """Return where a volume lies."""

    def exists(self, volume: Volume) -> bool:
        """Return whether there is such a volume; if so, it is whole."""

    def is_outdated(self, volume: Volume) -> bool:
        """Return whether an earlier version made a volume in a way that lets copies take longer."""

    # -- making and removing -------------------------------------------------------------------

    def create(self, volume: Volume, make: Callable[[Path], None]) -> None:
        """Make a volume of the invoking user's, which nobody else may enter.

        Args:
            make: makes a directory of plain files where there is none, itself or through other
                accounts; what it put there belongs to us afterwards.

        Raises:
            HostError: it put anything else there.
        """

    def clone(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> None:
        """Copy a volume at rest, such as a snapshot; the copy belongs to an account."""

    def is_atomic(self, volume: Volume) -> bool:
        """Return whether a snapshot of a volume in use is the volume as it was at one moment."""

    def snapshot(self, source: Volume, target: Volume, complete: Prepare | None = None) -> None:
        """Copy a volume in use into one that nobody writes to.

        The copy is a volume at rest, whatever becomes of its source: it can be cloned and deleted.

        Where the source `is_atomic`, the copy is what a power cut at one moment would leave, and an
        engine recovers from it; nothing needs to be held. Elsewhere the files are copied one after
        the other, and what an engine wrote meanwhile makes the copy silently wrong: **the caller
        must hold the engine**, by its backup mode or by keeping it from writing, until the copy is
        complete.

        Args:
            complete: makes the copy whole, durably, before it has its name: it adds what backup mode
                asks for, and ends it.
        """

    def take(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> bool:
        """Give a volume that can be made again another name and owner; nothing is copied.

        Killed or failed in between, neither name has it any more.

        Returns:
            Whether there was such a source; of several callers one gets it.
        """

    def rename(
        self, source: Volume, target: Volume, uid: Uid, prepare: Prepare | None = None
    ) -> bool:
        """Give a volume at rest another name and owner; nothing is copied, and nothing is lost.

        Killed or failed in between, the source has it, as far as it was changed: it is of no use but
        to repeat this, one caller at a time.

        Args:
            prepare: may be repeated on what it has changed, in whole or in part.

        Returns:
            Whether there was such a source.
        """

    def bring(
        self,
        source: Path,
        target: Volume,
        uid: Uid,
        prepare: Prepare | None = None,
        *,
        hold: Callable[[], None] | None = None,
    ) -> None:
        """Copy a volume of another pool, which lies at `source`; the copy belongs to an account.

        Args:
            hold: ends what writes to it. Until then it is in use: all of it is copied before, and
                afterwards only what has changed since. None: it is at rest.
        """

    def settle(self, volume: Volume) -> None:
        """Make the name of a volume durable, as its content is already."""

    def delete(self, volume: Volume) -> None:
        """Take a volume's name away, durably; a no-op if there is no such volume.

        Its space is given back by `remove_deleted`.
        """

    def delete_below(self, directory: Path) -> None:
        """Delete a directory, with all the volumes in it, as one."""

    def remove_deleted(self) -> None:
        """Remove what was deleted or left half made, by whichever process."""

    # -- the trash -----------------------------------------------------------------------------

    def put_aside(self, directory: Path, owner: UUID) -> None:
        """Move a directory, with all the volumes in it, into the trash as one, durably.

        A no-op if there is no such directory. What the trash has of the owner stays: then this is
        what a repetition after a crash made, and is deleted.
        """

    def put_back(self, owner: UUID, directory: Path) -> bool:
        """Move what an owner has in the trash back to its place, durably.

        Where that fails it stays in the trash, and is not emptied.

        Returns:
            Whether it is there: also where it was moved before.
        """

    def stop_return(self, owner: UUID) -> None:
        """Let what could not be moved back wait in the trash again, for the whole time."""

    def put_aside_since(self) -> dict[UUID, float]:
        """Return whose directories are in the trash, each with the time it was put there.

        What is being moved back is not among them.
        """

    def delete_trashed(self, owner: UUID) -> None:
        """Delete what the trash has of an owner, unless it is being moved back."""

    def forget(self, is_known: Callable[[UUID], bool]) -> None:
        """Delete what the trash has of owners that are not known, also what is being moved back."""

    def empty(self, before: float) -> None:
        """Delete what was put into the trash before a moment (`time.time`)."""

    def ensure_free(self, size: int) -> bool:
        """Delete what is in the trash, the oldest first, until so many bytes are free.

        Returns:
            Whether they are.
        """

    # -- room ----------------------------------------------------------------------------------

    def limit(self, volume: Volume, size: int | None) -> None:
        """Let at most so many bytes be written into a volume from its birth on (None: any number);
        a no-op without `quota`.

        A clone's limit counts only what it does not share. An engine that meets the limit breaks
        off, and does not start until it is raised: keep it well above what the user asked for.
        """

    def charged(self, volume: Volume) -> int | None:
        """Return the bytes that count towards a volume's limit; None without `quota`.

        Not what users see of it: what a volume shares with its source counts there, and what it has
        overwritten or removed counts for as long as a snapshot keeps it.
        """

    def usage(self, volume: Volume) -> int:
        """Return the bytes of a volume, also those that it shares with others."""

    def size(self) -> int:
        """Return the bytes that the pool has, used or not."""

    def free(self) -> int:
        """Return the bytes that the pool can still take."""

    def has_room(self, size: int = 0) -> bool:
        """Return whether the pool can take a volume that fills `size` bytes from the first day;
        the trash gives way to it."""
