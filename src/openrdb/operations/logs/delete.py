"""The removal of a copy of logs that has expired; its object as well."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.operations import rows
from openrdb.operations.logs.prepare import find, store_of
from openrdb.operations.registry import Operation, register
from openrdb.operations.run import Run
from openrdb.state.statuses.instance_log import InstanceLogRequest


@register
@dataclass(frozen=True)
class DeleteLog(Operation):
    kind = "delete_log"
    subject_type = "instance_log"
    request = InstanceLogRequest.DELETE
    deadline = 300.0

    def sequence(self, run: Run) -> None:
        run.step(end_job, run, self.subject_id)
        run.step(remove_object, run, self.subject_id)
        run.complete(rows.forget)


def end_job(run: Run, log_id: UUID) -> None:
    """End the job that was to make a copy, where its operation failed before its end was known."""
    host = run.services.hosts[find(run, log_id).host_id]
    host.stop_job(log_id)
    host.forget_job(log_id)


def remove_object(run: Run, log_id: UUID) -> None:
    """Remove a copy's object from its store."""
    log = find(run, log_id)
    store_of(run, log).delete(log.key)
