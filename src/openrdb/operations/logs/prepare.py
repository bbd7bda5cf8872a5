"""POST /instances/{id}/prepare-logs: a copy of each node's logs, creating → ready."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

from openrdb.config import Region
from openrdb.errors import HostError, OpenRDBError
from openrdb.operations import rows
from openrdb.operations.backups.transfer import persistently, to_its_end
from openrdb.operations.desired import node_spec
from openrdb.operations.registry import Concern, Operation, register
from openrdb.operations.run import Run
from openrdb.spec import LogsSpec, ObjectRef, TransferState
from openrdb.state import instance_logs
from openrdb.state.models import InstanceLog, now
from openrdb.state.statuses import instance_log as statuses
from openrdb.state.statuses.instance_log import InstanceLogStatus
from openrdb.storage.base import Store

_LONGEST: Final = 3600.0
_AT_ONCE: Final = 4
"""Copies that a host makes at once; others wait."""


@register
@dataclass(frozen=True)
class PrepareLogs(Operation):
    """A node whose logs cannot be copied keeps none of the others from theirs."""

    kind = "prepare_logs"
    subject_type = "instance_log"
    request = None
    meanwhile = InstanceLogStatus.CREATING
    deadline = _LONGEST

    others: tuple[UUID, ...] = ()
    """The copies of the other nodes' logs."""

    def concerns(self) -> list[Concern]:
        creating, error = InstanceLogStatus.CREATING, InstanceLogStatus.ERROR
        statuses_ = frozenset[str]({creating})
        others = [
            Concern("instance_log", one, creating, statuses_, None, error) for one in self.others
        ]
        return [*super().concerns(), *others]

    def sequence(self, run: Run) -> None:
        failures = []
        for log_id in (self.subject_id, *self.others):
            copied = run.step(copy_logs, run, log_id)
            if (reason := run.step(end_copy, run, log_id, copied)) is not None:
                failures.append(reason)
            forget(run, log_id)
        run.complete(None, "; ".join(failures) or None)


def find(run: Run, log_id: UUID) -> InstanceLog:
    """Return a copy as it is now.

    Raises:
        NotFound: it has been removed meanwhile.
    """
    return rows.find(run, InstanceLog, log_id)


def store_of(run: Run, log: InstanceLog) -> Store:
    """Return the store that a copy's object is in."""
    return run.services.stores[cast(Region, log.region)]


def copy_logs(run: Run, log_id: UUID) -> TransferState:
    """Copy the logs of a node, and return how that ended; the job has the copy's id."""
    log = find(run, log_id)
    if log.status != InstanceLogStatus.CREATING:  # of a run that begins again
        return TransferState("done")
    instance = run.instance(log.instance_id)
    node = next((one for one in instance.every_node if one.id == log.node_id), None)
    if node is None:
        return TransferState("failed", "the node has been removed")
    host, node_of_it = run.host_of(node), node_spec(instance, node, run.secrets)
    target = ObjectRef(run.settings.store_of(cast(Region, log.region)), log.key)
    spec = LogsSpec(log_id, target, log.first_day, log.last_day, _LONGEST)
    with run.services.log_copies.hold(node.host_id, log_id, _AT_ONCE, set):
        try:
            return persistently(
                host,
                log_id,
                lambda: to_its_end(host, log_id, lambda: host.start_logs(node_of_it, spec)),
            )
        except HostError as error:
            return TransferState("failed", str(error))


def end_copy(run: Run, log_id: UUID, copied: TransferState) -> str | None:
    """Make a copy `ready`, with a URL that anybody can download from; or `error`, and return why."""
    log = find(run, log_id)
    url = None
    if copied.status == "done":
        left = int((log.expires_at - now()).total_seconds())
        url = store_of(run, log).sign(log.key, max(left, 1), instance_logs.file_name(log))
    with run.database.write() as session:
        row = session.get_one(InstanceLog, log_id)
        if row.status == InstanceLogStatus.CREATING:  # else the step is done again
            row.download_url = url
            ready = InstanceLogStatus.READY if url is not None else InstanceLogStatus.ERROR
            statuses.move(row, ready)
    run.services.changes.announce(log_id)
    return None if copied.status == "done" else f"node {log.node_name}: {copied.reason}"


def forget(run: Run, log_id: UUID) -> None:
    """Remove the traces of a job whose end the state knows by now; the tidying of jobs repeats it."""
    with contextlib.suppress(OpenRDBError):
        run.services.hosts[find(run, log_id).host_id].forget_job(log_id)
