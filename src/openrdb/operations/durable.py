"""Durable operations: a sequence of steps that a crash interrupts but never loses.

The row of an operation, committed together with the state that it leads to, is the truth. Its
workflow has the row's id, so starting it twice is starting it once: right after the commit, by the
sweep if a crash came between, and by recovery if it came in the middle. DBOS keeps the workflows and
their steps; nothing else imports it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos._error import DBOSMaxStepRetriesExceeded
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

from openrdb.config import Settings
from openrdb.errors import NotFound, OpenRDBError, TransientState
from openrdb.host.agent import Host
from openrdb.observe.changes import Changes
from openrdb.state import operations, statuses
from openrdb.state.database import Database
from openrdb.state.models import Instance, Operation
from openrdb.state.secrets import Secrets

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_VERSION = "openrdb"
"""Fixed: a new build must take over an old one's operations."""
_ATTEMPTS = 3
_CHECKED = "checked"
"""Among an operation's parameters."""
_TIDY = 3600.0
"""Seconds between two looks for what can be forgotten."""


@dataclass(frozen=True)
class Run:
    """One operation under way: what its sequence works with."""

    operation_id: UUID
    instance_id: UUID
    parameters: dict[str, Any]
    settings: Settings
    database: Database
    host: Host
    changes: Changes
    secrets: Secrets

    def step(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something that may be done again, and remember its result across a crash."""
        options: Any = {
            "name": do.__name__,
            "retries_allowed": True,
            "max_attempts": _ATTEMPTS,
            "should_retry": lambda error: is_passing(error) or not is_refusal(error),
        }
        return DBOS.run_step(options, do, *args, **kwargs)

    def all_instance_ids(self) -> list[UUID]:
        """The instance and, where the operation is between two, the other one."""
        other = self.parameters.get("other_instance_id")
        return [self.instance_id, *([UUID(other)] if other else [])]

    @property
    def is_checked(self) -> bool:
        """Whether its checks have passed: after a crash it may be half done."""
        return _CHECKED in self.parameters

    def check(self, check: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Refuse what cannot be, before anything is done; that it passed is kept with the state, as
        what it asks may be true only because the operation is half done."""
        if not self.is_checked:
            check(*args, **kwargs)
            with self.database.write() as session:
                operations.keep(session, self.operation_id, {_CHECKED: True})

    def instance(self, instance_id: UUID | None = None) -> Instance:
        """The instance, or another one, as it is now.

        Raises:
            NotFound: it has been deleted meanwhile.
        """
        wanted = instance_id or self.instance_id
        with self.database.read() as session:
            found = session.get(Instance, wanted)
        if found is None:
            raise NotFound("instance", str(wanted))
        return found

    def other_instance(self) -> Instance:
        return self.instance(UUID(self.parameters["other_instance_id"]))

    def change(self, change: Callable[[Instance], None]) -> None:
        """Change the instance's row, and wake up those who wait for it."""
        with self.database.write() as session:
            change(session.get_one(Instance, self.instance_id))
        self.changes.announce(self.instance_id)

    def complete(
        self, change: Callable[[Instance], None] | None = None, error: str | None = None
    ) -> None:
        """Make the last change and end the operation, in one transaction; as failed if with an error.

        A crash after it repeats nothing: by then another operation may have begun.
        """
        with self.database.write() as session:
            if operations.finish(session, self.operation_id, error) and change is not None:
                change(session.get_one(Instance, self.instance_id))
        for instance_id in self.all_instance_ids():
            self.changes.announce(instance_id)

    def complete_with(self, status: str) -> None:
        """End the operation with the instance in a status."""
        self.complete(lambda instance: statuses.move(instance, status))


Sequence = Callable[[Run], None]
_SEQUENCES: dict[str, Sequence] = {}
_services: Services | None = None


def operation(kind: str) -> Callable[[Sequence], Sequence]:
    """Name a sequence, as operations' rows have it."""

    def register(sequence: Sequence) -> Sequence:
        _SEQUENCES[kind] = sequence
        return sequence

    return register


@dataclass
class Services:
    """What sequences need; there is one a process, as DBOS is."""

    settings: Settings
    database: Database
    host: Host
    changes: Changes
    secrets: Secrets


_awaited: dict[UUID, Exception | None] = {}
"""Operations whose end a request waits for, and how they failed."""


def is_refusal(error: BaseException) -> bool:
    """Whether an error is an answer to what was asked, and not a mishap on the way to it."""
    return isinstance(error, OpenRDBError) and error.status < 500


def is_passing(error: BaseException) -> bool:
    """Whether it is worth trying again: an engine that ended is started again."""
    return isinstance(error, TransientState)


@DBOS.workflow(name="operation")
def _workflow(operation_id: str) -> None:
    assert _services is not None, "operations run after launch only"  # noqa: S101
    services = _services
    with services.database.write() as session:
        row = operations.begin(session, UUID(operation_id))
    if row is None:
        return
    run = Run(
        operation_id=row.id,
        instance_id=row.instance_id,
        parameters=row.parameters,
        settings=services.settings,
        database=services.database,
        host=services.host,
        changes=services.changes,
        secrets=services.secrets,
    )
    try:
        _SEQUENCES[row.kind](run)
    except Exception as failure:
        error = _cause(failure)
        if not is_refusal(error):
            log.error(
                "operation %s on instance %s failed", row.kind, row.instance_id, exc_info=error
            )
        if row.id in _awaited:
            _awaited[row.id] = error
        _fail(run, error)


def _cause(error: Exception) -> Exception:
    """What a step failed with at last, out of what DBOS makes of it."""
    return error.errors[-1] if isinstance(error, DBOSMaxStepRetriesExceeded) else error


def _fail(run: Run, error: Exception) -> None:
    """An instance in transition shows `error`; its owner may delete it or restart it."""
    with run.database.write() as session:
        if not operations.finish(session, run.operation_id, f"{type(error).__name__}: {error}"):
            return
        for instance_id in run.all_instance_ids():
            instance = session.get(Instance, instance_id)
            if instance is not None and instance.status in statuses.TRANSIENT:
                statuses.move(instance, "error")
    for instance_id in run.all_instance_ids():
        run.changes.announce(instance_id)


def _sqlite_engine(path: Path) -> Engine:
    """DBOS' own way of connecting, but with a log and `synchronous=NORMAL`.

    After a power cut a step may be done again, which is harmless: the operations themselves are in
    the state, whose every commit is on disk.
    """
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "foreign_keys=ON", "journal_mode=WAL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


class Operations:
    """Starts operations, and sweeps up those that a crash left recorded and not started."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sweep", daemon=True)

    def launch(self) -> None:
        """Resume what was under way, start what was recorded."""
        global _services  # noqa: PLW0603
        _services = self._services
        DBOS(config=self._configuration())
        DBOS.launch()
        # Also those under way, which DBOS resumes itself, unless a power cut took its last writes.
        self._start_found(operations.unfinished)
        self._sweeper.start()

    def _configuration(self) -> DBOSConfig:
        configuration: DBOSConfig = {
            "name": "openrdb",
            "application_version": _VERSION,
            "executor_id": _VERSION,
            "log_level": "WARNING",
        }
        url = self._services.settings.database_url
        if make_url(url).get_backend_name() == "sqlite":
            path = self._services.settings.data_dir / "workflows.sqlite"
            configuration["system_database_engine"] = _sqlite_engine(path)
        configuration["system_database_url"] = url
        return configuration

    def start(self, operation_id: UUID) -> None:
        """Start a recorded operation; once, however often this is called."""
        with SetWorkflowID(str(operation_id)):
            DBOS.start_workflow(_workflow, str(operation_id))

    def perform(self, operation_id: UUID) -> None:
        """Start a recorded operation and return at its end; raises what it failed with."""
        _awaited[operation_id] = None
        try:
            with SetWorkflowID(str(operation_id)):
                DBOS.start_workflow(_workflow, str(operation_id)).get_result()
        finally:
            error = _awaited.pop(operation_id)
        if error is not None:
            raise error

    def close(self) -> None:
        """Stop starting; what is under way stops where it is, and goes on at the next launch."""
        self._stopping.set()
        if self._sweeper.ident is not None:
            self._sweeper.join()
        DBOS.destroy(workflow_completion_timeout_sec=0)

    def _start_found(self, find: Callable[[Session], list[Operation]]) -> None:
        with self._services.database.read() as session:
            found = find(session)
        for row in found:
            self.start(row.id)

    def _sweep(self) -> None:
        interval = self._services.settings.sweep
        older_than = timedelta(seconds=interval)
        tidied = -_TIDY
        while not self._stopping.wait(interval):
            try:
                self._start_found(partial(operations.unstarted, older_than=older_than))
                if time.monotonic() - tidied > _TIDY:
                    self._tidy()
                    tidied = time.monotonic()
            except Exception:
                log.exception("the sweep failed; it is tried again")

    def _tidy(self) -> None:
        """Forget operations of long ago: their workflows first, so that none is left without."""
        with self._services.database.read() as session:
            found = operations.old(session)
        if found:
            DBOS.delete_workflows([str(operation_id) for operation_id in found])
            with self._services.database.write() as session:
                operations.forget(session, found)
