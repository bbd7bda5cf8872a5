"""Keeps what one node's data can be recovered from: a look every few seconds, and no state of its own.

Each look does what is missing next, writes it down, and leaves the rest to a later one: it may end at
any moment. What lasts runs by itself: the receiver is a program that the healer keeps, a base backup a
job. Both outlive the agent.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

from openrdb.config import RecoveryOptions
from openrdb.engines.recovery import Mark, Recovery, Stream
from openrdb.errors import HostError
from openrdb.host import recovery
from openrdb.host.healing import Healer
from openrdb.host.jobs import Jobs
from openrdb.host.processes import Program
from openrdb.host.records import NodeRecord
from openrdb.host.recovery import Base, Lineage, LineageRecord
from openrdb.host.space import LEAST_FREE
from openrdb.spec import JobSpec
from openrdb.system import files

log = logging.getLogger(__name__)

_LONGEST = 24 * 3600.0
"""Seconds that a base backup may take."""
_PATIENCE = 600.0
"""Seconds in which the stream has what a base backup needs that is there."""
_AFTER_FAILURE = 60.0
"""Seconds after which another base backup is tried."""
_PAUSE = 0.05
_SMALL = 64 * 2**20
"""Bytes of a stream that no base backup is made for ahead of its time."""


@dataclass
class Memory:
    """What a look remembers for the next one; an agent begins with nothing."""

    pending: Mark | None = None
    """A mark that was written and may not have been received yet."""
    written: str | None = None
    """What the server had written at the last mark that was received."""
    not_before: float = 0.0
    """When a base backup is tried again (`time.monotonic`)."""
    reason: str = ""
    """What is in the way."""
    lost_at: datetime | None = None
    lost_reason: str = ""
    has_left: bool = False
    """Whether a node that is not the primary keeps nothing for a receiver any more."""


class Keeper:
    """One look at one node, whose server accepts connections."""

    def __init__(
        self,
        node: NodeRecord,
        lineage: Lineage,
        engine: Recovery,
        tools: Stream,
        program: Program,
        receiver: Callable[[int], Program],
        healer: Healer,
        jobs: Jobs,
        options: RecoveryOptions,
        memory: Memory,
    ) -> None:
        """Take what is written down of the node.

        Args:
            program: the one that receives, as far as needed to end it.
            receiver: returns it with its command, by the number of the stream to receive.
        """
        self._node, self._lineage, self._engine, self._tools = node, lineage, engine, tools
        self._program, self._receiver, self._healer, self._jobs = program, receiver, healer, jobs
        self._options, self._memory = options, memory
        spec = node.spec
        known = lineage.load()
        self._record = known or LineageRecord(spec.node_id, spec.uid, spec.engine)

    def look(self, *, may_remove: bool, may_begin: bool) -> None:
        """Do what is missing next.

        Args:
            may_remove: nobody uses what is kept.
            may_begin: a base backup may be begun.
        """
        self._memory.reason = ""
        self._settle_stream()
        self._receive()
        self._settle_base(may_begin=may_begin)
        self._mark()
        if may_remove:
            self._retain()
        self._memory.lost_at = self._record.lost_at
        self._memory.lost_reason = self._record.lost_reason

    def mark_now(self, timeout: float) -> bool:
        """Let the window end at this moment; return whether it does, within some seconds."""
        current = self._record.current
        if current is None or not current.is_open:
            return False
        self._memory.pending = self._memory.written = None
        deadline = time.monotonic() + timeout
        while not self._mark():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _save(self, record: LineageRecord) -> None:
        self._lineage.save(record)
        self._record = record

    # -- the stream ----------------------------------------------------------------------------

    def _settle_stream(self) -> None:
        """Let the server keep what the receiver lacks; begin a new stream where it has not."""
        current = self._record.current
        if current is None:
            self._save(self._record.with_stream(recovery.Stream(1)))
        elif current.is_open and (why := self._why_lost(current.number)):
            self._lose(why)
        current = self._record.current
        assert current is not None  # noqa: S101
        if not current.is_open:
            self._healer.remove(self._program)
            self._engine.begin_stream()
            files.remove_tree(self._lineage.stream(current.number))
            self._lineage.ensure_stream(current.number, self._record.uid)
            self._save(self._record.with_stream(replace(current, is_open=True)))

    def _why_lost(self, number: int) -> str:
        """Return why a stream has a gap; empty if it has none."""
        if not self._lineage.stream(number).is_dir():
            return "the directory of the stream was removed"
        state = self._engine.stream_state(self._lineage.stream(number))
        if state == "lost":
            return "the server has not kept all that was not received in time"
        if state == "none":
            return "the server was told to keep nothing any more"
        name = self._program.name
        if self._healer.pid(name) is None and self._engine.has_lost(self._healer.reason(name)):
            return "the server has removed what was not received yet"
        return ""

    def _lose(self, why: str) -> None:
        """End the window, and begin another stream."""
        spec, lost = self._node.spec, self._record
        log.error("node %s can be recovered to no moment from now on: %s", spec.node_id, why)
        current = lost.current
        assert current is not None  # noqa: S101
        if lost.making is not None:
            self._jobs.stop(lost.making.id)
            self._jobs.forget(lost.making.id)
        now = datetime.now(UTC)
        next_one = recovery.Stream(current.number + 1)
        self._memory.pending = self._memory.written = None
        self._memory.not_before = 0.0
        self._save(
            replace(lost, making=None, lost_at=now, lost_reason=why).with_stream(next_one).tidy()
        )

    def _receive(self) -> None:
        current = self._record.current
        assert current is not None  # noqa: S101
        program = self._receiver(current.number)
        try:
            self._healer.keep(program)
        except HostError as error:
            self._memory.reason = str(error)
        else:
            self._memory.reason = self._healer.reason(program.name)

    def _mark(self) -> bool:
        """Note up to which moment the stream is received; return whether all is that was asked for."""
        memory, current = self._memory, self._record.current
        assert current is not None  # noqa: S101
        if memory.pending is None:
            memory.pending = self._engine.mark(memory.written)
        pending = memory.pending
        if pending is None:
            return True
        if not self._engine.is_received(pending, self._lineage.stream(current.number)):
            return False
        memory.pending, memory.written = None, pending.written
        self._healer.note_steady(self._program)
        memory.reason = ""
        self._save(self._record.with_stream(replace(current, marked_at=pending.at)))
        return True

    # -- bases ---------------------------------------------------------------------------------

    def _settle_base(self, *, may_begin: bool) -> None:
        making = self._record.making
        if making is None:
            for base in self._record.bases[-1:]:
                self._jobs.forget(base.id)  # if we ended before it was
            if may_begin and self._is_due():
                self._begin_base()
            return
        state = self._jobs.state(making.id)
        if state.status == "done":
            self._finish(making, state.ended_at)
        elif state.status == "unknown":
            self._start(making)
        elif state.status == "failed":
            said = state.output.strip().splitlines()
            self._give_up(making, said[-1] if said else state.reason)

    def _is_due(self) -> bool:
        """Return whether a base backup is to be made, and can be."""
        current = self._record.current
        if current is None or current.marked_at is None:
            return False  # the stream has not begun: there would be a gap
        if time.monotonic() < self._memory.not_before:
            return False
        bases = self._record.of_stream(current.number)
        if not bases:
            return True
        newest = bases[-1]
        age = (datetime.now(UTC) - newest.begun_at).total_seconds()
        if age >= self._options.base_interval:
            return True
        if (most := self._options.max_bytes) is None:
            return False
        # A stream is shorter from a newer base on.
        size = self._lineage.size()
        return size > most // 2 and size > 2 * newest.size + _SMALL

    def _begin_base(self) -> None:
        current = self._record.current
        assert current is not None  # noqa: S101
        if files.free_bytes(self._lineage.root) < LEAST_FREE:
            self._memory.reason = f"no space is left in {self._lineage.root}"
            return
        making = Base(uuid4(), current.number, datetime.now(UTC))
        self._save(replace(self._record, making=making))
        self._start(making)

    def _start(self, making: Base) -> None:
        spec = self._node.spec
        directory = self._lineage.ensure_base(making.id, spec.uid)
        command = self._engine.base(directory)
        job = JobSpec(
            id=making.id,
            name=f"base backup of node {spec.node_id}",
            command=tuple(command.arguments),
            deadline=_LONGEST,
            environment=command.environment,
            uid=spec.uid,
        )
        self._jobs.start(job, f"{command.secret}\n".encode())

    def _finish(self, making: Base, ended_at: datetime | None) -> None:
        """Take a base into use, as soon as the stream has what it needs."""
        directory = self._lineage.base(making.id)
        try:
            span = self._tools.span(directory)
        except HostError as error:
            self._give_up(making, str(error))
            return
        now = datetime.now(UTC)
        if not self._tools.covers(self._lineage.stream(making.stream), span):
            if ended_at is not None and (now - ended_at).total_seconds() > _PATIENCE:
                self._give_up(making, "a part of the stream is missing that it needs")
            return
        base = replace(making, ended_at=now, span=span, size=files.tree_size(directory))
        self._save(replace(self._record, bases=(*self._record.bases, base), making=None))
        self._jobs.forget(base.id)
        self._memory.written = None  # so that a mark tells that the window is open

    def _give_up(self, making: Base, why: str) -> None:
        log.error("the base backup of node %s failed: %s", self._node.spec.node_id, why)
        self._memory.reason = f"the base backup failed: {why}"
        self._memory.not_before = time.monotonic() + _AFTER_FAILURE
        self._save(replace(self._record, making=None))
        self._jobs.forget(making.id)

    # -- what is kept --------------------------------------------------------------------------

    def _retain(self) -> None:
        """Remove what no moment within the window needs, and what is beyond the bound."""
        record = self._record
        for base in record.outdated(recovery.kept_since(self._options.window)):
            record = record.without(base)
        most = self._options.max_bytes
        if most is not None and self._lineage.size() > most:
            record = self._smaller(record, most)
        if record != self._record:
            self._save(record)
        for stream in record.streams:
            spans = [base.span for base in record.of_stream(stream.number) if base.span]
            place = self._lineage.stream(stream.number)
            for path in self._tools.superfluous(place, spans) if place.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
        self._lineage.remove_unknown(record)

    def _smaller(self, record: LineageRecord, most: int) -> LineageRecord:
        if len(record.bases) > 1:
            return record.without(record.bases[0])
        if record.bases:
            self._lose(f"what is kept takes more than recovery.max_bytes, {most} bytes")
            self._memory.not_before = time.monotonic() + _PATIENCE
            return replace(self._record, bases=()).tidy()
        return record
