"""This machine's recovery to points in time: what is kept for it, and volumes made of that."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from openrdb.config import RecoveryOptions
from openrdb.engines import stream_of, templates_of
from openrdb.engines.recovery import Recovery, Replay, Span
from openrdb.errors import HostError, OpenRDBError, PreconditionFailed
from openrdb.host import processes, recovery
from openrdb.host.jobs import Jobs
from openrdb.host.local_space import LocalSpace
from openrdb.host.processes import Program
from openrdb.host.records import NodeRecord
from openrdb.host.recovery import Base, Lineage, LineageRecord, RecoveryPlace, Stream
from openrdb.host.recovery_keeper import Keeper, Memory
from openrdb.host.snapshots import PASSING
from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes import Volume
from openrdb.spec import NodeSpec, RecoveryState, RecoveryWindow
from openrdb.system import accounts, files

log = logging.getLogger(__name__)

_RECEIVER = "recovery-"
_MARKED = 10.0
"""Seconds in which a receiver has got what was just written, if it works."""


@dataclass(frozen=True)
class Source:
    """What a volume is made of."""

    base: Path
    span: Span
    stream: Path
    window: RecoveryWindow
    until: datetime | None
    """None: all that there is."""
    uid: int | None
    """Whose it is."""

    @classmethod
    def of(
        cls,
        lineage: Lineage,
        record: LineageRecord,
        window: RecoveryWindow,
        base: Base,
        stream: Stream,
        until: datetime | None,
    ) -> Source:
        assert base.span is not None  # noqa: S101
        places = (lineage.base(base.id), base.span, lineage.stream(stream.number))
        return cls(*places, window, until, record.uid)


class LocalRecovery(LocalSpace):
    """The part of `LocalHost` that brings data back to a point in time."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        recovery: RecoveryOptions = RecoveryOptions(),
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **options)
        self._options = recovery
        self._place = RecoveryPlace(self._layout, recovery.directory)
        self._base_jobs = Jobs(self._layout.recovery_jobs)
        self._recovering: dict[UUID, threading.RLock] = defaultdict(threading.RLock)
        """Held while something of an instance's recovery changes."""
        self._replayed: Counter[UUID] = Counter()
        """How many volumes are being made of each instance's recovery: nothing of it is removed."""
        self._memories: dict[UUID, Memory] = defaultdict(Memory)

    # -- keeping -------------------------------------------------------------------------------

    def _keep_recoveries(self) -> None:
        """Look at each node whose data is to be recoverable; one that hangs delays no other."""
        for record in self._wanted_nodes():
            if record.spec.recovery:
                node_id = record.spec.node_id
                self._underway.ensure(
                    f"recovery {node_id}", partial(self._keep_recovery, node_id), 0.0
                )

    def _keep_recovery(self, node_id: UUID) -> None:
        memory = self._memories[node_id]
        lost_before = memory.lost_at
        try:
            with self._keeper(node_id) as keeper:
                record = self._record(node_id)
                if self._records.role_of(record) == "primary":
                    memory.has_left = False
                elif not memory.has_left:
                    memory.has_left = self._leave_stream(record)
                if keeper is not None:
                    instance_id = record.spec.instance_id
                    keeper.look(
                        may_remove=not self._replayed[instance_id],
                        may_begin=not any(
                            one.status == "running" for one in self._base_jobs.list()
                        ),
                    )
        except Exception as error:
            why = error.explanation if isinstance(error, OpenRDBError) else str(error)
            if memory.reason != why:
                log.warning("the recovery of node %s is looked after later: %s", node_id, why)
            memory.reason = why
        if memory.lost_at != lost_before:
            self._changes.note(node_id)

    def _leave_stream(self, record: NodeRecord) -> bool:
        """End what received from a node while it was the primary, and what it kept for that: the next
        primary has its own. Return whether all of it is done."""
        self._healer.remove(self._receiver_to_end(record.spec))
        engine = self._server(record).recovery()
        if engine is None:
            return True
        if record.desired != "running" or not self._accepts(record):
            return False
        engine.leave_stream()
        return True

    @contextmanager
    def _keeper(self, node_id: UUID) -> Iterator[Keeper | None]:
        """Yield what looks after a node's recovery; None if that is not wished for, or its server is
        not there at the moment."""
        record = self._records.nodes.get(node_id)
        if record is None:
            yield None
            return
        with self._recovering[record.spec.instance_id]:
            found = self._at_work(node_id)
            if found is None:
                yield None
                return
            record, engine = found
            lineage = self._place.lineage(record.spec.instance_id, engine.identity())
            yield Keeper(
                record,
                lineage,
                engine,
                stream_of(record.spec.engine),
                self._receiver_to_end(record.spec),
                partial(self._receiver, record, lineage, engine),
                self._healer,
                self._base_jobs,
                self._options,
                self._memories[node_id],
            )

    def _at_work(self, node_id: UUID) -> tuple[NodeRecord, Recovery] | None:
        """Return a node whose recovery can be looked after now, with its engine's part of that."""
        record = self._records.nodes.get(node_id)
        if record is None or record.desired != "running" or not record.spec.recovery:
            return None
        if self._records.role_of(record) != "primary":
            return None
        if record.held is not None:  # a mark of ours would be taken for a tenant's write
            return None
        engine = self._server(record).recovery()
        return None if engine is None or not self._accepts(record) else (record, engine)

    def _receiver(
        self, record: NodeRecord, lineage: Lineage, engine: Recovery, number: int
    ) -> Program:
        command = engine.receiver(lineage.stream(number))
        output = self._receiver_output(record.spec)
        return replace(
            self._receiver_to_end(record.spec),
            command=accounts.as_account(record.spec.uid, command.arguments),
            environment=command.environment,
            output=output,
            explain=partial(_last_line, output),
        )

    def _receiver_to_end(self, spec: NodeSpec) -> Program:
        name = f"{_RECEIVER}{spec.node_id}"
        return Program(
            name=name,
            command=[],
            lock=self._layout.program_lock(spec.instance_id, name),
            output=self._receiver_output(spec),
            stop_timeout=10.0,
        )

    def _receiver_output(self, spec: NodeSpec) -> Path:
        return self._layout.node(spec.instance_id, spec.node_id).root / "recovery.out"

    def ensure_recovery(self, spec: NodeSpec) -> None:
        engine = self._server(self._accept(spec)).recovery()
        if engine is None:
            help_message = f"{spec.engine} cannot be recovered to a point in time here"
            raise PreconditionFailed("engine", help_message)
        if spec.recovery:
            self._place.root()  # which says what is missing
            self._healer.in_background(self._keep_recoveries)
            return
        self._accepting_server(spec)
        with self._recovering[spec.instance_id]:
            self._end_receiving(spec)
            engine.end_stream()
            if self._place.is_configured:
                self._remove_recovery(spec.instance_id)

    def _receivers(self) -> list[Program]:
        """Return the programs that receive what nodes write, as far as needed to end them."""
        records = list(self._records.nodes.values())
        return [self._receiver_to_end(one.spec) for one in records if one.spec.recovery]

    def _end_receiving(self, spec: NodeSpec) -> None:
        """End a node's receiver, and a base backup that is being made."""
        self._healer.remove(self._receiver_to_end(spec))
        for base_id in self._bases_under_way(spec.instance_id):
            self._base_jobs.stop(base_id)
        self._memories.pop(spec.node_id, None)

    def _remove_recovery(self, instance_id: UUID) -> None:
        """Remove all that is kept of an instance.

        Raises:
            HostError: a volume is just being made of it.
        """
        with self._recovering[instance_id]:
            if self._replayed[instance_id]:
                raise HostError("an instance is just being made of what is to be removed")
            for base_id in self._bases_under_way(instance_id):
                self._base_jobs.stop(base_id)
                self._base_jobs.forget(base_id)
            self._place.remove(instance_id)

    def _bases_under_way(self, instance_id: UUID) -> list[UUID]:
        records = [record for _, record in self._lineage_records(instance_id)]
        return [record.making.id for record in records if record.making is not None]

    def _remove_lost_recoveries(self) -> None:
        """Remove what is kept of instances that are not here any more, nor in the trash."""
        for instance_id in self._place.instances():
            if not self._pools.is_known(instance_id):
                try:
                    self._remove_recovery(instance_id)
                except (HostError, OSError) as error:
                    log.warning("the recovery of %s is removed later: %s", instance_id, error)

    # -- what else happens to nodes ------------------------------------------------------------

    def _set_held(self, node_id: UUID, mark: str | None) -> None:
        with self._recovering[self._record(node_id).spec.instance_id]:  # no mark is being written
            super()._set_held(node_id, mark)

    def ensure_stopped(self, spec: NodeSpec) -> None:
        super().ensure_stopped(spec)
        if spec.recovery:
            self._healer.release(self._receiver_to_end(spec))

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID], keep: bool) -> None:
        nodes = [self._records.nodes[one] for one in node_ids if one in self._records.nodes]
        with self._recovering[instance_id]:
            for node in nodes:
                if node.spec.recovery:
                    self._end_receiving(node.spec)
            super().ensure_removed(instance_id, node_ids, keep)
        self._recovering.pop(instance_id, None)

    # -- going back ----------------------------------------------------------------------------

    def recovery(self, instance_id: UUID) -> RecoveryState:
        reason = ""
        for node in list(self._records.nodes.values()):
            is_received = node.spec.recovery and self._records.role_of(node) == "primary"
            if node.spec.instance_id == instance_id and is_received:
                reason = self._mark_now(node.spec.node_id)
        records = self._lineage_records(instance_id)
        if not reason:
            reason = next((one.lost_reason for _, one in records if not _is_usable(one)), "")
        return RecoveryState(
            windows=recovery.windows([record for _, record in records]),
            bases=sum(len(record.bases) for _, record in records),
            size=sum(lineage.size() for lineage, _ in records),
            reason=reason,
        )

    def _mark_now(self, node_id: UUID) -> str:
        """Let a node's window end at this moment; return what is in the way of that."""
        try:
            with self._keeper(node_id) as keeper:
                if keeper is None:
                    return "the server is not there at the moment"
                is_marked = keeper.mark_now(_MARKED)
        except Exception as error:
            return error.explanation if isinstance(error, OpenRDBError) else str(error)
        reason = self._memories[node_id].reason
        return reason if is_marked or reason else "what was written last is not received yet"

    def _lineage_records(self, instance_id: UUID) -> list[tuple[Lineage, LineageRecord]]:
        found = [(lineage, lineage.load()) for lineage in self._place.lineages(instance_id)]
        return [(lineage, record) for lineage, record in found if record is not None]

    def ensure_recovered_volume(
        self,
        spec: NodeSpec,
        source_id: UUID,
        source_secret: str,
        moment: datetime | None,
        timeout: float,
    ) -> bool:
        sources = [one for one in self._records.nodes.values() if one.spec.instance_id == source_id]
        versions = next((one.data_versions for one in sources), None)
        volume = self._accept_copy(spec, versions)
        make = partial(self._make_recovered_volume, spec, volume, source_id, source_secret, moment)
        return self._underway.ensure(f"volume {spec.node_id}", make, timeout)

    def _make_recovered_volume(
        self,
        spec: NodeSpec,
        target: Volume,
        source_id: UUID,
        source_secret: str,
        moment: datetime | None,
    ) -> None:
        pool = self._pools.named(target.pool)
        if not pool.exists(target):
            # What a source that works goes on to write is nothing to wait for.
            is_at_work = moment is None and not self.recovery(source_id).reason
            with self._chosen(source_id, moment) as chosen:
                found = replace(chosen, until=chosen.window.ends) if is_at_work else chosen
                size = found.span.data_size + files.tree_size(found.stream)
                self._pools.require_free(pool.name, LEAST_FREE // 2 + size)
                self._replay(spec, target, found, source_secret)
        pool.settle(target)

    @contextmanager
    def _chosen(self, source_id: UUID, moment: datetime | None) -> Iterator[Source]:
        """Yield what a moment can be recovered from, which is kept meanwhile."""
        with self._recovering[source_id]:
            source = self._choose(source_id, moment)
            self._replayed[source_id] += 1
        try:
            yield source
        finally:
            with self._recovering[source_id]:
                self._replayed[source_id] -= 1

    def _choose(self, source_id: UUID, moment: datetime | None) -> Source:
        found = [
            Source.of(lineage, record, window, base, stream, moment)
            for lineage, record in self._lineage_records(source_id)
            for window, base, stream in record.bases_for(moment)
        ]
        if not found:
            raise HostError("nothing is kept that this moment can be recovered from")
        return max(found, key=lambda one: one.window.ends)

    def _replay(self, spec: NodeSpec, target: Volume, source: Source, secret: str) -> None:
        tools, maker = stream_of(spec.engine), templates_of(spec.engine)
        pool = self._pools.named(target.pool)
        place = self._pools.layout(pool.name).snapshots / f"{PASSING}recovery-{spec.node_id}"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        passing = pool.volume(place / "data")
        lock = self._layout.upgrade_lock(spec.instance_id, spec.node_id)
        bundle = self._bundle(self._record(spec.node_id))
        sockets = self._layout.sockets(spec.node_id)
        try:
            with processes.holding(lock, f"the recovery for node {spec.node_id}") as held:

                def make(data: Path) -> None:
                    files.remove_tree(sockets)
                    accounts.ensure_directory(sockets, source.uid)
                    parts = (source.base, source.span, source.stream, source.until, source.uid)
                    server = (secret, spec.init_settings, sockets, spec.memory, held)
                    tools.replay(Replay(bundle, data, *parts, *server))

                pool.create(passing, make)
            pool.take(passing, target, spec.uid, maker.renew_identity)
        finally:
            files.remove_tree(sockets)  # the next start makes its own
            pool.delete_below(place)
            self._healer.in_background(self._pools.remove_deleted)


def _is_usable(record: LineageRecord) -> bool:
    current = record.current
    return current is not None and any(one == current for one, _ in record.windows())


def _last_line(output: Path) -> str:
    lines = files.read_tail(output).strip().splitlines()
    return lines[-1] if lines else "it ended"
