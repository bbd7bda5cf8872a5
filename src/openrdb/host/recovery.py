"""What a host keeps for recovery to a point in time: where it lies, what is known of it, and for how
long.

The directory is the operator's, apart from the volumes. Below it each instance has one, and in that
each *lineage*: the data of one node, told from all copies of it by its engine's own identity. So what
is restored or cloned never writes into the stream of its source.

    <directory>/openrdb.recovery
    <directory>/<instance>/<identity>/recovery.json  bases/<base>/data  streams/<number>
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from pydantic import TypeAdapter, ValidationError

from openrdb.engines.recovery import Span
from openrdb.errors import HostError
from openrdb.host.records import complaint
from openrdb.spec import RecoveryWindow
from openrdb.system import accounts, files
from openrdb.system.accounts import Uid
from openrdb.system.layout import Layout

FORMAT = 1
MARK = "openrdb.recovery"
"""The file that tells the directory from the empty one that its file system is mounted on."""
_RECORD = "recovery.json"


@dataclass(frozen=True)
class Base:
    """A copy of the data, from which the stream can be replayed."""

    id: UUID
    """Also of the job that makes it."""
    stream: int
    begun_at: datetime
    ended_at: datetime | None = None
    """When it was known to be whole, with all of the stream that it needs; None: it is being made."""
    span: Span | None = None
    size: int = 0
    """Bytes that it takes."""


@dataclass(frozen=True)
class Stream:
    """What a server has written without a gap, in a directory of its own."""

    number: int
    is_open: bool = False
    """Whether the server was told to keep what the receiver lacks; until then nothing can be lost."""
    marked_at: datetime | None = None
    """The last moment up to which all is known to be there."""


@dataclass(frozen=True)
class LineageRecord:
    """What is known of the recovery of one node's data."""

    node_id: UUID
    uid: int | None
    """Whose the files are."""
    engine: str
    streams: tuple[Stream, ...] = ()
    """The oldest first; the last one is received."""
    bases: tuple[Base, ...] = ()
    """Those that are whole, the oldest first."""
    making: Base | None = None
    lost_at: datetime | None = None
    """When a window was last ended by force."""
    lost_reason: str = ""
    format: int = FORMAT

    @property
    def current(self) -> Stream | None:
        return self.streams[-1] if self.streams else None

    def of_stream(self, number: int) -> list[Base]:
        """Return the bases from which a stream can be replayed."""
        return [base for base in self.bases if base.stream == number]

    def windows(self) -> Iterator[tuple[Stream, RecoveryWindow]]:
        """Yield the moments that can be recovered to, the oldest first."""
        for stream in self.streams:
            bases = self.of_stream(stream.number)
            if bases and stream.marked_at is not None:
                begins = bases[0].ended_at
                if begins is not None and begins <= stream.marked_at:
                    yield stream, RecoveryWindow(begins, stream.marked_at)

    def bases_for(self, moment: datetime | None) -> Iterator[tuple[RecoveryWindow, Base, Stream]]:
        """Yield the newest base of each window that a moment is in; None: of each window."""
        for stream, window in self.windows():
            if moment is None or window.begins <= moment <= window.ends:
                usable = [
                    base
                    for base in self.of_stream(stream.number)
                    if base.ended_at is not None and base.ended_at <= (moment or window.ends)
                ]
                yield window, usable[-1], stream

    # -- changes -------------------------------------------------------------------------------

    def with_stream(self, stream: Stream) -> LineageRecord:
        """Return the record with a stream in its place, or as the newest."""
        known = {one.number: one for one in self.streams} | {stream.number: stream}
        return replace(self, streams=tuple(known[number] for number in sorted(known)))

    def without(self, base: Base) -> LineageRecord:
        """Return the record without a base; see `tidy`."""
        bases = tuple(one for one in self.bases if one.id != base.id)
        return replace(self, bases=bases).tidy()

    def tidy(self) -> LineageRecord:
        """Return the record without former streams that have no base."""
        streams = tuple(
            one for one in self.streams if one == self.current or self.of_stream(one.number)
        )
        return replace(self, streams=streams)

    def outdated(self, since: datetime) -> list[Base]:
        """Return the bases that no moment after another one needs.

        A base is kept as long as a later one of its stream is not old enough to take its place.
        """
        found = []
        for stream in self.streams:
            bases = self.of_stream(stream.number)
            is_over = stream != self.current and (stream.marked_at or since) <= since
            for number, base in enumerate(bases):
                later = bases[number + 1 :]
                if is_over or any(one.ended_at and one.ended_at <= since for one in later):
                    found.append(base)
        return found


_RECORDS = TypeAdapter(LineageRecord)


@dataclass(frozen=True)
class Lineage:
    """The directory of one node's data."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / _RECORD

    def base(self, base_id: UUID) -> Path:
        """Return where the engine's files of a base are."""
        return self.root / "bases" / str(base_id) / "data"

    def stream(self, number: int) -> Path:
        return self.root / "streams" / str(number)

    def load(self) -> LineageRecord | None:
        """Return what is written down.

        Raises:
            HostError: it is damaged.
        """
        try:
            return _RECORDS.validate_json(self.record.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise HostError(f"{self.record} is damaged: {complaint(error)}") from None

    def save(self, record: LineageRecord) -> None:
        """Write down what is known, durably."""
        accounts.ensure_passage(self.root.parent, record.uid)
        accounts.ensure_passage(self.root, record.uid)
        text = _RECORDS.dump_json(record).decode()
        if not files.has_text(self.record, text):
            files.write_private(self.record, text)

    def ensure_stream(self, number: int, uid: Uid) -> Path:
        path = self.stream(number)
        accounts.ensure_passage(path.parent, uid)
        accounts.ensure_directory(path, uid)
        return path

    def ensure_base(self, base_id: UUID, uid: Uid) -> Path:
        """Make the empty directory that a base is made in; what was there goes."""
        path = self.base(base_id)
        files.remove_tree(path)
        for directory in (path.parent.parent, path.parent):
            accounts.ensure_passage(directory, uid)
        accounts.ensure_directory(path, uid)
        return path

    def remove_unknown(self, record: LineageRecord) -> None:
        """Remove the files of bases and streams that the record does not know."""
        bases = {str(base.id) for base in record.bases}
        if record.making is not None:
            bases.add(str(record.making.id))
        streams = {str(stream.number) for stream in record.streams}
        for name, known in (("bases", bases), ("streams", streams)):
            for path in (self.root / name).glob("*"):
                if path.name not in known:
                    files.remove_tree(path)

    def size(self) -> int:
        return files.tree_size(self.root) if self.root.exists() else 0


class RecoveryPlace:
    """The directory that the operator has named for recovery."""

    def __init__(self, layout: Layout, directory: Path | None) -> None:
        self._layout, self._directory = layout, directory

    @property
    def is_configured(self) -> bool:
        return self._directory is not None

    def check(self) -> Path:
        """Return it, as it is.

        Raises:
            HostError: there is none, or its file system is not mounted.
        """
        if self._directory is None:
            raise HostError("`recovery.directory` is not set")
        if not self._directory.is_dir():
            raise HostError(f"the directory for recovery is missing: {self._directory}")
        known = self._layout.recovery
        if known.exists() and not files.has_text(self._directory / MARK, known.read_text()):
            raise HostError(
                f"the directory for recovery is missing: {self._directory} lacks the file {MARK}; "
                f"mount its file system, or, to begin there with nothing, remove {known}"
            )
        return self._directory

    def root(self) -> Path:
        """Return it, taken into use; see `check`."""
        directory = self.check()
        if not self._layout.recovery.exists():
            mark = directory / MARK
            text = mark.read_text() if mark.exists() else f"{uuid4()}\n"
            files.write_private(mark, text)
            files.write_private(self._layout.recovery, text)
            accounts.passable_directory(directory)
        return directory

    def lineage(self, instance_id: UUID, identity: str) -> Lineage:
        """Return the place of one node's data; see `root`."""
        return Lineage(self.root() / str(instance_id) / identity)

    def lineages(self, instance_id: UUID) -> list[Lineage]:
        """Return the places of an instance's data; none if the directory is missing."""
        try:
            found = sorted(self.root().glob(f"{instance_id}/*/{_RECORD}"))
        except HostError:
            return []
        return [Lineage(path.parent) for path in found]

    def instances(self) -> list[UUID]:
        """Return whose recovery there is something of."""
        found = []
        try:
            entries = list(self.root().iterdir())
        except HostError:
            return []
        for path in entries:
            try:
                found.append(UUID(path.name))
            except ValueError:
                continue
        return found

    def remove(self, instance_id: UUID) -> None:
        """Remove all that there is of an instance's recovery; a no-op if there is nothing."""
        place = self.root() / str(instance_id)
        if place.exists():
            # Without its records first: what is left of them if we end means nothing.
            for record in place.glob(f"*/{_RECORD}"):
                files.remove_file(record)
            files.remove_tree(place)
            files.sync_directory(place.parent)


def windows(records: Collection[LineageRecord]) -> list[RecoveryWindow]:
    """Return all moments that can be recovered to, the oldest first.

    Of a pair each node has windows of its own; one that is within another's adds no moment.
    """
    found = [window for record in records for _, window in record.windows()]
    kept: list[RecoveryWindow] = []
    for one in sorted(found, key=lambda one: (one.begins, -one.ends.timestamp())):
        if not kept or one.ends > kept[-1].ends:
            kept.append(one)
    return kept


def kept_since(window: float) -> datetime:
    """Return the moment from which on everything is kept."""
    return datetime.now(UTC) - timedelta(seconds=window)
