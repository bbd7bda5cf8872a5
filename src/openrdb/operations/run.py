"""What a sequence works with while its operation is under way, and how it ends."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar
from uuid import UUID

from openrdb.config import Region, Settings
from openrdb.errors import NotFound, OpenRDBError, TransientState, is_refusal
from openrdb.host.base import Host
from openrdb.observe.changes import Changes
from openrdb.operations.ending import end_failed
from openrdb.operations.registry import Operation
from openrdb.state import known, operations
from openrdb.state.database import Database
from openrdb.state.instances import NODES_ONLY
from openrdb.state.known import Known
from openrdb.state.models import Instance, Node
from openrdb.state.models.hosts import LOCAL_HOST
from openrdb.state.secrets import Secrets
from openrdb.state.statuses.instance import InstanceStatus
from openrdb.state.subjects import SUBJECTS, Subject
from openrdb.storage.base import Store

P = ParamSpec("P")
T = TypeVar("T")

_LOOK = 5.0
"""Seconds after which it is looked again whether a host has a place for a job."""


class KeyedLocks:
    """A lock a key, there as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[UUID, threading.RLock] = {}
        self._users: dict[UUID, int] = defaultdict(int)

    @contextmanager
    def hold(self, key: UUID) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(key, threading.RLock())
            self._users[key] += 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key], self._locks[key]


class JobPlaces:
    """Places for jobs on each host: who finds all taken waits for one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[UUID, set[UUID]] = defaultdict(set)

    @contextmanager
    def hold(
        self, host_id: UUID, job_id: UUID, places: int, running: Callable[[], set[UUID]]
    ) -> Iterator[None]:
        """Hold a job's place.

        Args:
            places: how many there are.
            running: returns the jobs that run on the host: some may from before this process, and
                have their places already.
        """
        while True:
            found = running()
            with self._changed:
                others = (self._held[host_id] | found) - {job_id}
                if job_id in found or len(others) < places:
                    self._held[host_id].add(job_id)
                    break
                self._changed.wait(_LOOK)
        try:
            yield
        finally:
            with self._changed:
                self._held[host_id].discard(job_id)
                self._changed.notify_all()


@dataclass(frozen=True)
class Services:
    """What sequences need; there is one a process."""

    settings: Settings
    database: Database
    hosts: Mapping[UUID, Host]
    """Each by its id."""
    changes: Changes
    secrets: Secrets
    stores: Mapping[Region, Store]
    """Each region's objects."""
    build: str
    """Which code this is: a sequence that another build began starts again at its first step."""
    content_locks: KeyedLocks = field(default_factory=KeyedLocks)
    """One change of an instance's users, databases and privileges at a time."""
    transfers: JobPlaces = field(default_factory=JobPlaces)
    """On each host a few backups are made or restored at a time."""
    log_copies: JobPlaces = field(default_factory=JobPlaces)
    """Likewise copies of logs, which are soon made."""
    schedules: threading.Event = field(default_factory=threading.Event)
    """Set at the end of what a schedule may be waiting for."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set while the service ends, and what operations work with is closed: a step that waits gives up,
    and the next launch begins it again."""


class Checkpoint(Protocol):
    """Calls a function once, and afterwards answers its recorded result."""

    def __call__(self, name: str, do: Callable[[], T], /) -> T: ...


def _explanation(error: Exception) -> str:
    return error.explanation if isinstance(error, OpenRDBError) else str(error)


@dataclass
class Run:
    """One operation under way."""

    operation_id: UUID
    operation: Operation
    services: Services
    checkpoint: Checkpoint
    is_checked: bool
    """Whether the precondition has held: from then on the operation may be half done."""
    failure: str | None = None
    """What it was completed with, where that is no success."""
    _entered: str | None = None
    """The step that was written down with the precondition."""

    @property
    def settings(self) -> Settings:
        return self.services.settings

    @property
    def database(self) -> Database:
        return self.services.database

    @property
    def secrets(self) -> Secrets:
        return self.services.secrets

    @property
    def edge(self) -> Host:
        """The host whose load balancers serve endpoints."""
        return self.services.hosts[LOCAL_HOST]

    def host_of(self, node: Node) -> Host:
        """Return the host that a node is on."""
        return self.services.hosts[node.host_id]

    def step(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something that can be repeated, and remember its result across a crash."""
        name = do.__name__

        def entered() -> T:
            if name != self._entered:
                with self.database.write(durable=False) as session:
                    operations.enter_step(session, self.operation_id, name)
            self._entered = None
            return do(*args, **kwargs)

        return self.checkpoint(name, entered)

    def check(self, check: Callable[[], None], first: Callable[..., object]) -> None:
        """Check a precondition once, before the first change, which the step `first` makes.

        The result is stored with the operation: after a crash the check could fail only because of
        the operation's own partial work.
        """
        if not self.is_checked:
            check()
            self._entered = first.__name__
            with self.database.write() as session:
                operations.mark_checked(session, self.operation_id, self._entered)
            self.is_checked = True

    def instance(self, instance_id: UUID | None = None, *, whole: bool = True) -> Instance:
        """Return the instance, or another one, as it is now; `whole` as in `instances.get`.

        Raises:
            NotFound: it has been deleted meanwhile.
        """
        wanted = instance_id or self.operation.subject_id
        with self.database.read() as session:
            found = session.get(Instance, wanted, options=() if whole else NODES_ONLY)
        if found is None:
            raise NotFound("instance", str(wanted))
        return found

    @property
    def _subject(self) -> Subject:
        return SUBJECTS[self.operation.subject_type]

    def change(self, change: Callable[[Instance], None]) -> None:
        """Change the instance's row, and wake up those who wait for it."""
        with self.database.write() as session:
            change(session.get_one(Instance, self.operation.subject_id))
        self._announce()

    def complete(
        self,
        change: Callable[[Any], None] | None = None,
        error: str | None = None,
        *,
        note: Callable[[Known], None] | None = None,
        remark: str | None = None,
    ) -> None:
        """Make the last change of the subject's row and end the operation, in one transaction; as
        failed if with an error.

        `note` says what it made true inside the instance, and `remark` what its event says of a
        success. A crash after it repeats nothing: by then
        another operation may have begun.
        """
        self.failure = error
        with self.database.write() as session:
            if operations.finish(session, self.operation_id, error, remark=remark):
                if change is not None:
                    change(session.get_one(self._subject.model, self.operation.subject_id))
                if note is not None:
                    known.note(session, self.operation.subject_id, note)
        self._announce()

    def defer(self, note: Callable[[Known], None]) -> None:
        """End here, and leave the operation for when the instance works again; note it as done."""
        with self.database.write() as session:
            instance = session.get_one(Instance, self.operation.subject_id)
            if instance.status != InstanceStatus.ERROR:  # it was repaired meanwhile
                raise TransientState("instance", str(instance.id), instance.status)
            operations.defer(session, self.operation_id)
            known.note(session, self.operation.subject_id, note)
        self._announce()

    def fail(self, error: Exception) -> None:
        """End the operation as failed. Only a status that it has set itself changes."""
        why = f"{type(error).__name__}: {_explanation(error)}"
        error_type = error.type if isinstance(error, OpenRDBError) else "internal"
        with self.database.write() as session:
            has_ended = end_failed(
                session,
                self.operation_id,
                self.operation,
                why,
                error_type,
                is_refusal=is_refusal(error),
            )
        if has_ended:
            self._announce()

    def _announce(self) -> None:
        ids = {concern.subject_id for concern in self.operation.concerns()}
        for subject_id in ids | {self.operation.subject_id}:
            self.services.changes.announce(subject_id)
