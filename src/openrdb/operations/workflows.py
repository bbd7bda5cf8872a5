"""Durable operations: a sequence of steps that a crash interrupts but never loses.

The row of an operation, committed together with the state that it leads to, is the truth. Its
workflow has the row's id, so starting it twice is starting it once: right after the commit, by the
sweep if a crash came between, and by recovery if it came in the middle. DBOS keeps the workflows and
their steps; nothing else imports it. An operation that a request waits for is performed in the
request's own thread, and gets a workflow only if a crash interrupts it.

What DBOS keeps can be thrown away: steps ensure, so a sequence can always begin again at its first
step. That is done where the sources have changed since, as its steps may not be the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from dbos import DBOS, DBOSConfig, SetWorkflowID, WorkflowHandle
from dbos import error as dbos_error
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from openrdb import logs
from openrdb.errors import DiskFull, OpenRDBError, StartFailed, TransientState, is_refusal
from openrdb.operations import registry
from openrdb.operations.run import Checkpoint, Run, Services
from openrdb.state import events, operations, trash
from openrdb.state.models import Operation, now
from openrdb.state.subjects import SUBJECTS

log = logging.getLogger(__name__)

T = TypeVar("T")

_EXECUTOR = "openrdb"
_ATTEMPTS = 3
_PAUSE = 1.0
"""Seconds before the second attempt; twice as many before each further one."""
_TIDY = 3600.0
"""Seconds between two looks for what can be forgotten."""
_ALIVE = {"PENDING", "ENQUEUED"}
"""Statuses of workflows that DBOS itself brings to their end."""

_services: Services | None = None
"""One a process, as DBOS is."""

_unrecorded: set[UUID] = set()
"""Operations that have ended here, but whose row could not say so, as on a full disk."""


class _Stopped(BaseException):
    """Ends an operation where it is, as the service ends: no failure, and nothing is taken back."""


def is_passing(error: BaseException) -> bool:
    """Return whether trying again may help: an engine that ended is started again."""
    return isinstance(error, TransientState)


def _is_worth_repeating(error: BaseException) -> bool:
    if isinstance(error, StartFailed):
        return False  # its host has tried several times
    return is_passing(error) or not is_refusal(error)


def _checkpoint(name: str, do: Callable[[], T]) -> T:
    """Call a step, and again after a mishap; its result is recorded with the workflow."""
    options: Any = {
        "name": name,
        "retries_allowed": True,
        "max_attempts": _ATTEMPTS,
        "interval_seconds": _PAUSE,
        "should_retry": _is_worth_repeating,
    }
    return DBOS.run_step(options, do)


@DBOS.workflow(name="operation")
def _workflow(operation_id: str) -> None:
    _perform(UUID(operation_id), _checkpoint, _enter)


def _perform(
    operation_id: UUID,
    checkpoint: Checkpoint,
    enter: Callable[[Services, UUID], Operation | None],
) -> Exception | None:
    """Perform an operation, unless `enter` finds that it has ended; return what it failed with.

    Raises:
        DiskFull, SQLAlchemyError: its end cannot be recorded; the sweep begins it again.
    """
    assert _services is not None, "operations run after launch only"  # noqa: S101
    services = _services
    try:
        row = enter(services, operation_id)
        if row is None:
            return None
        step = partial(_unless_stopping, services.stopping, checkpoint)
        run = Run(row.id, registry.load(row), services, step, row.is_checked)
        with (
            logs.about(logs.REQUEST, _request_of(services, row)),
            logs.about(logs.OPERATION, str(row.id)),
        ):
            try:
                run.operation.sequence(run)
            except Exception as failure:
                error = _cause(failure)
                if not is_refusal(error):
                    _log_failure(services, row, error)
                run.fail(error)
                return error
            what = f"{row.kind} of {row.subject_type} {row.subject_id}"
            if run.failure is None:
                log.info("%s is done", what)
            else:
                log.warning("%s has failed: %s", what, run.failure)
    except (DiskFull, SQLAlchemyError) as error:
        log.warning("the end of operation %s cannot be recorded: %s", operation_id, error)
        _unrecorded.add(operation_id)
        raise
    return None


def _unless_stopping(
    stopping: threading.Event, checkpoint: Checkpoint, name: str, do: Callable[[], T]
) -> T:
    """Call a step; what fails while the service ends fails because of that.

    Raises:
        _Stopped: the service ends; the next launch begins the step again.
    """
    if stopping.is_set():
        raise _Stopped
    try:
        return checkpoint(name, do)
    except Exception:
        if stopping.is_set():
            raise _Stopped from None
        raise


def _enter(services: Services, operation_id: UUID) -> Operation | None:
    # What a power cut takes back is begun again, as if it had not been entered.
    with services.database.write(durable=False) as session:
        return operations.enter(session, operation_id, services.build)


def _entered(services: Services, operation_id: UUID) -> Operation | None:
    with services.database.read() as session:
        return session.get(Operation, operation_id)


def _request_of(services: Services, row: Operation) -> str | None:
    """Return the id of the request that an operation was recorded by; None: our own schedule's."""
    if (known := logs.subject(logs.REQUEST)) is not None:
        return known  # it is performed in the request's own thread
    with services.database.read() as session:
        return events.request_of(session, row)


def _log_failure(services: Services, row: Operation, error: Exception) -> None:
    """Log in one line what failed for whom; with a traceback where it is a defect of ours."""
    with services.database.read() as session:
        subject = SUBJECTS[row.subject_type].find(session, row.subject_id)
        name = repr(subject.name) if subject is not None else "deleted"
    log.error(
        "operation %s on %s %s (%s) failed: %s",
        row.kind,
        row.subject_type,
        row.subject_id,
        name,
        " ".join(str(error).split()),
        exc_info=None if isinstance(error, OpenRDBError) else error,
    )


def _cause(error: Exception) -> Exception:
    """Return what a step failed with at last, out of what DBOS makes of it."""
    if isinstance(error, dbos_error.DBOSMaxStepRetriesExceeded):
        return error.errors[-1]
    return error


def _begin(operation_id: UUID) -> WorkflowHandle[None]:
    with SetWorkflowID(str(operation_id)):
        return DBOS.start_workflow(_workflow, str(operation_id))


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
        self._sweeper = threading.Thread(target=self._sweep, name="sweep", daemon=True)

    def launch(self) -> None:
        """Resume what was under way, start what was recorded.

        DBOS resumes workflows of this build by itself. Those of another one are deleted and started
        again, like those that a power cut lost.
        """
        global _services  # noqa: PLW0603
        _services = self._services
        self._services.stopping.clear()
        DBOS(config=self._configuration())
        DBOS.launch()
        self._delete_stale()
        self._start_found(operations.unfinished)
        self._sweeper.start()

    def _configuration(self) -> DBOSConfig:
        configuration: DBOSConfig = {
            "name": "openrdb",
            "application_version": self._services.build,
            "executor_id": _EXECUTOR,
            "log_level": "ERROR",  # why a step is tried again is said once it has failed
        }
        url = self._services.settings.database_url
        if make_url(url).get_backend_name() == "sqlite":
            path = self._services.settings.data_dir / "workflows.sqlite"
            configuration["system_database_engine"] = _sqlite_engine(path)
        configuration["system_database_url"] = url
        return configuration

    def start(self, operation_id: UUID) -> None:
        """Start a recorded operation; once, however often this is called.

        Where that is not possible, as on a full disk, the sweep tries again.
        """
        try:
            _begin(operation_id)
        except SQLAlchemyError as error:
            log.warning("operation %s is started later: %s", operation_id, error)

    def perform(self, operation_id: UUID) -> None:
        """Perform an operation that was just recorded as running, in this thread; raises what it
        failed with.

        It needs no workflow of its own: who asked waits for it, and if a crash comes in between, the
        next launch finds its row.

        Raises:
            DiskFull: the operation is recorded, and made later.
        """
        try:
            error = _perform(operation_id, self._repeat, _entered)
        except (DiskFull, SQLAlchemyError) as failure:
            raise DiskFull(f"operation {operation_id} is performed later") from failure
        if error is not None:
            raise error

    def _repeat(self, _: str, do: Callable[[], T]) -> T:
        """Call a step, and again after a mishap."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return do()
            except Exception as error:
                if not _is_worth_repeating(error):
                    raise
            self._services.stopping.wait(_PAUSE * 2 ** (attempt - 1))
        return do()

    def close(self) -> None:
        """Stop starting; what is under way stops where it is, and goes on at the next launch."""
        self._services.stopping.set()
        if self._sweeper.ident is not None:
            self._sweeper.join()
        DBOS.destroy(workflow_completion_timeout_sec=0)

    def _delete_stale(self) -> None:
        """Delete the workflows of unfinished operations that DBOS does not bring to their end."""
        with self._services.database.read() as session:
            ids = [str(row.id) for row in operations.unfinished(session)]
        if not ids:
            return
        known = DBOS.list_workflows(workflow_ids=ids, load_input=False, load_output=False)
        stale = [
            one.workflow_id
            for one in known
            if one.app_version != self._services.build or one.status not in _ALIVE
        ]
        if stale:
            DBOS.delete_workflows(stale)

    def _start_found(self, find: Callable[[Session], list[Operation]]) -> None:
        with self._services.database.read() as session:
            found = find(session)
        for row in found:
            self.start(row.id)

    def _begin_unrecorded_again(self) -> None:
        """Begin operations again whose end could not be recorded; a workflow runs only once.

        Not before there is room: they would restart servers each time, and fail again.
        """
        if not self._services.database.has_room():
            return
        for operation_id in tuple(_unrecorded):
            _unrecorded.discard(operation_id)
            try:
                DBOS.delete_workflows([str(operation_id)])
                _begin(operation_id)
            except SQLAlchemyError as error:
                _unrecorded.add(operation_id)
                log.warning("operation %s begins again later: %s", operation_id, error)

    def _sweep(self) -> None:
        interval = self._services.settings.sweep
        older_than = timedelta(seconds=interval)
        tidied = -_TIDY
        while not self._services.stopping.wait(interval):
            try:
                self._begin_unrecorded_again()
                self._start_found(partial(operations.unstarted, older_than=older_than))
                self._report_overdue()
                if time.monotonic() - tidied > _TIDY:
                    self._tidy()
                    tidied = time.monotonic()
            except Exception:
                log.exception("the sweep failed; it is tried again")

    def _report_overdue(self) -> None:
        with self._services.database.read() as session:
            if all(row.is_overdue for row in operations.late(session)):
                return
        with self._services.database.write() as session:
            for row in operations.mark_overdue(session):
                log.warning(
                    "operation %s on %s %s is past its deadline, in step %s",
                    row.kind,
                    row.subject_type,
                    row.subject_id,
                    row.step,
                )

    def _tidy(self) -> None:
        """Forget operations of long ago: their workflows first, so that none is left without."""
        with self._services.database.read() as session:
            found = operations.old(session)
        if found:
            DBOS.delete_workflows([str(operation_id) for operation_id in found])
        self._forget_jobs()
        asked_at = now()  # what is deleted from now on is not among the answers
        trashed = [one for host in self._services.hosts.values() for one in host.trashed()]
        with self._services.database.write() as session:
            operations.forget(session, found)
            trash.forget(session, trashed, asked_at)
            events.prune(session)

    def _forget_jobs(self) -> None:
        """Remove the traces of jobs whose operations have ended: a crash came between."""
        for host in self._services.hosts.values():
            ended = [one.id for one in host.jobs() if one.status in ("done", "failed")]
            with self._services.database.read() as session:
                needed = operations.needed_jobs(session)
            for job_id in ended:
                if job_id not in needed:
                    host.forget_job(job_id)
